//! Audit events: inserted with the change they tell of, or after a refusal; never updated (no role has the grant).

use sluice_db::TenantTx;
use sqlx::types::Json;

use super::Result;

/// An event.
#[derive(Debug, Clone)]
pub(crate) struct Event<'a> {
    pub(crate) actor: &'a str,
    pub(crate) credential: &'a str,
    pub(crate) method: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) resource_uid: i64,
    pub(crate) request_id: &'a str,
    pub(crate) source_address: Option<String>,
    pub(crate) detail: serde_json::Value,
    pub(crate) outbox_id: Option<i64>,
    pub(crate) outcome: Outcome,
}

/// What became of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Outcome {
    Success,
    Denied,
}

/// Refusals kept of one tenant and minute: one who tries everything must not fill the disk.
const DENIED_PER_MINUTE: i64 = 100;

/// Adds an event to the transaction; of refusals only so many a minute.
pub(crate) async fn audit_insert(tx: &mut TenantTx, event: Event<'_>) -> Result<()> {
    let tenant = tx.tenant().as_i64();
    let sql = "INSERT INTO control.audit_event (tenant_uid, actor, credential, method, resource, resource_uid, request_id, \
               source_address, detail, outbox_id, outcome) SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 \
               WHERE $11 <> 'DENIED' OR $12 > (SELECT count(*) FROM (SELECT 1 FROM control.audit_event \
               WHERE tenant_uid = $1 AND outcome = 'DENIED' AND time > now() - interval '1 minute' LIMIT $12) recent)";
    let query = sqlx::query(sql)
        .bind(tenant)
        .bind(event.actor)
        .bind(event.credential)
        .bind(event.method)
        .bind(event.resource)
        .bind(event.resource_uid)
        .bind(event.request_id)
        .bind(event.source_address)
        .bind(Json(event.detail))
        .bind(event.outbox_id)
        .bind(event.outcome)
        .bind(DENIED_PER_MINUTE);
    query.execute(tx.conn()).await?;
    Ok(())
}
