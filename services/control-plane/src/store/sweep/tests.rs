//! Sweeping beside a million rows that stay.

use sluice_db::{Database, DbConfig};
use sluice_devstack::{PostgresConnection, shared};
use sluice_installation::postgres::{Roles, bootstrap};

use super::*;
use crate::schema::MIGRATIONS;

const PASSWORD: &str = "for-tests";

/// A million changes, each the last of its aggregate, that stay; and of everything that time removes some that it removes
/// and some that it does not.
const ROWS: &str = "
    INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload, published_offset, publish_time)
        SELECT 1, i, 1, '', i, now() - interval '90 days' FROM generate_series(1, 1000000) i;
    INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload, published_offset, publish_time, replaced_time)
        SELECT 1, i, 0, '', i, now(), now() - make_interval(mins => 30 + i % 2 * 60) FROM generate_series(1, 2000) i;
    INSERT INTO control.idempotency (tenant_uid, principal, method, request_id, request_hash, create_time)
        SELECT 1, '', '', gen_random_uuid(), '', now() - make_interval(hours => 12 + i % 2 * 24)
        FROM generate_series(1, 2000) i;
    INSERT INTO control.tenant (uid, id, display_name, state) VALUES (1, 'a', '', 'ACTIVE'), (2, 'b', '', 'DELETING');
    INSERT INTO control.operation (uid, tenant_uid, target, target_uid, verb, state, end_time)
        SELECT i, 1, '', 1, 'create', 'SUCCEEDED', now() - make_interval(days => 1 + i % 2 * 30)
        FROM generate_series(1, 2000) i;
    INSERT INTO control.namespace (uid, tenant_uid, id, display_name, state) VALUES
        (2000001, 1, 'n', '', 'DELETED'), (2000002, 1, 'm', '', 'DELETED');
    INSERT INTO control.topic (uid, tenant_uid, namespace_uid, namespace_id, id, display_name, cleanup_policy,
                               effective_partitions, effective_retention_ms, state)
        SELECT 2000002 + i, 1, 2000000 + i, 'n', 't', '', 0, 1, 1, 'DELETED' FROM generate_series(1, 2) i;
    INSERT INTO control.service_account (uid, tenant_uid, id, display_name, state) VALUES (2000005, 1, 'n', '', 'DELETED');
    INSERT INTO control.role_binding VALUES (1, 2000005, 1, 'owner', '*');
    INSERT INTO control.api_key (uid, tenant_uid, account_uid, display_name, prefix, hash, state) VALUES
        (2000006, 1, 2000005, '', '', decode(repeat('00', 32), 'hex'), 'REVOKED');
    -- Gone for long, and for not so long.
    INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload, gone, published_offset, publish_time)
        SELECT 1, 3000000 + i, 1, '', true, i, now() - make_interval(days => 1 + i % 2 * 30) FROM generate_series(1, 20) i;
    -- The state before each tombstone, replaced so lately that its own sweep does not take it.
    INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload, gone, published_offset, publish_time,
                                replaced_time)
        SELECT 1, i, 1, '', true, i, now() - interval '31 days', now() FROM unnest(ARRAY[2000001, 2000002, 2000003, 2000005,
        2000006]) i;
    -- With its tombstone: all but the second topic, whose namespace must wait for it.
    INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload, gone, published_offset, publish_time)
        SELECT 1, i, 2, NULL, true, i, now() - interval '2 hours' FROM unnest(ARRAY[2000001, 2000002, 2000003, 2000005,
        2000006]) i;
    ANALYZE control.outbox;";

struct Swept {
    postgres: &'static PostgresConnection,
    name: String,
    database: Database,
}

impl Swept {
    async fn prepare() -> Self {
        let postgres = shared().await.expect("stack").postgres().expect("postgres");
        let name = postgres.fresh_name("control").expect("name");
        let password = || PASSWORD.into();
        let roles = Roles {
            service: "control",
            owner_password: password(),
            app_password: password(),
            system_password: password(),
        };
        bootstrap(&postgres.url("postgres").into(), &name, &roles).await.expect("bootstrap");
        let url = |part: &str| postgres.url_as(&format!("sluice_control_{part}"), PASSWORD, &name).into();
        MIGRATIONS.apply(&url("owner")).await.expect("migrate");
        let database = Database::open(&DbConfig::new("test", url("app"), url("system"))).expect("open");
        Self { postgres, name, database }
    }

    async fn sql(&self, sql: &str) -> String {
        self.postgres.execute(&self.name, sql).await.expect("query")
    }
}

macro_rules! sweep {
    ($swept:expr, $step:expr) => {{
        let mut tx = $swept.database.system().begin().await.expect("begin");
        let rows = $step(&mut tx, 5_000).await.expect("sweep");
        tx.commit().await.expect("commit");
        rows
    }};
}

#[tokio::test]
async fn beside_a_million_rows_everything_that_is_due_goes_without_a_look_at_them() {
    let swept = Swept::prepare().await;
    swept.sql(ROWS).await;
    let rows_read = "SELECT pg_stat_force_next_flush();
                     SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0) FROM pg_stat_user_tables WHERE relname = 'outbox'";
    let last = |text: String| text.lines().last().and_then(|line| line.parse::<i64>().ok()).expect("a number");
    let before = last(swept.sql(rows_read).await);
    assert_eq!(sweep!(swept, sweep_idempotency), 1_000);
    assert_eq!(sweep!(swept, sweep_operations), 1_000);
    assert_eq!(sweep!(swept, sweep_outbox), 1_000);
    assert_eq!(sweep!(swept, sweep_tombstones), 10);
    assert_eq!(sweep!(swept, sweep_tombstones), 0, "each has its tombstone now");
    // The second namespace waits for its topic; its tombstone stays for another hour.
    assert_eq!(sweep!(swept, sweep_purge), 4);
    assert_eq!(sweep!(swept, sweep_purge), 0);
    assert_eq!(sweep!(swept, sweep_tenants), 1);
    let tenants = async |found: Result<Vec<TenantUid>>| found.expect("look").len();
    let mut tx = swept.database.system().begin().await.expect("begin");
    assert_eq!(tenants(sweep_tenants_to_empty(&mut tx, 10).await).await, 0);
    assert_eq!(tenants(sweep_tenants_with_expired_keys(&mut tx, 10).await).await, 0);
    // So that the statistics of this connection are told.
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(tx.conn()).await.expect("flush");
    tx.commit().await.expect("commit");
    let read = last(swept.sql(rows_read).await) - before;
    let under = "SELECT count(*) FROM control.outbox WHERE aggregate_uid BETWEEN 2000001 AND 2000006";
    assert_eq!(swept.sql(under).await, "2", "only the waiting namespace's tombstone and what is under it");
    let left = "SELECT (SELECT string_agg(id, '') FROM control.namespace), (SELECT count(*) FROM control.topic),
                (SELECT count(*) FROM control.service_account), (SELECT count(*) FROM control.role_binding),
                (SELECT count(*) FROM control.api_key), (SELECT count(*) FROM control.outbox WHERE aggregate_uid <= 1000000)";
    assert_eq!(swept.sql(left).await, "m|1|0|0|0|1001000");
    assert!(read < 100_000, "{read} rows of the outbox were read");
}
