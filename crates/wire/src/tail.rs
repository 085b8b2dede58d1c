//! Following one partition as a log: the control log, the members, the usage.
//!
//! Keeps reading whatever brokers do: while Kafka is away it tries again at short intervals and says so in the
//! batch's state, so within a second after Kafka is back it reads on. It ends only for what a log reader cannot
//! mend alone: the offset is gone, the log was cut off below it, the topic is another one, the records are damaged,
//! access is refused.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::batch::decode::decode;
use crate::batch::record::Record;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::fetch::{FetchLane, FetchRequest, Fetched, OwnLane};
use crate::offsets::OffsetAt;
use crate::types::{Isolation, KafkaTopicId};

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(250);
/// Pause after a refusal that only an operator's act can end (missing topic, missing right).
const BACKOFF_REFUSED: Duration = Duration::from_millis(500);
/// Bytes per fetch are never raised beyond this.
const MAX_BYTES_CEILING: u32 = 64 * 1024 * 1024;
/// Bound of one question for an offset or metadata while starting.
const START_TIMEOUT: Duration = Duration::from_secs(2);

/// How to read.
#[derive(Debug, Clone)]
pub struct TailOptions {
    /// Bytes per fetch; a larger first batch still comes whole.
    pub max_bytes: u32,
    /// How long a broker holds an empty poll.
    pub poll_wait: Duration,
    /// Which records are seen.
    pub isolation: Isolation,
    /// The topic's id if known; otherwise the first one read is kept to.
    pub topic_id: Option<KafkaTopicId>,
    /// Leader epoch of the record before the offset to begin at, if known. A log that was cut off below that offset since and
    /// has grown again is then [`Error::LogTruncated`], and not read on as if nothing had happened.
    pub last_epoch: Option<i32>,
}

impl Default for TailOptions {
    /// 1 MiB, 500 ms, committed.
    fn default() -> Self {
        Self {
            max_bytes: 1024 * 1024,
            poll_wait: Duration::from_millis(500),
            isolation: Isolation::ReadCommitted,
            topic_id: None,
            last_epoch: None,
        }
    }
}

/// Whether the log can be read now.
#[derive(Debug, Clone)]
pub enum TailState {
    /// The last fetch succeeded.
    Reading,
    /// Kafka, or this partition, is away since then; the tail keeps trying.
    Unavailable {
        /// When the first of these failures came.
        since: Instant,
        /// The latest failure.
        error: Error,
    },
}

/// What one [`LogTail::next`] gives.
#[derive(Debug, Clone)]
pub struct TailBatch {
    /// Records in order; empty if none came within the wait.
    pub records: Vec<Record>,
    /// Offset to read next; moves past filtered records, too.
    pub position: i64,
    /// Offset after the last record that can be read now, as of the last successful fetch; -1 before the first.
    pub end_offset: i64,
    /// First offset still in the log; -1 before the first fetch.
    pub log_start_offset: i64,
    /// When the last successful fetch was sent: all that the log held then is known. `None` before the first.
    pub as_of: Option<Instant>,
    /// Whether the log can be read.
    pub state: TailState,
}

impl TailBatch {
    /// True once everything that was in the log at the last fetch has been given out.
    pub fn is_caught_up(&self) -> bool {
        self.end_offset >= 0 && self.position >= self.end_offset && matches!(self.state, TailState::Reading)
    }
}

/// A reader of one partition. [`LogTail::next`] is cancel-safe: a poll under way is kept for the next call.
pub struct LogTail {
    client: Client,
    topic: String,
    partition: i32,
    options: TailOptions,
    start: OffsetAt,
    /// `None` until the start is resolved.
    position: Option<i64>,
    /// Leader epoch of the record before the position, once one was read.
    last_epoch: Option<i32>,
    end_offset: i64,
    log_start_offset: i64,
    as_of: Option<Instant>,
    failing_since: Option<Instant>,
    last_error: Option<Error>,
    backoff: Duration,
    poll: Option<BoxFuture<'static, Result<Progress>>>,
    lane: OwnLane,
}

enum Progress {
    Start(i64),
    Fetched { from: i64, asked: Instant, fetched: Fetched },
}

impl LogTail {
    /// Reads from an offset on. Does no I/O yet.
    pub fn from_offset(
        client: Client,
        topic: impl Into<String>,
        partition: i32,
        offset: i64,
        options: TailOptions,
    ) -> Self {
        let last_epoch = options.last_epoch;
        let tail = Self::new(client, topic, partition, OffsetAt::Earliest, options);
        Self { position: Some(offset), last_epoch, ..tail }
    }

    /// Reads from where the log begins, ends, or was at a time; resolved at the first success. Does no I/O yet.
    pub fn new(
        client: Client,
        topic: impl Into<String>,
        partition: i32,
        start: OffsetAt,
        options: TailOptions,
    ) -> Self {
        let lane = client.own_lane();
        Self {
            client,
            topic: topic.into(),
            partition,
            options,
            start,
            position: None,
            last_epoch: None,
            end_offset: -1,
            log_start_offset: -1,
            as_of: None,
            failing_since: None,
            last_error: None,
            backoff: BACKOFF_MIN,
            poll: None,
            lane,
        }
    }

    /// Offset to be read next; `None` until the start is resolved.
    pub fn position(&self) -> Option<i64> {
        self.position
    }

    /// Leader epoch of the record before [`LogTail::position`], if known: what [`TailOptions::last_epoch`] needs to read on.
    pub fn last_epoch(&self) -> Option<i32> {
        self.last_epoch
    }

    /// Id of the topic being read, once known.
    pub fn topic_id(&self) -> Option<KafkaTopicId> {
        self.options.topic_id
    }

    /// The next records, or an empty batch after `max_wait`. Errors are final for this tail.
    pub async fn next(&mut self, max_wait: Duration) -> Result<TailBatch> {
        let until = Instant::now() + max_wait;
        loop {
            if self.poll.is_none() {
                self.poll = Some(self.begin());
            }
            let Some(poll) = self.poll.as_mut() else { continue };
            let Ok(done) = tokio::time::timeout_at(until, poll).await else {
                return Ok(self.batch(Vec::new()));
            };
            self.poll = None;
            match done.and_then(|progress| self.advance(progress)) {
                Ok(records) if records.is_empty() && Instant::now() < until => {}
                Ok(records) => return Ok(self.batch(records)),
                Err(error) => self.note_failure(error)?,
            }
        }
    }

    /// The next step towards records, after a pause if the last one failed.
    fn begin(&self) -> BoxFuture<'static, Result<Progress>> {
        let client = self.client.clone();
        let pause = self.failing_since.map(|_| self.backoff);
        let lane = self.lane.number;
        let (topic, partition, start) = (self.topic.clone(), self.partition, self.start);
        let (isolation, position) = (self.options.isolation, self.position);
        let request = self.request();
        let timeout = self.options.poll_wait + client.inner.config.request_timeout;
        async move {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            match position {
                None => resolve(&client, &topic, partition, start, isolation).await.map(Progress::Start),
                Some(from) => {
                    let asked = Instant::now();
                    let deadline = Deadline::after(timeout);
                    let fetched = client.fetch_on(request, FetchLane::Own(lane), Duration::ZERO, deadline).await?;
                    Ok(Progress::Fetched { from, asked, fetched })
                }
            }
        }
        .boxed()
    }

    fn request(&self) -> FetchRequest {
        FetchRequest {
            topic: self.topic.clone(),
            topic_id: self.options.topic_id,
            partition: self.partition,
            offset: self.position.unwrap_or(0),
            last_epoch: self.last_epoch,
            max_bytes: self.options.max_bytes,
            min_bytes: 1,
            max_wait: self.options.poll_wait,
            isolation: self.options.isolation,
        }
    }

    fn advance(&mut self, progress: Progress) -> Result<Vec<Record>> {
        let records = match progress {
            Progress::Start(offset) => {
                self.position = Some(offset);
                Vec::new()
            }
            Progress::Fetched { from, asked, fetched } => {
                let decoded = decode(&fetched.batches, from, &fetched.aborted)?;
                if decoded.truncated && decoded.next_offset == from {
                    // Brokers send the first batch whole, so this should not come; ask for more if it does.
                    self.options.max_bytes = self.options.max_bytes.saturating_mul(2).min(MAX_BYTES_CEILING);
                }
                self.options.topic_id = Some(fetched.topic_id);
                self.last_epoch = decoded.epochs.last().map(|last| last.epoch).or(self.last_epoch);
                self.position = Some(decoded.next_offset);
                self.as_of = Some(asked);
                self.log_start_offset = fetched.log_start_offset;
                self.end_offset = match self.options.isolation {
                    Isolation::ReadCommitted => fetched.last_stable_offset,
                    Isolation::ReadUncommitted => fetched.high_watermark,
                };
                decoded.records
            }
        };
        if self.failing_since.take().is_some() {
            tracing::info!(topic = %self.topic, partition = self.partition, "log can be read again");
        }
        self.last_error = None;
        self.backoff = BACKOFF_MIN;
        Ok(records)
    }

    fn note_failure(&mut self, error: Error) -> Result<()> {
        let is_final = matches!(
            error,
            Error::OffsetOutOfRange { .. }
                | Error::LogTruncated { .. }
                | Error::TopicReplaced { .. }
                | Error::Decode(_)
        );
        if is_final {
            return Err(error);
        }
        if self.failing_since.is_none() {
            tracing::warn!(topic = %self.topic, partition = self.partition, %error, "log cannot be read; trying on");
            self.failing_since = Some(Instant::now());
        }
        let refused = !error.is_retriable();
        self.backoff = if refused { BACKOFF_REFUSED } else { (self.backoff * 2).min(BACKOFF_MAX) };
        self.last_error = Some(error);
        Ok(())
    }

    fn batch(&self, records: Vec<Record>) -> TailBatch {
        let state = match (self.failing_since, &self.last_error) {
            (Some(since), Some(error)) => TailState::Unavailable { since, error: error.clone() },
            _ => TailState::Reading,
        };
        TailBatch {
            records,
            position: self.position.unwrap_or(-1),
            end_offset: self.end_offset,
            log_start_offset: self.log_start_offset,
            as_of: self.as_of,
            state,
        }
    }
}

/// Turns the place to start at into an offset.
async fn resolve(client: &Client, topic: &str, partition: i32, start: OffsetAt, isolation: Isolation) -> Result<i64> {
    let listed = client.list_offset(topic, partition, start, isolation, START_TIMEOUT).await?;
    match listed.offset {
        Some(offset) => Ok(offset),
        // Nothing is as young as the time asked for: begin at the end.
        None => {
            let end = client.list_offset(topic, partition, OffsetAt::Latest, isolation, START_TIMEOUT).await?;
            end.offset.ok_or_else(|| Error::Protocol("broker tells no end offset".to_owned()))
        }
    }
}
