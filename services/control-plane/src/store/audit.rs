//! Audit events: inserted with the change they tell of, never updated (no role has the grant).

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
}

/// Adds an event to the transaction.
pub(crate) async fn audit_insert(tx: &mut TenantTx, event: Event<'_>) -> Result<()> {
    let tenant = tx.tenant().as_i64();
    let sql = "INSERT INTO control.audit_event (tenant_uid, actor, credential, method, resource, resource_uid, request_id, \
               source_address, detail, outbox_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
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
        .bind(event.outbox_id);
    query.execute(tx.conn()).await?;
    Ok(())
}
