//! What time does to rows. Each step is bounded and harmless to repeat.

use sluice_db::SystemTx;
use sluice_types::TenantUid;

use super::Result;

/// Removes remembered answers older than 24 h.
pub(crate) async fn sweep_idempotency(tx: &mut SystemTx, limit: i64) -> Result<u64> {
    let sql = "DELETE FROM control.idempotency WHERE ctid IN (SELECT ctid FROM control.idempotency \
               WHERE create_time < now() - interval '24 hours' LIMIT $1)";
    Ok(sqlx::query(sql).bind(limit).execute(tx.conn()).await?.rows_affected())
}

/// Removes operations that ended more than 30 days ago.
pub(crate) async fn sweep_operations(tx: &mut SystemTx, limit: i64) -> Result<u64> {
    let sql = "DELETE FROM control.operation WHERE uid IN (SELECT uid FROM control.operation \
               WHERE state <> 'RUNNING' AND end_time < now() - interval '30 days' LIMIT $1)";
    Ok(sqlx::query(sql).bind(limit).execute(tx.conn()).await?.rows_affected())
}

/// Removes published changes older than an hour that a later one of the same aggregate replaced.
pub(crate) async fn sweep_outbox(tx: &mut SystemTx, limit: i64) -> Result<u64> {
    let sql = "DELETE FROM control.outbox WHERE id IN (SELECT o.id FROM control.outbox o \
               WHERE o.publish_time < now() - interval '1 hour' AND o.published_offset IS NOT NULL \
               AND EXISTS (SELECT 1 FROM control.outbox later WHERE later.aggregate_uid = o.aggregate_uid \
                           AND later.id > o.id) LIMIT $1)";
    Ok(sqlx::query(sql).bind(limit).execute(tx.conn()).await?.rows_affected())
}

/// Adds tombstones for what has been gone for `days`.
pub(crate) async fn sweep_tombstones(tx: &mut SystemTx, days: i32, limit: i64) -> Result<u64> {
    let sql = "INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload, gone) \
               SELECT o.tenant_uid, o.aggregate_uid, o.version + 1, NULL, true FROM control.outbox o \
               WHERE o.gone AND o.payload IS NOT NULL AND o.publish_time < now() - $1 * interval '1 day' \
               AND o.published_offset IS NOT NULL \
               AND NOT EXISTS (SELECT 1 FROM control.outbox later WHERE later.aggregate_uid = o.aggregate_uid \
                               AND later.id > o.id) ORDER BY o.id LIMIT $2";
    Ok(sqlx::query(sql).bind(days).bind(limit).execute(tx.conn()).await?.rows_affected())
}

/// Tenants being deleted that still have something in service.
pub(crate) async fn sweep_tenants_to_empty(tx: &mut SystemTx, limit: i64) -> Result<Vec<TenantUid>> {
    let sql = "SELECT t.uid FROM control.tenant t WHERE t.state = 'DELETING' AND (\
               EXISTS (SELECT 1 FROM control.api_key k WHERE k.tenant_uid = t.uid AND k.state = 'ACTIVE') OR \
               EXISTS (SELECT 1 FROM control.topic p WHERE p.tenant_uid = t.uid \
                       AND p.state NOT IN ('DELETING', 'DELETED')) OR \
               EXISTS (SELECT 1 FROM control.consumer_group g WHERE g.tenant_uid = t.uid AND g.state = 'ACTIVE') OR \
               EXISTS (SELECT 1 FROM control.service_account a WHERE a.tenant_uid = t.uid AND a.state = 'ACTIVE') OR \
               EXISTS (SELECT 1 FROM control.namespace n WHERE n.tenant_uid = t.uid AND n.state = 'ACTIVE')) LIMIT $1";
    let uids: Vec<i64> = sqlx::query_scalar(sql).bind(limit).fetch_all(tx.conn()).await?;
    Ok(uids.into_iter().map(TenantUid::from_i64).collect())
}

/// Marks tenants as deleted that have nothing left. Gateways know them as gone since the deletion began, so there is
/// nothing to publish.
pub(crate) async fn sweep_tenants(tx: &mut SystemTx) -> Result<u64> {
    let sql = "UPDATE control.tenant t SET state = 'DELETED', update_time = now(), version = version + 1 \
               WHERE t.state = 'DELETING' \
               AND NOT EXISTS (SELECT 1 FROM control.topic p WHERE p.tenant_uid = t.uid AND p.state <> 'DELETED') \
               AND NOT EXISTS (SELECT 1 FROM control.api_key k WHERE k.tenant_uid = t.uid AND k.state = 'ACTIVE') \
               AND NOT EXISTS (SELECT 1 FROM control.consumer_group g WHERE g.tenant_uid = t.uid \
                               AND g.state = 'ACTIVE') \
               AND NOT EXISTS (SELECT 1 FROM control.service_account a WHERE a.tenant_uid = t.uid \
                               AND a.state = 'ACTIVE') \
               AND NOT EXISTS (SELECT 1 FROM control.namespace n WHERE n.tenant_uid = t.uid AND n.state = 'ACTIVE')";
    Ok(sqlx::query(sql).execute(tx.conn()).await?.rows_affected())
}
