//! Reads one partition of an internal log from its stored position, for ever, and hands records to a sink that stores their
//! effect and moves the position in one transaction.
//!
//! Exactly once, whatever dies: nothing is remembered here that is not reloaded when in doubt. A commit whose answer was
//! lost is tried again from the same position and then either works or finds the position moved. A log that was made anew, or
//! lost its end, is read from its beginning: what comes again is known, and what is missing is told. Ends only for what nobody
//! can mend by waiting: access is refused, records are damaged.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sluice_db::{Database, DbError};
use sluice_runtime::{ComponentStatus, Health};
use sluice_wire::{Client, Isolation, KafkaTopicId, LogTail, OffsetAt, Record, TailBatch, TailOptions, TailState};
use tokio_util::sync::CancellationToken;

use crate::metrics::{LogLabels, Metrics};
use crate::store::log_position::{Log, Position, Reached, log_position_load, log_position_restart, log_position_skip};

/// Records of one transaction at most, so that it stays well below the statement timeout.
pub(super) const RECORDS_PER_COMMIT: usize = 500;
/// Longest wait for records before the lag is told again.
pub(super) const POLL: Duration = Duration::from_millis(500);
/// Bound of one question to Kafka beside the tail's own.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What happens with the records.
pub trait Sink: Send + Sync + 'static {
    /// Stores what the records from `at` to `to` say and moves the position; false if it was not there.
    fn commit(
        &self,
        log: Log,
        at: Position,
        to: Reached,
        records: Vec<Record>,
    ) -> impl Future<Output = Result<bool, DbError>> + Send;
}

/// Why a feed cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// Kafka refuses, for good.
    #[error("read {log:?}: {source}")]
    Kafka {
        /// Which log.
        log: Log,
        /// Why.
        source: sluice_wire::Error,
    },
}

/// A reader of one partition.
pub struct LogFeed<S> {
    /// Which.
    pub log: Log,
    /// The cluster of the internal topics.
    pub kafka: Client,
    /// Where the position is kept.
    pub database: Database,
    /// Where records go.
    pub sink: Arc<S>,
    /// Told how it fares, under `component`.
    pub health: Health,
    /// The name in health.
    pub component: &'static str,
    /// Told the lag.
    pub metrics: Metrics,
}

impl<S> LogFeed<S> {
    /// The same for another partition.
    #[must_use]
    pub fn with_log(&self, log: Log) -> Self {
        Self {
            log,
            kafka: self.kafka.clone(),
            database: self.database.clone(),
            sink: Arc::clone(&self.sink),
            health: self.health.clone(),
            component: self.component,
            metrics: self.metrics.clone(),
        }
    }
}

/// Why reading from the loaded position ended.
pub(super) enum Ended {
    Shutdown,
    /// The position is elsewhere now.
    Reload,
}

impl<S: Sink> LogFeed<S> {
    /// Reads until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), FeedError> {
        loop {
            let Some(position) = self.position(&shutdown, Position::beginning).await? else { return Ok(()) };
            match self.read_from(position, &shutdown).await? {
                Ended::Shutdown => return Ok(()),
                Ended::Reload => {}
            }
        }
    }

    async fn read_from(&self, position: Position, shutdown: &CancellationToken) -> Result<Ended, FeedError> {
        let options = TailOptions {
            isolation: Isolation::ReadUncommitted,
            topic_id: Some(position.topic_id),
            last_epoch: position.epoch,
            ..TailOptions::default()
        };
        let mut next = position.next;
        let mut tail = LogTail::from_offset(self.kafka.clone(), self.log.topic, self.log.partition, next, options);
        loop {
            let batch = tokio::select! {
                () = shutdown.cancelled() => return Ok(Ended::Shutdown),
                batch = tail.next(POLL) => batch,
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(sluice_wire::Error::OffsetOutOfRange { .. }) => {
                    return Ok(self.skip_lost(Position { next, ..position }).await);
                }
                Err(sluice_wire::Error::LogTruncated { .. }) => {
                    return Ok(self.read_again(Position { next, ..position }, shutdown).await);
                }
                // The position is checked against the topic's id before reading goes on.
                Err(sluice_wire::Error::TopicReplaced { .. }) => return Ok(Ended::Reload),
                Err(source) => return Err(FeedError::Kafka { log: self.log.clone(), source }),
            };
            self.tell(&batch, None);
            let to = Reached { next: batch.position, epoch: tail.last_epoch() };
            let mut chunks = batch.records.chunks(RECORDS_PER_COMMIT).peekable();
            while let Some(chunk) = chunks.next() {
                let chunk_end = match (chunks.peek(), chunk.last()) {
                    // Leaders may have changed between here and the end.
                    (Some(_), Some(last)) => (last.offset + 1).into(),
                    _ => to,
                };
                if let Some(ended) = self.commit(Position { next, ..position }, chunk_end, chunk, shutdown).await {
                    return Ok(ended);
                }
                next = chunk_end.next;
            }
        }
    }

    async fn commit(
        &self,
        at: Position,
        to: Reached,
        records: &[Record],
        shutdown: &CancellationToken,
    ) -> Option<Ended> {
        let work = || {
            let (sink, log, records) = (Arc::clone(&self.sink), self.log.clone(), records.to_vec());
            async move { sink.commit(log, at, to, records).await }
        };
        self.store(at.next, work, shutdown).await
    }

    /// The next offset is not in the log: goes on where the log begins. Either what was to be read is gone, which is put on
    /// record, or the log ends before it and lost what was read already.
    async fn skip_lost(&self, at: Position) -> Ended {
        let (Some(start), Some(end)) = (self.listed(OffsetAt::Earliest).await, self.listed(OffsetAt::Latest).await)
        else {
            // Reading begins again from the stored position and comes back here.
            return Ended::Reload;
        };
        let stored = if start > at.next {
            tracing::error!(log = ?self.log, from = at.next, to = start, "records were gone before they were read");
            self.metrics.log_gaps.inc();
            log_position_skip(self.database.system(), &self.log, at, start).await.map(drop)
        } else if end < at.next {
            self.restart(at, Position { next: start, epoch: None, ..at }, "the log ends before what was read of it")
                .await
        } else {
            Ok(())
        };
        if let Err(error) = stored {
            tracing::info!(log = ?self.log, %error, "try again to store the position");
        }
        Ended::Reload
    }

    /// The log was cut off below the next offset and holds other records since, however far it has grown. Where it began to
    /// differ is known as an upper bound only, so all is read again. The position must be stored before reading goes on: the
    /// epoch of what was read may not be, and without it the other records would be taken for the ones that follow.
    async fn read_again(&self, at: Position, shutdown: &CancellationToken) -> Ended {
        let mut pause = PAUSE_MIN;
        loop {
            let failure = match self.listed(OffsetAt::Earliest).await {
                None => "find the beginning of a log that was cut off".to_owned(),
                Some(start) => {
                    let now = Position { next: start.min(at.next), epoch: None, ..at };
                    match self.restart(at, now, "the log was cut off below what was read of it").await {
                        Ok(()) => return Ended::Reload,
                        Err(error) => format!("begin a log again that was cut off: {error}"),
                    }
                }
            };
            tracing::info!(log = ?self.log, failure, "try again to store the position");
            self.health.set_component(self.component, ComponentStatus::failing(failure));
            if self.paused(&mut pause, shutdown).await {
                return Ended::Shutdown;
            }
        }
    }
}

impl<S> LogFeed<S> {
    /// The stored position, checked against the topic that is there; a topic that is another one is read from its `beginning`.
    /// Waits for Kafka and the database.
    pub(super) async fn position(
        &self,
        shutdown: &CancellationToken,
        beginning: impl Fn(KafkaTopicId) -> Position,
    ) -> Result<Option<Position>, FeedError> {
        let mut pause = PAUSE_MIN;
        loop {
            let failure = match self.kafka.topic(self.log.topic, KAFKA_TIMEOUT).await {
                Err(error @ sluice_wire::Error::Authentication { .. }) => {
                    return Err(FeedError::Kafka { log: self.log.clone(), source: error });
                }
                Err(error) => format!("find the topic {}: {error}", self.log.topic),
                Ok(topic) => {
                    let system = self.database.system();
                    match log_position_load(system, &self.log, topic.topic_id).await {
                        Ok(position) if position.topic_id == topic.topic_id => return Ok(Some(position)),
                        Ok(position) => {
                            let now = beginning(topic.topic_id);
                            match self.restart(position, now, "the log was made anew under its name").await {
                                Ok(()) => continue,
                                Err(error) => format!("begin the log again: {error}"),
                            }
                        }
                        Err(error) => format!("load the position: {error}"),
                    }
                }
            };
            self.health.set_component(self.component, ComponentStatus::failing(failure));
            if self.paused(&mut pause, shutdown).await {
                return Ok(None);
            }
        }
    }

    /// Commits until it is known to have worked, or the position is elsewhere than at `from`.
    pub(super) async fn store<F>(&self, from: i64, work: impl Fn() -> F, shutdown: &CancellationToken) -> Option<Ended>
    where
        F: Future<Output = Result<bool, DbError>> + Send + 'static,
    {
        let mut pause = PAUSE_MIN;
        loop {
            match self.database.run(work()).await {
                Ok(true) => return None,
                Ok(false) => {
                    tracing::warn!(log = ?self.log, from, "the position was moved by another reader; reloading");
                    self.metrics.reloads.inc();
                    return Some(Ended::Reload);
                }
                Err(error) => {
                    let detail = format!("store: {error}");
                    if error.is_unavailable() || matches!(error, DbError::Conflict(_)) {
                        tracing::info!(log = ?self.log, %error, "try again to store");
                    } else {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::error!(log = ?self.log, %error, cause, "storing fails; trying on");
                    }
                    self.health.set_component(self.component, ComponentStatus::failing(detail));
                    if self.paused(&mut pause, shutdown).await {
                        return Some(Ended::Shutdown);
                    }
                }
            }
        }
    }

    /// One end of the log; `None` if Kafka could not be asked.
    async fn listed(&self, at: OffsetAt) -> Option<i64> {
        let Log { topic, partition } = self.log;
        let listed = self.kafka.list_offset(topic, partition, at, Isolation::ReadUncommitted, KAFKA_TIMEOUT).await;
        listed.ok().and_then(|listed| listed.offset)
    }

    pub(super) async fn restart(&self, stored: Position, now: Position, why: &str) -> Result<(), DbError> {
        if log_position_restart(self.database.system(), &self.log, stored, now).await? {
            tracing::error!(
                log = ?self.log, read_to = stored.next, old = %stored.topic_id, new = %now.topic_id,
                "{why}; it is read from its beginning, and what was not read of the old one is missing"
            );
            self.metrics.logs_replaced.inc();
        }
        Ok(())
    }

    pub(super) fn tell(&self, batch: &TailBatch, waits_for: Option<&str>) {
        let labels = LogLabels { topic: self.log.topic, partition: self.log.partition };
        self.metrics.lag_records.get_or_create(&labels).set((batch.end_offset - batch.position).max(0));
        let status = match &batch.state {
            TailState::Reading => waits_for.map_or_else(|| ComponentStatus::ok("reading"), ComponentStatus::failing),
            TailState::Unavailable { error, .. } => ComponentStatus::failing(error.to_string()),
        };
        self.health.set_component(self.component, status);
    }

    /// Waits, longer each time; true when the shutdown came first.
    pub(super) async fn paused(&self, pause: &mut Duration, shutdown: &CancellationToken) -> bool {
        let now = std::mem::replace(pause, (*pause * 2).min(PAUSE_MAX));
        tokio::select! {
            () = shutdown.cancelled() => true,
            () = tokio::time::sleep(now) => false,
        }
    }
}
