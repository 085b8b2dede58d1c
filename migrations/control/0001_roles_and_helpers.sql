-- Who may do what in this schema, and the helpers that policies and queries use.
-- The roles exist already: the bootstrap makes them (they belong to the cluster, not to this database).

GRANT USAGE ON SCHEMA control TO sluice_control_app, sluice_control_system;

-- The tenant of the running transaction; NULL outside of one, so that policies then match nothing. (A setting that was
-- once set locally reads as '' afterwards, not as NULL.)
CREATE FUNCTION control.current_tenant() RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('app.tenant_id', true), '')::bigint;

-- Times cross the border as microseconds since 1970.
CREATE FUNCTION control.micros(t timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (extract(epoch FROM t) * 1000000)::bigint;

CREATE FUNCTION control.from_micros(us bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_timestamp(0) + us * interval '1 microsecond';
