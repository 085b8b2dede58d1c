-- The owner may see and change all rows: data migrations, and pg_dump, which refuses to work under row-level security.
-- The owner migrates and serves nobody; the roles that serve stay fenced (decision 0022).
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['tenant', 'namespace', 'topic', 'consumer_group', 'service_account', 'role_binding', 'api_key',
                                'operation', 'audit_event', 'idempotency', 'outbox', 'lease', 'control_log'] LOOP
        EXECUTE format('ALTER TABLE control.%I NO FORCE ROW LEVEL SECURITY', name);
    END LOOP;
END $$;

-- When a later change of the same aggregate was published: from then on the row is only kept for calls that still wait.
ALTER TABLE control.outbox ADD COLUMN replaced_time timestamptz;

-- What is gone is removed an hour after its tombstone was published.
GRANT DELETE ON control.namespace, control.topic, control.consumer_group, control.service_account, control.api_key
    TO sluice_control_system;
