//! Consumer groups: as the client sent them. What is absent gets its default where it is used: see `domain::group`.

use sluice_db::TenantTx;
use sluice_types::{GroupId, GroupUid, NamespaceUid};

use super::{Json, Labels, Result};

/// A row.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(crate) struct GroupRow {
    pub(crate) uid: i64,
    pub(crate) namespace_uid: i64,
    pub(crate) namespace_id: String,
    pub(crate) id: String,
    pub(crate) display_name: String,
    pub(crate) labels: Labels,
    pub(crate) deletion_protection: bool,
    pub(crate) topic_ids: Vec<String>,
    pub(crate) start_position: Option<i32>,
    pub(crate) start_time_us: Option<i64>,
    pub(crate) ordering: i32,
    pub(crate) ack_deadline_ms: Option<i64>,
    pub(crate) retry_policy: Option<Json<StoredRetry>>,
    pub(crate) dead_letter_topic_id: Option<String>,
    pub(crate) state: GroupState,
    pub(crate) version: i64,
    pub(crate) create_us: i64,
    pub(crate) update_us: i64,
}

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum GroupState {
    Active,
    Deleted,
}

/// A retry policy as stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct StoredRetry {
    pub(crate) max_attempts: i32,
    pub(crate) minimum_backoff_ms: Option<i64>,
    pub(crate) maximum_backoff_ms: Option<i64>,
}

impl GroupRow {
    pub(crate) fn uid(&self) -> GroupUid {
        GroupUid::from_i64(self.uid)
    }

    pub(crate) fn namespace_uid(&self) -> NamespaceUid {
        NamespaceUid::from_i64(self.namespace_uid)
    }

    pub(crate) fn name(&self) -> String {
        format!("namespaces/{}/groups/{}", self.namespace_id, self.id)
    }

    /// The name of a topic of its namespace.
    pub(crate) fn topic_name(&self, id: &str) -> String {
        format!("namespaces/{}/topics/{id}", self.namespace_id)
    }
}

macro_rules! columns {
    () => {
        "uid, namespace_uid, namespace_id, id, display_name, labels, deletion_protection, topic_ids, start_position, \
         start_time_us, ordering, ack_deadline_ms, retry_policy, dead_letter_topic_id, state, version, \
         control.micros(create_time) AS create_us, control.micros(update_time) AS update_us"
    };
}

/// The one in service under this id.
pub(crate) async fn group_by_id(tx: &mut TenantTx, namespace: NamespaceUid, id: &GroupId) -> Result<Option<GroupRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.consumer_group WHERE tenant_uid = $1 AND namespace_uid = $2 AND id = $3 COLLATE \"C\" \
         AND state = 'ACTIVE'"
    );
    let query = sqlx::query_as(sql).bind(tenant).bind(namespace.as_i64()).bind(id.as_str());
    Ok(query.fetch_optional(tx.conn()).await?)
}

/// A page of a namespace by id.
pub(crate) async fn group_list(
    tx: &mut TenantTx,
    namespace: NamespaceUid,
    after: &str,
    limit: i64,
) -> Result<Vec<GroupRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.consumer_group WHERE tenant_uid = $1 AND namespace_uid = $2 AND id > $3 COLLATE \"C\" \
         AND state = 'ACTIVE' ORDER BY id COLLATE \"C\" LIMIT $4"
    );
    let query = sqlx::query_as(sql).bind(tenant).bind(namespace.as_i64()).bind(after).bind(limit);
    Ok(query.fetch_all(tx.conn()).await?)
}

/// Some that are in service, for the deletion of a tenant.
pub(crate) async fn group_list_some(tx: &mut TenantTx, limit: i64) -> Result<Vec<GroupRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.consumer_group WHERE tenant_uid = $1 AND state = 'ACTIVE' ORDER BY uid LIMIT $2"
    );
    Ok(sqlx::query_as(sql).bind(tenant).bind(limit).fetch_all(tx.conn()).await?)
}

/// How many a namespace has in service.
pub(crate) async fn group_count_in(tx: &mut TenantTx, namespace: NamespaceUid) -> Result<i64> {
    let tenant = tx.tenant().as_i64();
    let sql = "SELECT count(*) FROM control.consumer_group WHERE tenant_uid = $1 AND namespace_uid = $2 \
               AND state = 'ACTIVE'";
    Ok(sqlx::query_scalar(sql).bind(tenant).bind(namespace.as_i64()).fetch_one(tx.conn()).await?)
}

/// Inserts.
pub(crate) async fn group_insert(tx: &mut TenantTx, row: &GroupRow) -> Result<GroupRow> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "INSERT INTO control.consumer_group (uid, tenant_uid, namespace_uid, namespace_id, id, display_name, labels, \
         deletion_protection, topic_ids, start_position, start_time_us, ordering, ack_deadline_ms, retry_policy, \
         dead_letter_topic_id, state) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) RETURNING ",
        columns!()
    );
    let query = sqlx::query_as(sql)
        .bind(row.uid)
        .bind(tenant)
        .bind(row.namespace_uid)
        .bind(&row.namespace_id)
        .bind(&row.id)
        .bind(&row.display_name)
        .bind(&row.labels)
        .bind(row.deletion_protection)
        .bind(&row.topic_ids)
        .bind(row.start_position)
        .bind(row.start_time_us)
        .bind(row.ordering)
        .bind(row.ack_deadline_ms)
        .bind(row.retry_policy)
        .bind(&row.dead_letter_topic_id)
        .bind(row.state);
    Ok(query.fetch_one(tx.conn()).await?)
}

/// Writes what may change and raises the version.
pub(crate) async fn group_update(tx: &mut TenantTx, row: &GroupRow) -> Result<GroupRow> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "UPDATE control.consumer_group SET display_name = $4, labels = $5, deletion_protection = $6, topic_ids = $7, \
         ack_deadline_ms = $8, retry_policy = $9, dead_letter_topic_id = $10, state = $11, \
         version = version + 1, update_time = now(), \
         delete_time = CASE WHEN $11 = 'DELETED' THEN coalesce(delete_time, now()) END \
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
        .bind(&row.topic_ids)
        .bind(row.ack_deadline_ms)
        .bind(row.retry_policy)
        .bind(&row.dead_letter_topic_id)
        .bind(row.state);
    Ok(query.fetch_one(tx.conn()).await?)
}
