-- Grants and row-level security. FORCE: even the owner sees nothing without a policy.

GRANT SELECT ON control.tenant TO sluice_control_app;
GRANT SELECT, INSERT, UPDATE ON control.namespace, control.topic, control.service_account, control.api_key,
    control.operation, control.idempotency TO sluice_control_app;
GRANT SELECT, INSERT, DELETE ON control.role_binding TO sluice_control_app;
GRANT SELECT, INSERT ON control.audit_event TO sluice_control_app;
GRANT INSERT, SELECT (id) ON control.outbox TO sluice_control_app;
GRANT USAGE ON SEQUENCE control.outbox_id_seq TO sluice_control_app;

GRANT SELECT, INSERT, UPDATE ON control.tenant, control.namespace, control.topic, control.service_account,
    control.api_key, control.operation, control.idempotency, control.outbox, control.lease, control.control_log
    TO sluice_control_system;
GRANT SELECT, INSERT, DELETE ON control.role_binding TO sluice_control_system;
GRANT SELECT, INSERT ON control.audit_event TO sluice_control_system;
GRANT DELETE ON control.operation, control.idempotency, control.outbox TO sluice_control_system;
GRANT USAGE ON SEQUENCE control.outbox_id_seq TO sluice_control_system;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['namespace', 'topic', 'service_account', 'role_binding', 'api_key', 'operation',
                                'audit_event', 'idempotency', 'outbox'] LOOP
        EXECUTE format('ALTER TABLE control.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE control.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_tenant ON control.%I TO sluice_control_app
                        USING (tenant_uid = control.current_tenant())
                        WITH CHECK (tenant_uid = control.current_tenant())', name);
        EXECUTE format('CREATE POLICY of_system ON control.%I TO sluice_control_system
                        USING (true) WITH CHECK (true)', name);
    END LOOP;
END $$;

ALTER TABLE control.tenant ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.tenant FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON control.tenant TO sluice_control_app USING (uid = control.current_tenant());
CREATE POLICY of_system ON control.tenant TO sluice_control_system USING (true) WITH CHECK (true);

-- Written by the system alone; the application role has no grant on them at all.
ALTER TABLE control.lease ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.lease FORCE ROW LEVEL SECURITY;
CREATE POLICY of_system ON control.lease TO sluice_control_system USING (true) WITH CHECK (true);
ALTER TABLE control.control_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.control_log FORCE ROW LEVEL SECURITY;
CREATE POLICY of_system ON control.control_log TO sluice_control_system USING (true) WITH CHECK (true);
