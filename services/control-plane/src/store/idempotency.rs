//! Answers remembered by the caller's request id, for 24 h.

use sluice_db::TenantTx;
use uuid::Uuid;

use super::Result;

/// Whose request id it is.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// 0: the operator's.
    pub(crate) tenant_uid: i64,
    pub(crate) principal: String,
    pub(crate) method: &'static str,
    pub(crate) request_id: Uuid,
}

/// What a slot holds.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Remembered {
    pub(crate) request_hash: Vec<u8>,
    pub(crate) answer: Option<Vec<u8>>,
    pub(crate) outbox_id: Option<i64>,
}

/// Takes the slot for this transaction, or returns what an earlier one left. Waits for one that is under way.
pub(crate) async fn idempotency_claim(tx: &mut TenantTx, slot: &Slot, hash: &[u8; 32]) -> Result<Option<Remembered>> {
    let claim = "INSERT INTO control.idempotency AS held (tenant_uid, principal, method, request_id, request_hash) \
                 VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (tenant_uid, principal, method, request_id) DO UPDATE \
                 SET request_hash = excluded.request_hash, answer = NULL, outbox_id = NULL, create_time = now() \
                 WHERE held.create_time < now() - interval '24 hours'";
    let query = sqlx::query(claim)
        .bind(slot.tenant_uid)
        .bind(&slot.principal)
        .bind(slot.method)
        .bind(slot.request_id)
        .bind(hash.as_slice());
    if query.execute(tx.conn()).await?.rows_affected() == 1 {
        return Ok(None);
    }
    let held = "SELECT request_hash, answer, outbox_id FROM control.idempotency \
                WHERE tenant_uid = $1 AND principal = $2 AND method = $3 AND request_id = $4";
    let query =
        sqlx::query_as(held).bind(slot.tenant_uid).bind(&slot.principal).bind(slot.method).bind(slot.request_id);
    Ok(query.fetch_optional(tx.conn()).await?)
}

/// Whether the principal used the request id with another method within 24 h.
pub(crate) async fn idempotency_elsewhere(tx: &mut TenantTx, slot: &Slot) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM control.idempotency WHERE request_id = $4 AND tenant_uid = $1 \
               AND principal = $2 AND method <> $3 AND create_time >= now() - interval '24 hours')";
    let query =
        sqlx::query_scalar(sql).bind(slot.tenant_uid).bind(&slot.principal).bind(slot.method).bind(slot.request_id);
    Ok(query.fetch_one(tx.conn()).await?)
}

/// Stores the answer in the slot taken by this transaction.
pub(crate) async fn idempotency_store(
    tx: &mut TenantTx,
    slot: &Slot,
    answer: &[u8],
    outbox_id: Option<i64>,
) -> Result<()> {
    let sql = "UPDATE control.idempotency SET answer = $5, outbox_id = $6 \
               WHERE tenant_uid = $1 AND principal = $2 AND method = $3 AND request_id = $4";
    let query = sqlx::query(sql)
        .bind(slot.tenant_uid)
        .bind(&slot.principal)
        .bind(slot.method)
        .bind(slot.request_id)
        .bind(answer)
        .bind(outbox_id);
    query.execute(tx.conn()).await?;
    Ok(())
}
