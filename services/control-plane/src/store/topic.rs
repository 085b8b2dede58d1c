//! Topics: intent (what the tenant wants) and observation (what provisioning saw) side by side.

use sluice_db::TenantTx;
use sluice_types::{ClusterUid, NamespaceUid, TopicId, TopicUid};
use sqlx::types::Json;

use super::{Labels, Result};

/// A row.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(crate) struct TopicRow {
    pub(crate) uid: i64,
    pub(crate) tenant_uid: i64,
    pub(crate) namespace_uid: i64,
    pub(crate) namespace_id: String,
    pub(crate) cluster_uid: i64,
    pub(crate) id: String,
    pub(crate) display_name: String,
    pub(crate) labels: Labels,
    pub(crate) deletion_protection: bool,
    pub(crate) partition_count: Option<i32>,
    pub(crate) retention_ms: Option<i64>,
    pub(crate) cleanup_policy: i32,
    pub(crate) timestamp_policy: i32,
    pub(crate) effective_partitions: i32,
    pub(crate) effective_retention_ms: i64,
    pub(crate) generation: i64,
    pub(crate) state: TopicState,
    pub(crate) observed_generation: i64,
    pub(crate) observed_partitions: i32,
    /// The retention that Kafka was last seen to have; 0: not seen.
    pub(crate) observed_retention_ms: i64,
    pub(crate) kafka_topic_id: Option<String>,
    pub(crate) create_attempted: bool,
    pub(crate) final_end_offsets: Vec<i64>,
    pub(crate) conditions: Json<Vec<StoredCondition>>,
    pub(crate) attempts: i32,
    pub(crate) version: i64,
    pub(crate) create_us: i64,
    pub(crate) update_us: i64,
}

/// Where a topic is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum TopicState {
    Creating,
    Active,
    Updating,
    Deleting,
    Deleted,
    Failed,
}

/// What of a tenant counts against a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    /// In service, or on the way there.
    pub(crate) serving: i64,
    /// Deleted, and still to be removed from the cluster.
    pub(crate) leaving: i64,
}

/// A condition as stored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct StoredCondition {
    pub(crate) kind: String,
    pub(crate) holds: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) generation: i64,
    pub(crate) time_us: i64,
}

impl TopicRow {
    pub(crate) fn uid(&self) -> TopicUid {
        TopicUid::from_i64(self.uid)
    }

    pub(crate) fn namespace_uid(&self) -> NamespaceUid {
        NamespaceUid::from_i64(self.namespace_uid)
    }

    /// Where its records lie.
    pub(crate) fn cluster_uid(&self) -> ClusterUid {
        ClusterUid::from_i64(self.cluster_uid)
    }

    pub(crate) fn name(&self) -> String {
        format!("namespaces/{}/topics/{}", self.namespace_id, self.id)
    }
}

macro_rules! columns {
    () => {
        "uid, tenant_uid, namespace_uid, namespace_id, cluster_uid, id, display_name, labels, deletion_protection, partition_count, \
         retention_ms, cleanup_policy, timestamp_policy, effective_partitions, effective_retention_ms, generation, state, \
         observed_generation, observed_partitions, observed_retention_ms, kafka_topic_id, create_attempted, \
         final_end_offsets, conditions, attempts, version, control.micros(create_time) AS create_us, control.micros(update_time) AS update_us"
    };
}
pub(super) use columns;

/// The one in service (or being made, or failed) under this id.
pub(crate) async fn topic_by_id(tx: &mut TenantTx, namespace: NamespaceUid, id: &TopicId) -> Result<Option<TopicRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.topic WHERE tenant_uid = $1 AND namespace_uid = $2 AND id = $3 \
         AND state NOT IN ('DELETING', 'DELETED')"
    );
    let query = sqlx::query_as(sql).bind(tenant).bind(namespace.as_i64()).bind(id.as_str());
    Ok(query.fetch_optional(tx.conn()).await?)
}

/// Any life of a topic, by uid.
pub(crate) async fn topic_by_uid(tx: &mut TenantTx, uid: TopicUid) -> Result<Option<TopicRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!("SELECT ", columns!(), " FROM control.topic WHERE tenant_uid = $1 AND uid = $2");
    Ok(sqlx::query_as(sql).bind(tenant).bind(uid.as_i64()).fetch_optional(tx.conn()).await?)
}

/// A page of a namespace by id.
pub(crate) async fn topic_list(
    tx: &mut TenantTx,
    namespace: NamespaceUid,
    after: &str,
    limit: i64,
) -> Result<Vec<TopicRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.topic WHERE tenant_uid = $1 AND namespace_uid = $2 AND id > $3 COLLATE \"C\" \
         AND state NOT IN ('DELETING', 'DELETED') ORDER BY id COLLATE \"C\" LIMIT $4"
    );
    let query = sqlx::query_as(sql).bind(tenant).bind(namespace.as_i64()).bind(after).bind(limit);
    Ok(query.fetch_all(tx.conn()).await?)
}

/// Some that are not being deleted, for the deletion of a tenant.
pub(crate) async fn topic_list_some(tx: &mut TenantTx, limit: i64) -> Result<Vec<TopicRow>> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.topic WHERE tenant_uid = $1 AND state NOT IN ('DELETING', 'DELETED') ORDER BY uid LIMIT $2"
    );
    Ok(sqlx::query_as(sql).bind(tenant).bind(limit).fetch_all(tx.conn()).await?)
}

/// Topics and partitions that count against the tenant's limits.
pub(crate) async fn topic_usage(tx: &mut TenantTx) -> Result<(Used, Used)> {
    let tenant = tx.tenant().as_i64();
    let sql = "SELECT count(*) FILTER (WHERE state <> 'DELETING'), count(*) FILTER (WHERE state = 'DELETING'), \
               coalesce(sum(effective_partitions) FILTER (WHERE state <> 'DELETING'), 0)::bigint, \
               coalesce(sum(effective_partitions) FILTER (WHERE state = 'DELETING'), 0)::bigint \
               FROM control.topic WHERE tenant_uid = $1 AND state <> 'DELETED'";
    let (serving, leaving, partitions, partitions_leaving): (i64, i64, i64, i64) =
        sqlx::query_as(sql).bind(tenant).fetch_one(tx.conn()).await?;
    Ok((Used { serving, leaving }, Used { serving: partitions, leaving: partitions_leaving }))
}

/// How many a namespace has in service.
pub(crate) async fn topic_count_in(tx: &mut TenantTx, namespace: NamespaceUid) -> Result<i64> {
    let tenant = tx.tenant().as_i64();
    let sql = "SELECT count(*) FROM control.topic WHERE tenant_uid = $1 AND namespace_uid = $2 \
               AND state NOT IN ('DELETING', 'DELETED')";
    Ok(sqlx::query_scalar(sql).bind(tenant).bind(namespace.as_i64()).fetch_one(tx.conn()).await?)
}

/// Those of some ids that are in service (or being made, or failed) in a namespace, each with its cluster; by id.
pub(crate) async fn topic_clusters(
    tx: &mut TenantTx,
    namespace: NamespaceUid,
    ids: &[String],
) -> Result<Vec<(String, i64)>> {
    let tenant = tx.tenant().as_i64();
    let sql = "SELECT id, cluster_uid FROM control.topic WHERE tenant_uid = $1 AND namespace_uid = $2 AND id = ANY($3) \
               AND state NOT IN ('DELETING', 'DELETED') ORDER BY id COLLATE \"C\"";
    Ok(sqlx::query_as(sql).bind(tenant).bind(namespace.as_i64()).bind(ids).fetch_all(tx.conn()).await?)
}

/// A group that names this topic, and another topic of it that lies on another cluster. Looks at the groups of the namespace, 20,000
/// at most, only if a topic of it lies elsewhere.
pub(crate) async fn topic_of_groups_elsewhere(tx: &mut TenantTx, row: &TopicRow) -> Result<Option<(String, String)>> {
    let tenant = tx.tenant().as_i64();
    let sql = "SELECT g.id, t.id FROM control.consumer_group g JOIN control.topic t ON t.namespace_uid = g.namespace_uid \
               AND t.id = ANY(g.topic_ids) AND t.state NOT IN ('DELETING', 'DELETED') \
               WHERE EXISTS (SELECT FROM control.topic e WHERE e.tenant_uid = $1 AND e.namespace_uid = $2 AND e.cluster_uid <> $4) \
               AND g.tenant_uid = $1 AND t.tenant_uid = $1 AND g.namespace_uid = $2 AND g.state = 'ACTIVE' \
               AND $3 = ANY(g.topic_ids) AND t.cluster_uid <> $4 AND t.id <> $3 ORDER BY g.id, t.id LIMIT 1";
    let query = sqlx::query_as(sql).bind(tenant).bind(row.namespace_uid).bind(&row.id).bind(row.cluster_uid);
    Ok(query.fetch_optional(tx.conn()).await?)
}

/// Inserts.
pub(crate) async fn topic_insert(tx: &mut TenantTx, row: &TopicRow) -> Result<TopicRow> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "INSERT INTO control.topic (uid, tenant_uid, namespace_uid, namespace_id, id, display_name, labels, \
         deletion_protection, partition_count, retention_ms, cleanup_policy, timestamp_policy, effective_partitions, \
         effective_retention_ms, generation, state, conditions, cluster_uid) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) RETURNING ",
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
        .bind(row.partition_count)
        .bind(row.retention_ms)
        .bind(row.cleanup_policy)
        .bind(row.timestamp_policy)
        .bind(row.effective_partitions)
        .bind(row.effective_retention_ms)
        .bind(row.generation)
        .bind(row.state)
        .bind(&row.conditions)
        .bind(row.cluster_uid);
    Ok(query.fetch_one(tx.conn()).await?)
}

/// Writes what may change and raises the version. The work item becomes due `delay_ms` from now.
pub(crate) async fn topic_update(tx: &mut TenantTx, row: &TopicRow, delay_ms: i64) -> Result<TopicRow> {
    let tenant = tx.tenant().as_i64();
    let sql = concat!(
        "UPDATE control.topic SET display_name = $4, labels = $5, deletion_protection = $6, partition_count = $7, \
         retention_ms = $8, effective_partitions = $9, effective_retention_ms = $10, generation = $11, state = $12, \
         observed_generation = $13, observed_partitions = $14, kafka_topic_id = $15, create_attempted = $16, \
         final_end_offsets = $17, conditions = $18, attempts = $19, \
         observed_retention_ms = $21, attempt_time = now() + $20 * interval '1 millisecond', version = version + 1, update_time = now(), \
         delete_time = CASE WHEN $12 IN ('DELETING', 'DELETED') THEN coalesce(delete_time, now()) END \
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
        .bind(row.partition_count)
        .bind(row.retention_ms)
        .bind(row.effective_partitions)
        .bind(row.effective_retention_ms)
        .bind(row.generation)
        .bind(row.state)
        .bind(row.observed_generation)
        .bind(row.observed_partitions)
        .bind(&row.kafka_topic_id)
        .bind(row.create_attempted)
        .bind(&row.final_end_offsets)
        .bind(&row.conditions)
        .bind(row.attempts)
        .bind(delay_ms)
        .bind(row.observed_retention_ms);
    Ok(query.fetch_one(tx.conn()).await?)
}
