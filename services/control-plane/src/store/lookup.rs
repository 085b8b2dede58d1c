//! What a gateway asks about a key id it does not know: the latest records of key, account and tenant.

use sluice_db::SystemTx;
use sluice_types::{KeyUid, TenantUid, TopicUid};

use super::Result;

/// Encoded records with their outbox ids; empty if there is no such key, or nothing of it is left but its tombstone.
pub(crate) async fn lookup_key(tx: &mut SystemTx, key: KeyUid) -> Result<Vec<(i64, Vec<u8>)>> {
    let sql = "SELECT latest.id, latest.payload FROM control.api_key k \
               CROSS JOIN LATERAL unnest(ARRAY[k.tenant_uid, k.account_uid, k.uid]) AS wanted (uid) \
               CROSS JOIN LATERAL (SELECT id, payload FROM control.outbox o WHERE o.aggregate_uid = wanted.uid \
                                   ORDER BY id DESC LIMIT 1) AS latest \
               WHERE k.uid = $1 AND latest.payload IS NOT NULL \
               AND (SELECT o.payload IS NOT NULL FROM control.outbox o WHERE o.aggregate_uid = k.uid \
                    ORDER BY o.id DESC LIMIT 1)";
    Ok(sqlx::query_as(sql).bind(key.as_i64()).fetch_all(tx.conn()).await?)
}

/// Whose topic it is.
pub(crate) async fn lookup_topic_tenant(tx: &mut SystemTx, topic: TopicUid) -> Result<Option<TenantUid>> {
    let sql = "SELECT tenant_uid FROM control.topic WHERE uid = $1";
    let uid: Option<i64> = sqlx::query_scalar(sql).bind(topic.as_i64()).fetch_optional(tx.conn()).await?;
    Ok(uid.map(TenantUid::from_i64))
}
