//! The usage log: windows into hours and coverage.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_db::{DbError, SystemScope};
use sluice_runtime::FailPoints;
use sluice_types::physical::USAGE_TOPIC;
use sluice_wire::{Client, Record, TimestampType};
use tokio_util::sync::CancellationToken;

use super::log_feed::Sink;
use crate::domain::window::{Window, WindowError};
use crate::metrics::Metrics;
use crate::store::ingest::{Ingested, Received, ingest};
use crate::store::log_position::{Log, Position, Reached};

const ASK_AGAIN: Duration = Duration::from_millis(200);
const KAFKA_TIMEOUT: Duration = Duration::from_secs(2);

/// Stores windows.
pub struct UsageSink {
    /// Where.
    pub system: SystemScope,
    /// For tests.
    pub fail_points: FailPoints,
    /// Told what came of them.
    pub metrics: Metrics,
}

impl Sink for UsageSink {
    async fn commit(&self, log: Log, at: Position, to: Reached, records: Vec<Record>) -> Result<bool, DbError> {
        let now_ms = now_ms();
        let received: Vec<Received> = records.iter().map(|record| receive(record, now_ms)).collect();
        match ingest(&self.system, &log, at, to, &received, &self.fail_points).await? {
            None => Ok(false),
            Some(done) => {
                self.tell(&log, &done);
                Ok(true)
            }
        }
    }
}

impl UsageSink {
    fn tell(&self, log: &Log, done: &Ingested) {
        let metrics = &self.metrics;
        metrics.windows_added.inc_by(done.added);
        metrics.windows_repeated.inc_by(done.repeated);
        metrics.windows_rejected.inc_by(done.rejected);
        metrics.intervals_repeated.inc_by(done.repeated_intervals);
        metrics.intervals_overlapping.inc_by(done.overlaps);
        if done.jumped + done.rejected + done.overlaps > 0 {
            tracing::warn!(
                ?log,
                jumped = done.jumped,
                rejected = done.rejected,
                overlaps = done.overlaps,
                "usage is missing or cannot be counted"
            );
        }
    }
}

/// How many partitions the usage log has; waits for Kafka and for the topic. `None`: the shutdown came first.
pub async fn partition_count(kafka: &Client, shutdown: &CancellationToken) -> Option<i32> {
    loop {
        match kafka.topic(USAGE_TOPIC, KAFKA_TIMEOUT).await {
            Ok(topic) if !topic.partitions.is_empty() => return i32::try_from(topic.partitions.len()).ok(),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the usage log is not there yet"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(ASK_AGAIN) => {}
        }
    }
}

/// One per partition of the log.
pub fn logs(partitions: i32) -> impl Iterator<Item = Log> {
    (0..partitions).map(|partition| Log { topic: USAGE_TOPIC, partition })
}

fn receive(record: &Record, now_ms: i64) -> Received {
    let window = record.value.as_ref().ok_or(WindowError::Empty).and_then(|value| Window::decode(value));
    let appended_ms = appended_ms(record, now_ms);
    Received { offset: record.offset, appended_ms, window: window.map_err(|error| error.to_string()) }
}

/// The broker's time. In a log that was made without it there is the gateway's only, which at least is not in the future.
fn appended_ms(record: &Record, now_ms: i64) -> i64 {
    match record.timestamp_type {
        TimestampType::LogAppendTime => record.timestamp_ms.max(0),
        TimestampType::CreateTime => record.timestamp_ms.clamp(0, now_ms),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A sink to be shared by the feeds.
pub fn sink(system: SystemScope, fail_points: FailPoints, metrics: Metrics) -> Arc<UsageSink> {
    Arc::new(UsageSink { system, fail_points, metrics })
}
