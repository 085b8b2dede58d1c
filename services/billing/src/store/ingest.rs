//! Adds a batch of windows in one transaction: position, sources, hours, coverage, all or nothing.
//!
//! Locks are always taken in one order (the log's position, then partitions by key, then hourly rows by key), so readers of
//! different partitions of the log, which meet at a topic that two gateways write to, wait for each other and never
//! deadlock. A crash before the commit leaves nothing, a crash after it leaves all, and the position tells which.

use std::collections::BTreeMap;

use sluice_db::sqlx::{self, Row as _, postgres::PgConnection};
use sluice_db::{DbError, SystemScope};
use sluice_runtime::FailPoints;
use sluice_types::{NamespaceUid, TenantUid, TopicUid};

use super::log_position::{Log, Position, Reached, log_position_advance_on_conn};
use super::sources::{source_list_on_conn, source_store_on_conn};
use crate::domain::coverage::{Coverage, Interval};
use crate::domain::fold::{Amounts, Fold, Folded, Partition};
use crate::domain::window::{Owner, PartitionKey, Window};

/// A record of the usage log, decoded or not.
#[derive(Debug)]
pub struct Received {
    /// Its offset.
    pub offset: i64,
    /// When it was appended to the log, ms since the epoch.
    pub appended_ms: i64,
    /// The window, or why it is none.
    pub window: Result<Window, String>,
}

/// What a batch did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Windows added.
    pub added: u64,
    /// Windows that had been added before.
    pub repeated: u64,
    /// Windows that were jumped over, and are missing now.
    pub jumped: u64,
    /// Records that are no sound windows.
    pub rejected: u64,
    /// Intervals that were counted before.
    pub repeated_intervals: u64,
    /// Intervals counted in part, queued for a reread.
    pub overlaps: u64,
}

/// A stored row that breaks a rule of ours.
#[derive(Debug, thiserror::Error)]
#[error("read coverage of a partition")]
struct StoredCoverage;

/// Adds the records from `at` to `to`; `None` if the position was elsewhere (another reader, or ourselves in a transaction
/// whose answer was lost).
pub async fn ingest(
    system: &SystemScope,
    log: &Log,
    at: Position,
    to: impl Into<Reached>,
    records: &[Received],
    fail_points: &FailPoints,
) -> Result<Option<Ingested>, DbError> {
    let mut tx = system.begin().await?;
    if !log_position_advance_on_conn(tx.conn(), log, at, to.into()).await? {
        tx.rollback().await?;
        return Ok(None);
    }
    let windows: Vec<&Window> = records.iter().filter_map(|record| record.window.as_ref().ok()).collect();
    let before = load(tx.conn(), &windows).await?;
    let mut fold = before.clone();
    let mut done = Ingested::default();
    for record in records {
        let refused = match &record.window {
            Err(reason) => Some(reason.clone()),
            Ok(window) => match fold.apply(window, record.appended_ms) {
                Folded::Added { jumped } => {
                    done.added += 1;
                    done.jumped += jumped;
                    None
                }
                Folded::Repeated => {
                    done.repeated += 1;
                    None
                }
                Folded::WrongOwner(key) => {
                    Some(format!("partition {} of {} belongs to another tenant", key.partition, key.topic))
                }
            },
        };
        if let Some(reason) = refused {
            done.rejected += 1;
            reject(tx.conn(), log, record.offset, &reason).await?;
        }
    }
    done.repeated_intervals = fold.repeated_intervals;
    done.overlaps = fold.rereads.len() as u64;
    store(tx.conn(), &before, &fold).await?;
    fail_points.hit("ingest.before_commit");
    tx.commit().await?;
    fail_points.hit("ingest.after_commit");
    Ok(Some(done))
}

/// Locks what the windows may change and reads it.
async fn load(conn: &mut PgConnection, windows: &[&Window]) -> Result<Fold, DbError> {
    let mut fold = Fold::default();
    let names: Vec<&str> = windows.iter().map(|window| window.source.as_str()).collect();
    fold.sources = source_list_on_conn(conn, &names).await?;
    fold.partitions = lock_partitions(conn, windows).await?;
    load_coverage(conn, windows, &mut fold.partitions).await?;
    Ok(fold)
}

/// Makes the rows of partitions that are new, and locks all of them in the order of their keys.
async fn lock_partitions(
    conn: &mut PgConnection,
    windows: &[&Window],
) -> Result<BTreeMap<PartitionKey, Partition>, DbError> {
    // The first owner named stays; the fold refuses windows that say otherwise.
    let mut named: BTreeMap<PartitionKey, Owner> = BTreeMap::new();
    for (key, owner) in windows.iter().flat_map(|window| window.partitions()) {
        named.entry(key).or_insert(owner);
    }
    let topics: Vec<i64> = named.keys().map(|key| key.topic.as_i64()).collect();
    let partitions: Vec<i32> = named.keys().map(|key| key.partition).collect();
    let tenants: Vec<i64> = named.values().map(|owner| owner.tenant.as_i64()).collect();
    let namespaces: Vec<i64> = named.values().map(|owner| owner.namespace.as_i64()).collect();
    sqlx::query(
        "INSERT INTO billing.topic_partition (topic_uid, partition, tenant_uid, namespace_uid)
         SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bigint[], $4::bigint[]) AS n (t, p, o, s)
         ORDER BY t, p
         ON CONFLICT (topic_uid, partition) DO NOTHING",
    )
    .bind(&topics)
    .bind(&partitions)
    .bind(&tenants)
    .bind(&namespaces)
    .execute(&mut *conn)
    .await?;
    let rows = sqlx::query(
        "SELECT topic_uid, partition, tenant_uid, namespace_uid FROM billing.topic_partition
         WHERE (topic_uid, partition) IN (SELECT * FROM unnest($1::bigint[], $2::integer[]))
         ORDER BY topic_uid, partition FOR NO KEY UPDATE",
    )
    .bind(&topics)
    .bind(&partitions)
    .fetch_all(conn)
    .await?;
    let mut locked = BTreeMap::new();
    for row in rows {
        let key = PartitionKey { topic: TopicUid::from_i64(row.try_get(0)?), partition: row.try_get(1)? };
        let owner =
            Owner { tenant: TenantUid::from_i64(row.try_get(2)?), namespace: NamespaceUid::from_i64(row.try_get(3)?) };
        locked.insert(key, Partition { owner, coverage: Coverage::default() });
    }
    Ok(locked)
}

/// Reads the spans that lie within, or meet, what the windows offer of each partition.
async fn load_coverage(
    conn: &mut PgConnection,
    windows: &[&Window],
    partitions: &mut BTreeMap<PartitionKey, Partition>,
) -> Result<(), DbError> {
    let mut hulls: BTreeMap<PartitionKey, (i64, i64)> = BTreeMap::new();
    for produced in windows.iter().flat_map(|window| &window.produced) {
        for interval in &produced.intervals {
            let hull = hulls.entry(produced.key).or_insert((interval.start(), interval.end()));
            *hull = (hull.0.min(interval.start()), hull.1.max(interval.end()));
        }
    }
    let topics: Vec<i64> = hulls.keys().map(|key| key.topic.as_i64()).collect();
    let numbers: Vec<i32> = hulls.keys().map(|key| key.partition).collect();
    let (starts, ends): (Vec<i64>, Vec<i64>) = hulls.into_values().unzip();
    // At most one span begins before the hull and reaches it, hence the one row from the left.
    let rows = sqlx::query(
        r#"SELECT h.t, h.p, c."start", c."end", c.bytes
           FROM unnest($1::bigint[], $2::integer[], $3::bigint[], $4::bigint[]) AS h (t, p, lo, hi)
           CROSS JOIN LATERAL (
               (SELECT "start", "end", bytes FROM billing.coverage
                WHERE topic_uid = h.t AND partition = h.p AND "start" < h.lo ORDER BY "start" DESC LIMIT 1)
               UNION ALL
               (SELECT "start", "end", bytes FROM billing.coverage
                WHERE topic_uid = h.t AND partition = h.p AND "start" BETWEEN h.lo AND h.hi)
           ) AS c"#,
    )
    .bind(&topics)
    .bind(&numbers)
    .bind(&starts)
    .bind(&ends)
    .fetch_all(conn)
    .await?;
    let broken = || DbError::from(sqlx::Error::Decode(Box::new(StoredCoverage)));
    let mut spans: BTreeMap<PartitionKey, Vec<Interval>> = BTreeMap::new();
    for row in rows {
        let key = PartitionKey { topic: TopicUid::from_i64(row.try_get(0)?), partition: row.try_get(1)? };
        let bytes = u64::try_from(row.try_get::<i64, _>(4)?).map_err(|_| broken())?;
        let span = Interval::new(row.try_get(2)?, row.try_get(3)?, bytes).map_err(|_| broken())?;
        spans.entry(key).or_default().push(span);
    }
    for (key, spans) in spans {
        let coverage = Coverage::from_spans(spans).map_err(|_| broken())?;
        if let Some(partition) = partitions.get_mut(&key) {
            partition.coverage = coverage;
        }
    }
    Ok(())
}

async fn store(conn: &mut PgConnection, before: &Fold, after: &Fold) -> Result<(), DbError> {
    store_coverage(conn, before, after).await?;
    store_counted(conn, after).await?;
    store_hours(conn, after).await?;
    store_rereads(conn, after).await?;
    source_store_on_conn(conn, &before.sources, &after.sources).await
}

async fn store_coverage(conn: &mut PgConnection, before: &Fold, after: &Fold) -> Result<(), DbError> {
    let (mut gone_topics, mut gone_partitions, mut gone_starts) = (vec![], vec![], vec![]);
    let (mut topics, mut partitions, mut tenants) = (vec![], vec![], vec![]);
    let (mut starts, mut ends, mut bytes) = (vec![], vec![], vec![]);
    let nothing = Coverage::default();
    for (key, partition) in &after.partitions {
        let old = before.partitions.get(key).map_or(&nothing, |partition| &partition.coverage);
        let (gone, written) = partition.coverage.changes_since(old);
        for start in gone {
            gone_topics.push(key.topic.as_i64());
            gone_partitions.push(key.partition);
            gone_starts.push(start);
        }
        for span in written {
            topics.push(key.topic.as_i64());
            partitions.push(key.partition);
            tenants.push(partition.owner.tenant.as_i64());
            starts.push(span.start());
            ends.push(span.end());
            bytes.push(signed(span.bytes()));
        }
    }
    sqlx::query(
        r#"DELETE FROM billing.coverage WHERE (topic_uid, partition, "start") IN
           (SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bigint[]))"#,
    )
    .bind(&gone_topics)
    .bind(&gone_partitions)
    .bind(&gone_starts)
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        r#"INSERT INTO billing.coverage (topic_uid, partition, tenant_uid, "start", "end", bytes)
           SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
           ON CONFLICT (topic_uid, partition, "start") DO UPDATE SET "end" = excluded."end", bytes = excluded.bytes"#,
    )
    .bind(&topics)
    .bind(&partitions)
    .bind(&tenants)
    .bind(&starts)
    .bind(&ends)
    .bind(&bytes)
    .execute(conn)
    .await?;
    Ok(())
}

async fn store_counted(conn: &mut PgConnection, after: &Fold) -> Result<(), DbError> {
    let counted: Vec<_> = after.counted.iter().filter(|(_, counted)| counted.records > 0).collect();
    let topics: Vec<i64> = counted.iter().map(|(key, _)| key.topic.as_i64()).collect();
    let partitions: Vec<i32> = counted.iter().map(|(key, _)| key.partition).collect();
    let bytes: Vec<i64> = counted.iter().map(|(_, counted)| signed(counted.bytes)).collect();
    let records: Vec<i64> = counted.iter().map(|(_, counted)| signed(counted.records)).collect();
    let ends: Vec<i64> = counted.iter().map(|(_, counted)| counted.end).collect();
    sqlx::query(
        "UPDATE billing.topic_partition AS p SET covered_bytes = p.covered_bytes + n.b,
             covered_records = p.covered_records + n.r, covered_end = greatest(p.covered_end, n.e)
         FROM unnest($1::bigint[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[]) AS n (t, p, b, r, e)
         WHERE p.topic_uid = n.t AND p.partition = n.p",
    )
    .bind(&topics)
    .bind(&partitions)
    .bind(&bytes)
    .bind(&records)
    .bind(&ends)
    .execute(conn)
    .await?;
    Ok(())
}

async fn store_hours(conn: &mut PgConnection, after: &Fold) -> Result<(), DbError> {
    let hours: Vec<_> = after.hours.iter().filter(|(_, amounts)| **amounts != Amounts::default()).collect();
    let owners: Vec<Owner> = hours.iter().map(|(key, _)| after.partitions[&key.key].owner).collect();
    let tenants: Vec<i64> = owners.iter().map(|owner| owner.tenant.as_i64()).collect();
    let namespaces: Vec<i64> = owners.iter().map(|owner| owner.namespace.as_i64()).collect();
    let topics: Vec<i64> = hours.iter().map(|(key, _)| key.key.topic.as_i64()).collect();
    let partitions: Vec<i32> = hours.iter().map(|(key, _)| key.key.partition).collect();
    let numbers: Vec<i64> = hours.iter().map(|(key, _)| key.hour).collect();
    let column =
        |of: fn(&Amounts) -> u64| -> Vec<i64> { hours.iter().map(|(_, amounts)| signed(of(amounts))).collect() };
    sqlx::query(
        "INSERT INTO billing.hourly AS h (tenant_uid, namespace_uid, topic_uid, partition, hour,
             ingress_bytes, ingress_records, egress_bytes, egress_records)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::integer[], $5::bigint[],
             $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[]) AS n (o, s, t, p, hour, ib, ir, eb, er)
         ORDER BY t, p, hour
         ON CONFLICT (topic_uid, partition, hour) DO UPDATE SET
             ingress_bytes = h.ingress_bytes + excluded.ingress_bytes,
             ingress_records = h.ingress_records + excluded.ingress_records,
             egress_bytes = h.egress_bytes + excluded.egress_bytes,
             egress_records = h.egress_records + excluded.egress_records",
    )
    .bind(&tenants)
    .bind(&namespaces)
    .bind(&topics)
    .bind(&partitions)
    .bind(&numbers)
    .bind(column(|amounts| amounts.ingress_bytes))
    .bind(column(|amounts| amounts.ingress_records))
    .bind(column(|amounts| amounts.egress_bytes))
    .bind(column(|amounts| amounts.egress_records))
    .execute(conn)
    .await?;
    Ok(())
}

async fn store_rereads(conn: &mut PgConnection, after: &Fold) -> Result<(), DbError> {
    for reread in &after.rereads {
        sqlx::query(
            r#"INSERT INTO billing.reread (topic_uid, partition, "start", "end", claimed_bytes, source, window_number, tenant_uid)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING"#,
        )
        .bind(reread.key.topic.as_i64())
        .bind(reread.key.partition)
        .bind(reread.interval.start())
        .bind(reread.interval.end())
        .bind(signed(reread.interval.bytes()))
        .bind(&reread.source)
        .bind(reread.window)
        .bind(after.partitions[&reread.key].owner.tenant.as_i64())
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

async fn reject(conn: &mut PgConnection, log: &Log, offset: i64, reason: &str) -> Result<(), DbError> {
    sqlx::query(
        r#"INSERT INTO billing.rejected_window (topic, partition, "offset", reason) VALUES ($1, $2, $3, $4)
           ON CONFLICT DO NOTHING"#,
    )
    .bind(log.topic)
    .bind(log.partition)
    .bind(offset)
    .bind(reason)
    .execute(conn)
    .await?;
    Ok(())
}

/// Every amount is checked to be far below 2^63 when its window is decoded; a sum that is not would be refused by its column.
fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(-1)
}
