-- Consumer groups. Topics are held by their ids within the namespace, so one that is deleted and made again is read again.

CREATE TABLE control.consumer_group (
    uid bigint PRIMARY KEY,
    tenant_uid bigint NOT NULL REFERENCES control.tenant,
    namespace_uid bigint NOT NULL REFERENCES control.namespace,
    namespace_id text NOT NULL,
    id text NOT NULL,
    display_name text NOT NULL,
    labels jsonb NOT NULL DEFAULT '{}',
    deletion_protection boolean NOT NULL DEFAULT false,
    topic_ids text[] NOT NULL CHECK (cardinality(topic_ids) > 0),
    -- As the client sent them; NULL: absent.
    start_position integer,
    start_time_us bigint CHECK (start_time_us IS NULL OR start_position IS NULL),
    ordering integer NOT NULL,
    ack_deadline_ms bigint,
    retry_policy jsonb,
    dead_letter_topic_id text,
    state text NOT NULL CHECK (state IN ('ACTIVE', 'DELETED')),
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    delete_time timestamptz
);
CREATE UNIQUE INDEX consumer_group_id ON control.consumer_group (namespace_uid, id COLLATE "C") WHERE state = 'ACTIVE';
CREATE INDEX consumer_group_of_tenant ON control.consumer_group (tenant_uid) WHERE state = 'ACTIVE';

GRANT SELECT, INSERT, UPDATE ON control.consumer_group TO sluice_control_app, sluice_control_system;
ALTER TABLE control.consumer_group ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.consumer_group FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON control.consumer_group TO sluice_control_app
    USING (tenant_uid = control.current_tenant()) WITH CHECK (tenant_uid = control.current_tenant());
CREATE POLICY of_system ON control.consumer_group TO sluice_control_system USING (true) WITH CHECK (true);

-- What became of the call that an event tells of. Refused calls leave an event too, so many a minute and tenant.
ALTER TABLE control.audit_event ADD COLUMN outcome text NOT NULL DEFAULT 'SUCCESS' CHECK (outcome IN ('SUCCESS', 'DENIED'));
CREATE INDEX audit_event_denied ON control.audit_event (tenant_uid, time) WHERE outcome = 'DENIED';
