//! The fences in the database itself, tried with the application's own role: nothing depends on our queries being right.

use sluice_devstack::shared;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};

use crate::support::{fresh_database, url};

async fn connect(database: &str, part: &str) -> PgConnection {
    let options: sqlx::postgres::PgConnectOptions = url(shared().await.unwrap(), database, part).parse().unwrap();
    options.connect().await.unwrap()
}

async fn as_super(database: &str, sql: &str) -> String {
    shared().await.unwrap().postgres().unwrap().execute(database, sql).await.unwrap()
}

/// Two tenants with a row of everything.
const TWO_TENANTS: &str = "
    INSERT INTO control.tenant (uid, id, display_name, state) VALUES (1, 'a', '', 'ACTIVE'), (2, 'b', '', 'ACTIVE');
    INSERT INTO control.namespace (uid, tenant_uid, id, display_name, state)
        SELECT 10 + t, t, 'n', '', 'ACTIVE' FROM generate_series(1, 2) t;
    INSERT INTO control.topic (uid, tenant_uid, namespace_uid, namespace_id, id, display_name, cleanup_policy,
                               effective_partitions, effective_retention_ms, state)
        SELECT 20 + t, t, 10 + t, 'n', 'x', '', 0, 1, 1, 'ACTIVE' FROM generate_series(1, 2) t;
    INSERT INTO control.consumer_group (uid, tenant_uid, namespace_uid, namespace_id, id, display_name, topic_ids,
                                        ordering, state)
        SELECT 25 + t, t, 10 + t, 'n', 'x', '', '{x}', 0, 'ACTIVE' FROM generate_series(1, 2) t;
    INSERT INTO control.service_account (uid, tenant_uid, id, display_name, state)
        SELECT 30 + t, t, 'n', '', 'ACTIVE' FROM generate_series(1, 2) t;
    INSERT INTO control.role_binding SELECT t, 30 + t, 1, 'owner', '*' FROM generate_series(1, 2) t;
    INSERT INTO control.api_key (uid, tenant_uid, account_uid, display_name, prefix, hash, state)
        SELECT 40 + t, t, 30 + t, '', '', decode(repeat('00', 32), 'hex'), 'ACTIVE' FROM generate_series(1, 2) t;
    INSERT INTO control.operation (uid, tenant_uid, target, target_uid, verb, state)
        SELECT 50 + t, t, '', 1, 'create', 'RUNNING' FROM generate_series(1, 2) t;
    INSERT INTO control.audit_event (tenant_uid, actor, credential, method, resource, resource_uid, request_id)
        SELECT t, '', '', '', '', 1, '' FROM generate_series(1, 2) t;
    INSERT INTO control.idempotency (tenant_uid, principal, method, request_id, request_hash)
        SELECT t, '', '', gen_random_uuid(), '' FROM generate_series(1, 2) t;
    INSERT INTO control.outbox (tenant_uid, aggregate_uid, version) SELECT t, 1, 1 FROM generate_series(1, 2) t;";

const READABLE: [&str; 10] = [
    "tenant",
    "namespace",
    "topic",
    "consumer_group",
    "service_account",
    "role_binding",
    "api_key",
    "operation",
    "audit_event",
    "idempotency",
];

#[tokio::test]
async fn the_application_role_sees_one_tenant_or_nothing() {
    let database = fresh_database(shared().await.unwrap()).await;
    as_super(&database, TWO_TENANTS).await;
    let mut app = connect(&database, "app").await;
    for table in READABLE {
        let count = format!("SELECT count(*) FROM control.{table}");
        let mut seen = Vec::new();
        for tenant in ["", "1", "3"] {
            let mut tx = app.begin().await.unwrap();
            sqlx::query("SELECT set_config('app.tenant_id', $1, true)").bind(tenant).execute(&mut *tx).await.unwrap();
            let sql = sqlx::AssertSqlSafe(count.clone());
            seen.push(sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *tx).await.unwrap());
            tx.rollback().await.unwrap();
        }
        // After the transaction the setting is gone: nothing again.
        let after: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&mut app).await.unwrap();
        assert_eq!((seen.as_slice(), after), ([0, 1, 0].as_slice(), 0), "{table}");
    }
    let mut system = connect(&database, "system").await;
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM control.topic").fetch_one(&mut system).await.unwrap();
    assert_eq!(all, 2);
}

#[tokio::test]
async fn the_application_role_cannot_write_for_others_nor_rewrite_history_nor_change_the_schema() {
    let database = fresh_database(shared().await.unwrap()).await;
    as_super(&database, TWO_TENANTS).await;
    let mut app = connect(&database, "app").await;
    for (sql, why) in [
        (
            "INSERT INTO control.namespace (uid, tenant_uid, id, display_name, state) VALUES (99, 2, 'm', '', 'ACTIVE')",
            "another tenant's row",
        ),
        ("UPDATE control.namespace SET tenant_uid = 2", "giving a row away"),
        ("INSERT INTO control.outbox (tenant_uid, aggregate_uid, version) VALUES (2, 1, 2)", "another tenant's change"),
        ("UPDATE control.audit_event SET actor = 'x'", "history"),
        ("DELETE FROM control.audit_event", "history"),
        ("UPDATE control.tenant SET suspended = false", "its own suspension"),
        ("UPDATE control.outbox SET payload = NULL", "published changes"),
        ("SELECT payload FROM control.outbox", "others' secrets' hashes"),
        ("SELECT * FROM control.lease", "leases"),
        ("DELETE FROM control.topic", "rows"),
        ("DELETE FROM control.consumer_group", "rows"),
        ("UPDATE control.consumer_group SET tenant_uid = 2", "giving a row away"),
        ("CREATE TABLE control.mine (x int)", "tables"),
        ("CREATE TABLE public.mine (x int)", "tables"),
        ("ALTER TABLE control.topic DISABLE ROW LEVEL SECURITY", "fences"),
        ("SET ROLE sluice_control_system", "roles"),
    ] {
        let mut tx = app.begin().await.unwrap();
        tx.execute("SELECT set_config('app.tenant_id', '1', true)").await.unwrap();
        let refused = tx.execute(sql).await.expect_err(why);
        let code = refused.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
        assert_eq!(code, "42501", "{sql}: {refused}");
        tx.rollback().await.unwrap();
    }
    let mut system = connect(&database, "system").await;
    assert!(system.execute("UPDATE control.audit_event SET actor = 'x'").await.is_err());
    // Row-level security makes it silent instead of an error: nothing of the other tenant changes.
    let mut tx = app.begin().await.unwrap();
    tx.execute("SELECT set_config('app.tenant_id', '1', true)").await.unwrap();
    let changed = tx.execute("UPDATE control.topic SET display_name = 'x' WHERE uid = 22").await.unwrap();
    assert_eq!(changed.rows_affected(), 0);
}

#[tokio::test]
async fn every_table_has_its_fence_and_no_role_goes_around_it() {
    let database = fresh_database(shared().await.unwrap()).await;
    let open = as_super(
        &database,
        "SELECT string_agg(relname, ',') FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
         WHERE nspname = 'control' AND relkind = 'r' AND relname <> 'migration'
         AND NOT (relrowsecurity AND pg_get_userbyid(relowner) = 'sluice_control_owner')",
    )
    .await;
    assert_eq!(open, "");
    let strong = as_super(
        &database,
        "SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolname LIKE 'sluice_control_%'
         AND (rolbypassrls OR rolsuper OR rolcreaterole OR rolcreatedb)",
    )
    .await;
    assert_eq!(strong, "");
    let related = as_super(
        &database,
        "SELECT count(*) FROM pg_auth_members WHERE pg_get_userbyid(roleid) LIKE 'sluice_control_%'
         AND pg_get_userbyid(member) LIKE 'sluice_control_%'",
    )
    .await;
    assert_eq!(related, "0", "none of them can become the owner, who is not fenced");
}

#[tokio::test]
async fn the_owner_sees_and_changes_all_rows_so_migrations_and_dumps_are_whole() {
    let database = fresh_database(shared().await.unwrap()).await;
    as_super(&database, TWO_TENANTS).await;
    let mut owner = connect(&database, "owner").await;
    // As pg_dump does: rather an error than a part of the rows.
    owner.execute("SET row_security = off").await.unwrap();
    for table in READABLE.iter().chain(&["outbox", "lease", "control_log", "cluster"]) {
        let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM control.{table}"));
        let seen: i64 = sqlx::query_scalar(count).fetch_one(&mut owner).await.unwrap();
        let all = as_super(&database, &format!("SELECT count(*) FROM control.{table}")).await;
        assert_eq!(seen.to_string(), all, "{table}");
    }
    let changed = owner.execute("UPDATE control.topic SET display_name = 'migrated'").await.unwrap();
    assert_eq!(changed.rows_affected(), 2);
}

#[tokio::test]
async fn a_topic_is_on_a_known_cluster_and_on_the_first_one_if_none_is_said() {
    let database = fresh_database(shared().await.unwrap()).await;
    // It names no cluster, as rows that were there before clusters were.
    as_super(&database, TWO_TENANTS).await;
    let placed =
        "SELECT string_agg(DISTINCT c.id, ',') FROM control.topic t JOIN control.cluster c ON c.uid = t.cluster_uid";
    assert_eq!(as_super(&database, placed).await.trim(), "first");
    let mut system = connect(&database, "system").await;
    let refused = system.execute("UPDATE control.topic SET cluster_uid = 7 WHERE uid = 21").await.expect_err("unknown");
    let code = refused.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
    assert_eq!(code, "23503", "{refused}");
}
