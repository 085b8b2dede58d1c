//! Tenants. Rows are never removed: a tenant's id is not given twice.

use sluice_db::{SystemTx, TenantTx};
use sluice_types::{TenantId, TenantUid};

use super::Result;

/// A row.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(crate) struct TenantRow {
    pub(crate) uid: i64,
    pub(crate) id: String,
    pub(crate) display_name: String,
    pub(crate) state: TenantState,
    pub(crate) suspended: bool,
    pub(crate) requests_per_second: i64,
    pub(crate) ingress_bytes_per_second: i64,
    pub(crate) egress_bytes_per_second: i64,
    pub(crate) bytes_in_flight: i64,
    pub(crate) topics_max: i64,
    pub(crate) partitions_max: i64,
    pub(crate) namespaces_max: i64,
    pub(crate) version: i64,
    pub(crate) create_us: i64,
    pub(crate) update_us: i64,
}

/// Where a tenant is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum TenantState {
    Active,
    Deleting,
    Deleted,
}

impl TenantRow {
    pub(crate) fn uid(&self) -> TenantUid {
        TenantUid::from_i64(self.uid)
    }
}

macro_rules! columns {
    () => {
        "uid, id, display_name, state, suspended, requests_per_second, ingress_bytes_per_second, egress_bytes_per_second, \
         bytes_in_flight, topics_max, partitions_max, namespaces_max, version, \
         control.micros(create_time) AS create_us, control.micros(update_time) AS update_us"
    };
}

/// The transaction's own tenant.
pub(crate) async fn tenant_get(tx: &mut TenantTx) -> Result<Option<TenantRow>> {
    let uid = tx.tenant().as_i64();
    let sql = concat!("SELECT ", columns!(), " FROM control.tenant WHERE uid = $1");
    Ok(sqlx::query_as(sql).bind(uid).fetch_optional(tx.conn()).await?)
}

/// By id, for the operator.
pub(crate) async fn tenant_by_id(tx: &mut SystemTx, id: &TenantId) -> Result<Option<TenantRow>> {
    let sql = concat!("SELECT ", columns!(), " FROM control.tenant WHERE id = $1");
    Ok(sqlx::query_as(sql).bind(id.as_str()).fetch_optional(tx.conn()).await?)
}

/// A page by id, for the operator; deleted ones are left out.
pub(crate) async fn tenant_list(tx: &mut SystemTx, after: &str, limit: i64) -> Result<Vec<TenantRow>> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.tenant WHERE id > $1 AND state <> 'DELETED' ORDER BY id LIMIT $2"
    );
    Ok(sqlx::query_as(sql).bind(after).bind(limit).fetch_all(tx.conn()).await?)
}

/// Inserts; the times are the transaction's.
pub(crate) async fn tenant_insert(tx: &mut TenantTx, row: &TenantRow) -> Result<TenantRow> {
    let sql = concat!(
        "INSERT INTO control.tenant (uid, id, display_name, state, suspended, requests_per_second, \
         ingress_bytes_per_second, egress_bytes_per_second, bytes_in_flight, topics_max, partitions_max, namespaces_max) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING ",
        columns!()
    );
    let query = sqlx::query_as(sql)
        .bind(row.uid)
        .bind(&row.id)
        .bind(&row.display_name)
        .bind(row.state)
        .bind(row.suspended)
        .bind(row.requests_per_second)
        .bind(row.ingress_bytes_per_second)
        .bind(row.egress_bytes_per_second)
        .bind(row.bytes_in_flight)
        .bind(row.topics_max)
        .bind(row.partitions_max)
        .bind(row.namespaces_max);
    Ok(query.fetch_one(tx.conn()).await?)
}

/// Writes what may change and raises the version.
pub(crate) async fn tenant_update(tx: &mut TenantTx, row: &TenantRow) -> Result<TenantRow> {
    let sql = concat!(
        "UPDATE control.tenant SET display_name = $3, state = $4, suspended = $5, requests_per_second = $6, \
         ingress_bytes_per_second = $7, egress_bytes_per_second = $8, bytes_in_flight = $9, topics_max = $10, \
         partitions_max = $11, namespaces_max = $12, version = version + 1, update_time = now(), \
         delete_time = CASE WHEN $4 = 'ACTIVE' THEN NULL ELSE coalesce(delete_time, now()) END \
         WHERE uid = $1 AND version = $2 RETURNING ",
        columns!()
    );
    let query = sqlx::query_as(sql)
        .bind(row.uid)
        .bind(row.version)
        .bind(&row.display_name)
        .bind(row.state)
        .bind(row.suspended)
        .bind(row.requests_per_second)
        .bind(row.ingress_bytes_per_second)
        .bind(row.egress_bytes_per_second)
        .bind(row.bytes_in_flight)
        .bind(row.topics_max)
        .bind(row.partitions_max)
        .bind(row.namespaces_max);
    Ok(query.fetch_one(tx.conn()).await?)
}

/// The name of something of the tenant that is protected against deletion, if there is such a thing.
pub(crate) async fn tenant_protected(tx: &mut TenantTx) -> Result<Option<String>> {
    let uid = tx.tenant().as_i64();
    let sql = "(SELECT 'namespaces/' || id FROM control.namespace \
                WHERE tenant_uid = $1 AND state = 'ACTIVE' AND deletion_protection LIMIT 1) \
               UNION ALL (SELECT 'namespaces/' || namespace_id || '/topics/' || id FROM control.topic \
                WHERE tenant_uid = $1 AND state NOT IN ('DELETING', 'DELETED') AND deletion_protection LIMIT 1) \
               UNION ALL (SELECT 'namespaces/' || namespace_id || '/groups/' || id FROM control.consumer_group \
                WHERE tenant_uid = $1 AND state = 'ACTIVE' AND deletion_protection LIMIT 1) LIMIT 1";
    Ok(sqlx::query_scalar(sql).bind(uid).fetch_optional(tx.conn()).await?)
}

/// Holds all other changes of this tenant off until the transaction ends: one writer per tenant, so counts against limits
/// are exact, the outbox's order is the order of commits, and there is nothing to deadlock over. Reads do not take it.
pub(crate) async fn tenant_lock(tx: &mut TenantTx) -> Result<()> {
    let uid = tx.tenant().as_i64();
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(uid).execute(tx.conn()).await?;
    Ok(())
}
