//! Kafka clusters that may hold topics of tenants. Rows are never removed: a uid is the name of a section in configurations.

use sluice_db::{SystemTx, TenantTx};
use sluice_types::{ClusterId, ClusterUid};

use super::Result;

/// A row.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(crate) struct ClusterRow {
    pub(crate) uid: i64,
    pub(crate) id: String,
    pub(crate) create_us: i64,
}

impl ClusterRow {
    pub(crate) fn uid(&self) -> ClusterUid {
        ClusterUid::from_i64(self.uid)
    }

    pub(crate) fn name(&self) -> String {
        format!("clusters/{}", self.id)
    }
}

macro_rules! columns {
    () => {
        "uid, id, control.micros(create_time) AS create_us"
    };
}

const BY_ID: &str = concat!("SELECT ", columns!(), " FROM control.cluster WHERE id = $1");

/// By id.
pub(crate) async fn cluster_by_id(tx: &mut SystemTx, id: &ClusterId) -> Result<Option<ClusterRow>> {
    Ok(sqlx::query_as(BY_ID).bind(id.as_str()).fetch_optional(tx.conn()).await?)
}

/// By id, in the operator's transaction about a tenant.
pub(crate) async fn cluster_by_id_in_txn(tx: &mut TenantTx, id: &ClusterId) -> Result<Option<ClusterRow>> {
    Ok(sqlx::query_as(BY_ID).bind(id.as_str()).fetch_optional(tx.conn()).await?)
}

/// By uid, in the operator's transaction about a tenant.
pub(crate) async fn cluster_by_uid_in_txn(tx: &mut TenantTx, uid: ClusterUid) -> Result<Option<ClusterRow>> {
    let sql = concat!("SELECT ", columns!(), " FROM control.cluster WHERE uid = $1");
    Ok(sqlx::query_as(sql).bind(uid.as_i64()).fetch_optional(tx.conn()).await?)
}

/// A page by id.
pub(crate) async fn cluster_list(tx: &mut SystemTx, after: &str, limit: i64) -> Result<Vec<ClusterRow>> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.cluster WHERE id > $1 COLLATE \"C\" ORDER BY id COLLATE \"C\" LIMIT $2"
    );
    Ok(sqlx::query_as(sql).bind(after).bind(limit).fetch_all(tx.conn()).await?)
}

/// Inserts, in the operator's transaction about the installation.
pub(crate) async fn cluster_insert(tx: &mut TenantTx, uid: ClusterUid, id: &ClusterId) -> Result<ClusterRow> {
    let sql = concat!("INSERT INTO control.cluster (uid, id) VALUES ($1, $2) RETURNING ", columns!());
    Ok(sqlx::query_as(sql).bind(uid.as_i64()).bind(id.as_str()).fetch_one(tx.conn()).await?)
}
