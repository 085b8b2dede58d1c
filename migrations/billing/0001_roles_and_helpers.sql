-- Who may do what in this schema, and the helper that policies use. The roles exist already: the bootstrap makes them.

GRANT USAGE ON SCHEMA billing TO sluice_billing_app, sluice_billing_system;

-- The tenant of the running transaction; NULL outside of one, so that policies then match nothing. (A setting that was
-- once set locally reads as '' afterwards, not as NULL.)
CREATE FUNCTION billing.current_tenant() RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('app.tenant_id', true), '')::bigint;
