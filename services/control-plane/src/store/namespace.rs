//! Namespaces.

use sluice_db::TenantTx;
use sluice_types::{ClusterUid, NamespaceId, NamespaceUid};

use super::{Labels, Result};

/// A row.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(crate) struct NamespaceRow {
    pub(crate) uid: i64,
    pub(crate) id: String,
    pub(crate) display_name: String,
    pub(crate) labels: Labels,
    pub(crate) deletion_protection: bool,
    pub(crate) state: NamespaceState,
    /// Where its new topics are made.
    pub(crate) cluster_uid: i64,
    pub(crate) version: i64,
    pub(crate) create_us: i64,
    pub(crate) update_us: i64,
}

/// Where a namespace is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum NamespaceState {
    Active,
    Deleted,
}

impl NamespaceRow {
    pub(crate) fn uid(&self) -> NamespaceUid {
        NamespaceUid::from_i64(self.uid)
    }

    pub(crate) fn cluster_uid(&self) -> ClusterUid {
        ClusterUid::from_i64(self.cluster_uid)
    }

    pub(crate) fn name(&self) -> String {
        format!("namespaces/{}", self.id)
    }
}

macro_rules! columns {
    () => {
        "uid, id, display_name, labels, deletion_protection, state, cluster_uid, version, \
         control.micros(create_time) AS create_us, control.micros(update_time) AS update_us"
    };
}

/// The one in service under this id.
pub(crate) async fn namespace_by_id(tx: &mut TenantTx, id: &NamespaceId) -> Result<Option<NamespaceRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.namespace WHERE tenant_uid = $1 AND id = $2 AND state = 'ACTIVE'"
    );
    Ok(sqlx::query_as(sql).bind(tenant).bind(id.as_str()).fetch_optional(tx.conn()).await?)
}

/// A page by id.
pub(crate) async fn namespace_list(tx: &mut TenantTx, after: &str, limit: i64) -> Result<Vec<NamespaceRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.namespace WHERE tenant_uid = $1 AND id > $2 AND state = 'ACTIVE' ORDER BY id LIMIT $3"
    );
    Ok(sqlx::query_as(sql).bind(tenant).bind(after).bind(limit).fetch_all(tx.conn()).await?)
}

/// How many are in service.
pub(crate) async fn namespace_count(tx: &mut TenantTx) -> Result<i64> {
    let tenant = tx.tenant().as_i64();
    let sql = "SELECT count(*) FROM control.namespace WHERE tenant_uid = $1 AND state = 'ACTIVE'";
    Ok(sqlx::query_scalar(sql).bind(tenant).fetch_one(tx.conn()).await?)
}

/// Inserts.
pub(crate) async fn namespace_insert(tx: &mut TenantTx, row: &NamespaceRow) -> Result<NamespaceRow> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "INSERT INTO control.namespace (uid, tenant_uid, id, display_name, labels, deletion_protection, state, \
         cluster_uid) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING ",
        columns!()
    );
    let query = sqlx::query_as(sql)
        .bind(row.uid)
        .bind(tenant)
        .bind(&row.id)
        .bind(&row.display_name)
        .bind(&row.labels)
        .bind(row.deletion_protection)
        .bind(row.state)
        .bind(row.cluster_uid);
    Ok(query.fetch_one(tx.conn()).await?)
}

/// Writes what may change and raises the version.
pub(crate) async fn namespace_update(tx: &mut TenantTx, row: &NamespaceRow) -> Result<NamespaceRow> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "UPDATE control.namespace SET display_name = $4, labels = $5, deletion_protection = $6, state = $7, cluster_uid = $8, \
         version = version + 1, update_time = now(), \
         delete_time = CASE WHEN $7 = 'DELETED' THEN coalesce(delete_time, now()) END \
         WHERE uid = $1 AND tenant_uid = $2 AND version = $3 RETURNING ",
        columns!()
    );
    let query = sqlx::query_as(sql)
        .bind(row.uid)
        .bind(tenant)
        .bind(row.version)
        .bind(&row.display_name)
        .bind(&row.labels)
        .bind(row.deletion_protection)
        .bind(row.state)
        .bind(row.cluster_uid);
    Ok(query.fetch_one(tx.conn()).await?)
}
