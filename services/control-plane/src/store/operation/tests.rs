//! Pages of operations beside many.

use sluice_types::{TenantId, TenantScope, TenantUid};

use super::*;
use crate::store::fixture::TestDatabase;

/// Of the first tenant some thousand operations, of which every tenth deletes a topic; of another one very many, which are
/// newer, and as many.
const ROWS: &str = "
    INSERT INTO control.tenant (uid, id, display_name, state) VALUES (1, 'a', '', 'ACTIVE'), (2, 'b', '', 'ACTIVE');
    INSERT INTO control.operation (uid, tenant_uid, target, target_uid, verb, state, create_time)
        SELECT i, 1, '', i, CASE WHEN i % 10 = 0 THEN 'delete' ELSE 'create' END, 'RUNNING', now() - make_interval(secs => i)
        FROM generate_series(1, 5000) i UNION ALL
        SELECT i, 2, '', i, 'create', 'RUNNING', now() + make_interval(secs => i % 100 - 50)
        FROM generate_series(10001, 110000) i;
    ANALYZE control.operation;";
const PAGE: i64 = 100;

#[tokio::test]
async fn a_page_of_operations_costs_its_own_rows_beside_a_hundred_thousand_of_others() {
    let test = TestDatabase::prepare().await;
    test.sql(ROWS).await;
    let id: TenantId = "a".parse().expect("id");
    let scope = TenantScope::from_verified(TenantUid::from_i64(1), id);
    let mut tx = test.database.tenant(&scope).await.expect("begin");

    let newest = operation_list(&mut tx, None, PAGE).await.expect("a page");
    let last = newest.last().expect("rows");
    let next = operation_list(&mut tx, Some((last.create_us, last.uid)), PAGE).await.expect("a page");
    let one = operation_get(&mut tx, OperationUid::from_i64(4_000)).await.expect("look");
    let of_another = operation_get(&mut tx, OperationUid::from_i64(10_001)).await.expect("look");

    let uids = |rows: &[OperationRow]| rows.iter().map(|row| row.uid).collect::<Vec<_>>();
    assert_eq!(uids(&newest), (1..=100).collect::<Vec<_>>());
    assert_eq!(uids(&next), (101..=200).collect::<Vec<_>>());
    assert_eq!(one.map(|row| row.uid), Some(4_000));
    assert_eq!(of_another, None);
    // What this transaction read until now.
    let read = "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
                WHERE relname = 'operation'";
    let read: i64 = sqlx::query_scalar(read).fetch_one(tx.conn()).await.expect("statistics");
    assert!((200..=2 * PAGE + 10).contains(&read), "{read} rows of operations were read for two pages and two looks");
    tx.rollback().await.expect("rollback");
}
