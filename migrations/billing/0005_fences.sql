-- Grants and row-level security. FORCE: even the owner sees nothing without a policy. The application role only reads;
-- all that is counted is written by the system.

GRANT SELECT ON billing.topic_partition, billing.coverage, billing.hourly, billing.namespace, billing.topic
    TO sluice_billing_app;

GRANT SELECT, INSERT, UPDATE ON billing.ingest_offset, billing.source, billing.topic_partition, billing.coverage,
    billing.hourly, billing.tenant, billing.namespace, billing.topic TO sluice_billing_system;
GRANT SELECT, INSERT ON billing.log_gap, billing.rejected_window, billing.reread TO sluice_billing_system;
GRANT DELETE ON billing.coverage TO sluice_billing_system;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['topic_partition', 'coverage', 'hourly', 'reread', 'namespace', 'topic'] LOOP
        EXECUTE format('ALTER TABLE billing.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE billing.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_tenant ON billing.%I TO sluice_billing_app
                        USING (tenant_uid = billing.current_tenant())
                        WITH CHECK (tenant_uid = billing.current_tenant())', name);
        EXECUTE format('CREATE POLICY of_system ON billing.%I TO sluice_billing_system
                        USING (true) WITH CHECK (true)', name);
    END LOOP;

    -- Of the system alone; the application role has no grant on them at all.
    FOREACH name IN ARRAY ARRAY['ingest_offset', 'source', 'log_gap', 'rejected_window', 'tenant'] LOOP
        EXECUTE format('ALTER TABLE billing.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE billing.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_system ON billing.%I TO sluice_billing_system
                        USING (true) WITH CHECK (true)', name);
    END LOOP;
END $$;
