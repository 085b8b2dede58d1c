//! What time does to rows. Each step is one transaction, bounded, harmless to repeat, and finds its rows by an index: it costs
//! the same with a million rows beside them.

use sluice_db::SystemTx;
use sluice_types::TenantUid;

use super::Result;

/// Removes remembered answers older than 24 h.
pub(crate) async fn sweep_idempotency(tx: &mut SystemTx, limit: i64) -> Result<u64> {
    let sql = "DELETE FROM control.idempotency WHERE ctid IN (SELECT ctid FROM control.idempotency \
               WHERE create_time < now() - interval '24 hours' ORDER BY create_time LIMIT $1)";
    Ok(sqlx::query(sql).bind(limit).execute(tx.conn()).await?.rows_affected())
}

/// Removes operations that ended more than 30 days ago.
pub(crate) async fn sweep_operations(tx: &mut SystemTx, limit: i64) -> Result<u64> {
    let sql = "DELETE FROM control.operation WHERE uid IN (SELECT uid FROM control.operation \
               WHERE state <> 'RUNNING' AND end_time < now() - interval '30 days' ORDER BY end_time LIMIT $1)";
    Ok(sqlx::query(sql).bind(limit).execute(tx.conn()).await?.rows_affected())
}

/// Removes changes that a later one of the same aggregate replaced more than an hour ago.
pub(crate) async fn sweep_outbox(tx: &mut SystemTx, limit: i64) -> Result<u64> {
    let sql = "DELETE FROM control.outbox WHERE id IN (SELECT id FROM control.outbox \
               WHERE replaced_time < now() - interval '1 hour' ORDER BY replaced_time LIMIT $1)";
    Ok(sqlx::query(sql).bind(limit).execute(tx.conn()).await?.rows_affected())
}

/// Adds tombstones for what has been gone for 30 days: gateways refuse snapshots older than that, so none of them can miss
/// the deletion.
pub(crate) async fn sweep_tombstones(tx: &mut SystemTx, limit: i64) -> Result<u64> {
    let sql = "INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload, gone) \
               SELECT o.tenant_uid, o.aggregate_uid, o.version + 1, NULL, true FROM control.outbox o \
               WHERE o.gone AND o.payload IS NOT NULL AND o.replaced_time IS NULL \
               AND o.publish_time < now() - interval '30 days' AND o.published_offset IS NOT NULL \
               AND NOT EXISTS (SELECT 1 FROM control.outbox later WHERE later.aggregate_uid = o.aggregate_uid \
                               AND later.id > o.id) ORDER BY o.publish_time LIMIT $1";
    Ok(sqlx::query(sql).bind(limit).execute(tx.conn()).await?.rows_affected())
}

/// Removes what is gone and whose tombstone was published more than an hour ago, with the tombstone's own row and all rows
/// below it: one that stayed would be the newest, and be published again. Tenants' rows stay: their ids are not reused.
pub(crate) async fn sweep_purge(tx: &mut SystemTx, limit: i64) -> Result<u64> {
    let settled = "SELECT id, aggregate_uid FROM control.outbox WHERE payload IS NULL AND published_offset IS NOT NULL \
                  AND publish_time < now() - interval '1 hour' ORDER BY publish_time LIMIT $1";
    let settled: Vec<(i64, i64)> = sqlx::query_as(settled).bind(limit).fetch_all(tx.conn()).await?;
    let (ids, uids): (Vec<i64>, Vec<i64>) = settled.into_iter().unzip();
    // Parts before wholes: a namespace's row goes after those that name it.
    for sql in [
        "DELETE FROM control.api_key WHERE uid = ANY($1) AND state = 'REVOKED'",
        "DELETE FROM control.consumer_group WHERE uid = ANY($1) AND state = 'DELETED' AND kafka_gone >= 2",
        "DELETE FROM control.topic WHERE uid = ANY($1) AND state = 'DELETED'",
        "DELETE FROM control.role_binding b USING control.service_account a WHERE b.account_uid = ANY($1) \
         AND a.uid = b.account_uid AND a.state = 'DELETED'",
        "DELETE FROM control.service_account a WHERE uid = ANY($1) AND state = 'DELETED' \
         AND NOT EXISTS (SELECT 1 FROM control.api_key k WHERE k.account_uid = a.uid)",
        "DELETE FROM control.namespace n WHERE uid = ANY($1) AND state = 'DELETED' \
         AND NOT EXISTS (SELECT 1 FROM control.topic t WHERE t.namespace_uid = n.uid) \
         AND NOT EXISTS (SELECT 1 FROM control.consumer_group g WHERE g.namespace_uid = n.uid)",
    ] {
        sqlx::query(sql).bind(&uids).execute(tx.conn()).await?;
    }
    // Where parts still wait for their own tombstones, the whole is looked at again later; so is a group that Kafka holds.
    let waits = "UPDATE control.outbox o SET publish_time = now() WHERE o.id = ANY($1) \
                 AND (EXISTS (SELECT 1 FROM control.service_account a WHERE a.uid = o.aggregate_uid) \
                      OR EXISTS (SELECT 1 FROM control.consumer_group g WHERE g.uid = o.aggregate_uid) \
                      OR EXISTS (SELECT 1 FROM control.namespace n WHERE n.uid = o.aggregate_uid))";
    sqlx::query(waits).bind(&ids).execute(tx.conn()).await?;
    let done = "WITH done AS (SELECT id, aggregate_uid FROM control.outbox WHERE id = ANY($1) \
                AND publish_time < now() - interval '1 hour'), \
                gone AS (DELETE FROM control.outbox o USING done WHERE o.aggregate_uid = done.aggregate_uid \
                    AND o.id <= done.id) \
                SELECT count(*) FROM done";
    let done: i64 = sqlx::query_scalar(done).bind(&ids).fetch_one(tx.conn()).await?;
    Ok(done.unsigned_abs())
}

/// Tenants with keys that expired more than an hour ago and are still to be put away.
pub(crate) async fn sweep_tenants_with_expired_keys(tx: &mut SystemTx, limit: i64) -> Result<Vec<TenantUid>> {
    let sql = "SELECT DISTINCT tenant_uid FROM (SELECT tenant_uid FROM control.api_key WHERE state = 'ACTIVE' \
               AND expire_time < now() - interval '1 hour' ORDER BY expire_time LIMIT $1) expired";
    let uids: Vec<i64> = sqlx::query_scalar(sql).bind(limit).fetch_all(tx.conn()).await?;
    Ok(uids.into_iter().map(TenantUid::from_i64).collect())
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
pub(crate) async fn sweep_tenants(tx: &mut SystemTx, limit: i64) -> Result<u64> {
    let sql = "UPDATE control.tenant SET state = 'DELETED', update_time = now(), version = version + 1 \
               WHERE uid IN (SELECT t.uid FROM control.tenant t WHERE t.state = 'DELETING' \
               AND NOT EXISTS (SELECT 1 FROM control.topic p WHERE p.tenant_uid = t.uid AND p.state <> 'DELETED') \
               AND NOT EXISTS (SELECT 1 FROM control.api_key k WHERE k.tenant_uid = t.uid AND k.state = 'ACTIVE') \
               AND NOT EXISTS (SELECT 1 FROM control.consumer_group g WHERE g.tenant_uid = t.uid \
                               AND g.state = 'ACTIVE') \
               AND NOT EXISTS (SELECT 1 FROM control.service_account a WHERE a.tenant_uid = t.uid \
                               AND a.state = 'ACTIVE') \
               AND NOT EXISTS (SELECT 1 FROM control.namespace n WHERE n.tenant_uid = t.uid AND n.state = 'ACTIVE') \
               LIMIT $1)";
    Ok(sqlx::query(sql).bind(limit).execute(tx.conn()).await?.rows_affected())
}

#[cfg(test)]
mod tests;
