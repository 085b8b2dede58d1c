//! What the watch over uncovered records reads: living topics, and what is counted of their partitions.

use std::collections::BTreeMap;

use sluice_db::sqlx::{self, Row as _};
use sluice_db::{DbError, SystemScope};
use sluice_proto::internal::control::v1::Life;
use sluice_types::{ClusterUid, NamespaceUid, TopicUid};

use crate::domain::window::PartitionKey;
use crate::log_ends::Wanted;

/// Living topics behind `after`, by uid, with the number of counted records per partition.
pub async fn living_topic_list(
    system: &SystemScope,
    after: Option<TopicUid>,
    limit: i64,
) -> Result<(Vec<Wanted>, BTreeMap<PartitionKey, i64>), DbError> {
    let mut tx = system.begin().await?;
    let rows = sqlx::query(
        "SELECT uid, namespace_uid, partitions, cluster_uid FROM billing.topic
         WHERE uid > $1 AND life = $2 AND partitions > 0 ORDER BY uid LIMIT $3",
    )
    .bind(after.map_or(i64::MIN, TopicUid::as_i64))
    .bind(i16::try_from(i32::from(Life::Active)).unwrap_or_default())
    .bind(limit)
    .fetch_all(tx.conn())
    .await?;
    let mut topics = Vec::with_capacity(rows.len());
    for row in rows {
        topics.push(Wanted {
            topic: TopicUid::from_i64(row.try_get(0)?),
            namespace: NamespaceUid::from_i64(row.try_get(1)?),
            partitions: row.try_get(2)?,
            cluster: row.try_get::<Option<i64>, _>(3)?.map(ClusterUid::from_i64),
        });
    }
    let uids: Vec<i64> = topics.iter().map(|topic| topic.topic.as_i64()).collect();
    let rows = sqlx::query(
        "SELECT topic_uid, partition, covered_records FROM billing.topic_partition WHERE topic_uid = ANY($1)",
    )
    .bind(&uids)
    .fetch_all(tx.conn())
    .await?;
    let mut counted = BTreeMap::new();
    for row in rows {
        let key = PartitionKey { topic: TopicUid::from_i64(row.try_get(0)?), partition: row.try_get(1)? };
        counted.insert(key, row.try_get(2)?);
    }
    tx.rollback().await?;
    Ok((topics, counted))
}

/// The counted ranges of partitions that begin below an offset each, in order, at most so many each.
pub async fn counted_below(
    system: &SystemScope,
    below: &[(PartitionKey, i64)],
    ranges: i64,
) -> Result<BTreeMap<PartitionKey, Vec<(i64, i64)>>, DbError> {
    let topics: Vec<i64> = below.iter().map(|(key, _)| key.topic.as_i64()).collect();
    let partitions: Vec<i32> = below.iter().map(|(key, _)| key.partition).collect();
    let offsets: Vec<i64> = below.iter().map(|(_, offset)| *offset).collect();
    let mut tx = system.begin().await?;
    let rows = sqlx::query(
        r#"SELECT b.t, b.p, c."start", c."end"
           FROM unnest($1::bigint[], $2::integer[], $3::bigint[]) AS b (t, p, below)
           CROSS JOIN LATERAL (
               SELECT "start", "end" FROM billing.coverage
               WHERE topic_uid = b.t AND partition = b.p AND "start" < b.below ORDER BY "start" LIMIT $4
           ) AS c ORDER BY b.t, b.p, c."start""#,
    )
    .bind(&topics)
    .bind(&partitions)
    .bind(&offsets)
    .bind(ranges)
    .fetch_all(tx.conn())
    .await?;
    tx.rollback().await?;
    let mut counted: BTreeMap<PartitionKey, Vec<(i64, i64)>> =
        below.iter().map(|(key, _)| (*key, Vec::new())).collect();
    for row in rows {
        let key = PartitionKey { topic: TopicUid::from_i64(row.try_get(0)?), partition: row.try_get(1)? };
        counted.entry(key).or_default().push((row.try_get(2)?, row.try_get(3)?));
    }
    Ok(counted)
}
