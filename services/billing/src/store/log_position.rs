//! How far a log is read: the fence that makes reading exactly once.
//!
//! A transaction that uses what it read moves the position from exactly where it began. Whoever finds it elsewhere is not
//! the only reader (or committed before and did not learn of it): it rolls back and loads the position anew.

use sluice_db::sqlx::{self, Row as _, postgres::PgConnection};
use sluice_db::{DbError, SystemScope};
use sluice_wire::KafkaTopicId;

/// One partition of a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Log {
    /// The topic.
    pub topic: &'static str,
    /// The partition.
    pub partition: i32,
}

/// How far a partition is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Which topic, whatever its name.
    pub topic_id: KafkaTopicId,
    /// The offset to read next.
    pub next: i64,
    /// Leader epoch of the record before that, if known: whether the log still holds what was read of it.
    pub epoch: Option<i32>,
    /// Of a log of states: when the latest record was appended that was read, in ms since 1970.
    pub read_ms: i64,
    /// Of a log of states that is read anew: it is complete when it says so in a record that was appended after this time.
    pub anew_after_ms: Option<i64>,
}

impl Position {
    /// The beginning of this topic.
    pub fn beginning(topic_id: KafkaTopicId) -> Self {
        Self { topic_id, next: 0, epoch: None, read_ms: 0, anew_after_ms: None }
    }

    /// The beginning of a log of states, which replaces what is held once it is complete.
    pub fn anew(topic_id: KafkaTopicId, after_ms: i64) -> Self {
        Self { anew_after_ms: Some(after_ms), ..Self::beginning(topic_id) }
    }

    /// Nothing was read.
    pub fn stays(self) -> Reached {
        Reached { next: self.next, epoch: self.epoch }
    }
}

/// Where a reading came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The offset to read next.
    pub next: i64,
    /// See [`Position::epoch`].
    pub epoch: Option<i32>,
}

impl From<i64> for Reached {
    /// Without the epoch of what was read.
    fn from(next: i64) -> Self {
        Self { next, epoch: None }
    }
}

/// A stored id that is none.
#[derive(Debug, thiserror::Error)]
#[error("read the stored topic id of {0}")]
struct StoredTopicId(&'static str);

/// The stored position; stores the beginning of this topic if there is none yet.
pub async fn log_position_load(system: &SystemScope, log: &Log, topic_id: KafkaTopicId) -> Result<Position, DbError> {
    let mut tx = system.begin().await?;
    sqlx::query(
        "INSERT INTO billing.ingest_offset (topic, partition, topic_id, next) VALUES ($1, $2, $3, 0)
         ON CONFLICT (topic, partition) DO NOTHING",
    )
    .bind(log.topic)
    .bind(log.partition)
    .bind(topic_id.to_string())
    .execute(tx.conn())
    .await?;
    let row = sqlx::query(
        "SELECT topic_id, next, read_ms, anew_after_ms, CASE WHEN epoch_next = next THEN epoch END FROM billing.ingest_offset \
         WHERE topic = $1 AND partition = $2",
    )
    .bind(log.topic)
    .bind(log.partition)
    .fetch_one(tx.conn())
    .await?;
    tx.commit().await?;
    let stored: String = row.try_get(0)?;
    let topic_id =
        stored.parse().map_err(|_| sqlx::Error::Decode(Box::new(StoredTopicId(log.topic)))).map_err(DbError::from)?;
    Ok(Position {
        topic_id,
        next: row.try_get(1)?,
        epoch: row.try_get(4)?,
        read_ms: row.try_get(2)?,
        anew_after_ms: row.try_get(3)?,
    })
}

/// Moves the position from `at`; false if it was not there, or is one in another topic of this name. First in its transaction,
/// so that a second reader waits here for the first and then finds out.
pub async fn log_position_advance_on_conn(
    conn: &mut PgConnection,
    log: &Log,
    at: Position,
    to: Reached,
) -> Result<bool, DbError> {
    let moved = sqlx::query(
        "UPDATE billing.ingest_offset SET next = $5, epoch = $6, epoch_next = $5
         WHERE topic = $1 AND partition = $2 AND topic_id = $3 AND next = $4",
    )
    .bind(log.topic)
    .bind(log.partition)
    .bind(at.topic_id.to_string())
    .bind(at.next)
    .bind(to.next)
    .bind(to.epoch)
    .execute(conn)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Remembers until when a log of states was read.
pub async fn log_position_read_on_conn(conn: &mut PgConnection, log: &Log, read_ms: i64) -> Result<(), DbError> {
    sqlx::query("UPDATE billing.ingest_offset SET read_ms = greatest(read_ms, $3) WHERE topic = $1 AND partition = $2")
        .bind(log.topic)
        .bind(log.partition)
        .bind(read_ms)
        .execute(conn)
        .await?;
    Ok(())
}

/// A log of states was read anew, and what it says is held.
pub async fn log_position_adopted_on_conn(conn: &mut PgConnection, log: &Log) -> Result<(), DbError> {
    sqlx::query("UPDATE billing.ingest_offset SET anew_after_ms = NULL WHERE topic = $1 AND partition = $2")
        .bind(log.topic)
        .bind(log.partition)
        .execute(conn)
        .await?;
    Ok(())
}

/// Begins again at the beginning of the log that has this id now: it is another one than was read so far, or it lost records
/// that were read. Windows are known by their numbers, so nothing is counted twice.
pub async fn log_position_restart(
    system: &SystemScope,
    log: &Log,
    stored: Position,
    now: Position,
) -> Result<bool, DbError> {
    let mut tx = system.begin().await?;
    let moved = sqlx::query(
        "UPDATE billing.ingest_offset SET topic_id = $5, next = $6, read_ms = $7, anew_after_ms = $8, epoch = $9, epoch_next = $6
         WHERE topic = $1 AND partition = $2 AND topic_id = $3 AND next = $4",
    )
    .bind(log.topic)
    .bind(log.partition)
    .bind(stored.topic_id.to_string())
    .bind(stored.next)
    .bind(now.topic_id.to_string())
    .bind(now.next)
    .bind(now.read_ms)
    .bind(now.anew_after_ms)
    .bind(now.epoch)
    .execute(tx.conn())
    .await?;
    if moved.rows_affected() == 0 {
        tx.rollback().await?;
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO billing.log_replaced (topic, partition, old_topic_id, new_topic_id, read_to)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(log.topic)
    .bind(log.partition)
    .bind(stored.topic_id.to_string())
    .bind(now.topic_id.to_string())
    .bind(stored.next)
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(true)
}

/// Puts on record that offsets were gone before they were read, and goes on behind them.
pub async fn log_position_skip(system: &SystemScope, log: &Log, at: Position, to: i64) -> Result<bool, DbError> {
    let mut tx = system.begin().await?;
    if !log_position_advance_on_conn(tx.conn(), log, at, to.into()).await? {
        tx.rollback().await?;
        return Ok(false);
    }
    sqlx::query(r#"INSERT INTO billing.log_gap (topic, partition, "start", "end") VALUES ($1, $2, $3, $4)"#)
        .bind(log.topic)
        .bind(log.partition)
        .bind(at.next)
        .bind(to)
        .execute(tx.conn())
        .await?;
    tx.commit().await?;
    Ok(true)
}
