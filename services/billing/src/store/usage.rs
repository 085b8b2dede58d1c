//! What a tenant's GetUsage reads: topics by name, their hours, their coverage. Under row-level security. Each query is
//! a snapshot of its own, so a partition's ranges and their sums agree; hours may be a window behind or ahead of them.

use std::collections::BTreeMap;

use sluice_db::sqlx::{self, Row as _};
use sluice_db::{DbError, TenantTx};
use sluice_types::{ClusterUid, NamespaceUid, TopicUid};

use crate::domain::fold::Amounts;
use crate::domain::page_token::After;
use crate::domain::report::Stored;

/// Which topics.
#[derive(Debug, Clone, Default)]
pub struct TopicFilter {
    /// Only lives of this name: namespace id and topic id.
    pub name: Option<(String, String)>,
    /// Only this life.
    pub uid: Option<TopicUid>,
    /// Behind this one.
    pub after: Option<After>,
    /// At most so many.
    pub limit: i64,
}

/// A topic in one of its lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRow {
    /// Its uid.
    pub uid: TopicUid,
    /// The namespace's uid.
    pub namespace_uid: NamespaceUid,
    /// The cluster that its log is on; `None`: it is not known.
    pub cluster: Option<ClusterUid>,
    /// The namespace's id.
    pub namespace_id: String,
    /// Its id.
    pub id: String,
    /// Its life, as the control log numbers it.
    pub life: i32,
    /// Partitions it has or had.
    pub partitions: i32,
    /// End offsets before it was deleted; empty if they are not known.
    pub final_end_offsets: Vec<i64>,
}

/// The topics, by namespace id, id and uid.
pub async fn topic_list(tx: &mut TenantTx, filter: &TopicFilter) -> Result<Vec<TopicRow>, DbError> {
    let tenant = tx.tenant().as_i64();
    let (namespace, topic) = filter.name.clone().unzip();
    let after = filter.after.as_ref();
    let rows = sqlx::query(
        "SELECT uid, namespace_uid, namespace_id, id, life::integer, partitions, final_end_offsets, cluster_uid
         FROM billing.topic
         WHERE tenant_uid = $1
           AND ($2::text IS NULL OR (namespace_id = $2 AND id = $3))
           AND ($4::bigint IS NULL OR uid = $4)
           AND ($5::text IS NULL OR (namespace_id, id, uid) > ($5, $6, $7))
         ORDER BY namespace_id, id, uid LIMIT $8",
    )
    .bind(tenant)
    .bind(namespace)
    .bind(topic)
    .bind(filter.uid.map(TopicUid::as_i64))
    .bind(after.map(|after| after.namespace_id.as_str()))
    .bind(after.map(|after| after.topic_id.as_str()))
    .bind(after.map(|after| after.topic_uid))
    .bind(filter.limit)
    .fetch_all(tx.conn())
    .await?;
    let topic = |row: sqlx::postgres::PgRow| {
        Ok(TopicRow {
            uid: TopicUid::from_i64(row.try_get(0)?),
            namespace_uid: NamespaceUid::from_i64(row.try_get(1)?),
            namespace_id: row.try_get(2)?,
            id: row.try_get(3)?,
            life: row.try_get(4)?,
            partitions: row.try_get(5)?,
            final_end_offsets: row.try_get(6)?,
            cluster: row.try_get::<Option<i64>, _>(7)?.map(ClusterUid::from_i64),
        })
    };
    rows.into_iter().map(topic).collect()
}

/// Sums per hour of some topics, by hour, in `[from, to)` hours.
pub async fn hour_list(
    tx: &mut TenantTx,
    topics: &[TopicUid],
    from: i64,
    to: i64,
) -> Result<BTreeMap<TopicUid, Vec<(i64, Amounts)>>, DbError> {
    let tenant = tx.tenant().as_i64();
    let uids: Vec<i64> = topics.iter().map(|topic| topic.as_i64()).collect();
    let rows = sqlx::query(
        "SELECT hour, sum(ingress_bytes)::bigint, sum(ingress_records)::bigint, sum(egress_bytes)::bigint,
             sum(egress_records)::bigint, topic_uid
         FROM billing.hourly WHERE tenant_uid = $1 AND topic_uid = ANY($2) AND hour >= $3 AND hour < $4
         GROUP BY topic_uid, hour ORDER BY topic_uid, hour",
    )
    .bind(tenant)
    .bind(&uids)
    .bind(from)
    .bind(to)
    .fetch_all(tx.conn())
    .await?;
    let mut hours: BTreeMap<TopicUid, Vec<(i64, Amounts)>> = BTreeMap::new();
    for row in rows {
        let amount = |at: usize| row.try_get::<i64, _>(at).map(i64::unsigned_abs);
        let amounts = Amounts {
            ingress_bytes: amount(1)?,
            ingress_records: amount(2)?,
            egress_bytes: amount(3)?,
            egress_records: amount(4)?,
        };
        hours.entry(TopicUid::from_i64(row.try_get(5)?)).or_default().push((row.try_get(0)?, amounts));
    }
    Ok(hours)
}

/// What is counted of each partition of some topics, with the first so many counted ranges of each partition.
pub async fn coverage_list(
    tx: &mut TenantTx,
    topics: &[(TopicUid, i64)],
) -> Result<BTreeMap<TopicUid, BTreeMap<i32, Stored>>, DbError> {
    let tenant = tx.tenant().as_i64();
    let (uids, ranges): (Vec<i64>, Vec<i64>) = topics.iter().map(|(topic, ranges)| (topic.as_i64(), *ranges)).unzip();
    let rows = sqlx::query(
        r#"SELECT p.partition, p.covered_bytes, p.covered_records, p.covered_end, c."start", c."end", p.topic_uid
           FROM unnest($2::bigint[], $3::bigint[]) AS t (uid, ranges)
           JOIN billing.topic_partition AS p ON p.topic_uid = t.uid
           LEFT JOIN LATERAL (
               SELECT "start", "end" FROM billing.coverage
               WHERE topic_uid = p.topic_uid AND partition = p.partition ORDER BY "start" LIMIT t.ranges
           ) AS c ON true
           WHERE p.tenant_uid = $1 ORDER BY p.topic_uid, p.partition, c."start""#,
    )
    .bind(tenant)
    .bind(&uids)
    .bind(&ranges)
    .fetch_all(tx.conn())
    .await?;
    let mut stored: BTreeMap<TopicUid, BTreeMap<i32, Stored>> = BTreeMap::new();
    for row in rows {
        let topic = stored.entry(TopicUid::from_i64(row.try_get(6)?)).or_default();
        let partition = topic.entry(row.try_get(0)?).or_default();
        partition.bytes = row.try_get::<i64, _>(1)?.unsigned_abs();
        partition.records = row.try_get::<i64, _>(2)?.unsigned_abs();
        partition.end = row.try_get(3)?;
        if let Some(start) = row.try_get::<Option<i64>, _>(4)? {
            partition.ranges.push((start, row.try_get(5)?));
        }
    }
    Ok(stored)
}
