//! The reader: a tail of the log and what follows from its batches.

use std::time::Duration;

use sluice_types::physical::CONTROL_TOPIC;
use sluice_wire::{Client, Error, Isolation, KafkaTopicId, LogTail, OffsetAt, TailOptions};

use crate::change::Carried;
use crate::following::{Following, Step};
use crate::marker::Marker;

/// How to read.
#[derive(Debug, Clone)]
pub struct ReaderOptions {
    /// The topic. Everywhere but in tests it is `sluice.control`.
    pub topic: &'static str,
    /// Read this log only, and no other that comes under its name.
    pub log: Option<KafkaTopicId>,
    /// How long a broker holds an empty poll.
    pub poll_wait: Duration,
    /// Bytes per fetch.
    pub max_bytes: u32,
}

impl Default for ReaderOptions {
    /// `sluice.control`, whichever log it is, 500 ms, 1 MiB.
    fn default() -> Self {
        let TailOptions { max_bytes, poll_wait, .. } = TailOptions::default();
        Self { topic: CONTROL_TOPIC, log: None, poll_wait, max_bytes }
    }
}

/// Where somebody stopped reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// The log.
    pub log: KafkaTopicId,
    /// The offset to read next.
    pub next: i64,
    /// Leader epoch of the record before that, if known. Without it a log that lost its end and has grown again beyond `next`
    /// is taken for the one that was read.
    pub epoch: Option<i32>,
    /// Until when what was appended was read, in ms since 1970.
    pub read_ms: i64,
}

/// Why a reading ended that cannot go on where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The log lacks what was read of it, or what comes next.
    Lost,
    /// Another log has the name now.
    Replaced,
    /// What stands in the log cannot be read.
    Damaged,
}

impl Ending {
    /// What an error of [`Reader::next`] means.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::LogTruncated { .. } | Error::OffsetOutOfRange { .. } => Self::Lost,
            Error::TopicReplaced { .. } => Self::Replaced,
            _ => Self::Damaged,
        }
    }
}

/// Follows the log. [`Reader::next`] is cancel-safe.
pub struct Reader<T> {
    client: Client,
    options: ReaderOptions,
    tail: LogTail,
    following: Following<T>,
}

impl<T: Carried> Reader<T> {
    /// Reads from the beginning, for one who holds nothing yet: records are given out at once. Does no I/O yet.
    pub fn from_beginning(client: Client, options: ReaderOptions) -> Self {
        let tail = tail_from_beginning(&client, &options);
        let following = Following::new(options.log, Marker::default());
        Self { client, options, tail, following }
    }

    /// Reads on. Does no I/O yet.
    pub fn resume(client: Client, options: ReaderOptions, stand: Stand) -> Self {
        let tail = tail_from(&client, &options, Some(stand.log), stand.next, stand.epoch);
        let following = Following::new(Some(stand.log), Marker::after(stand.read_ms));
        Self { client, options, tail, following }
    }

    /// Reads a log anew from its beginning for one who holds something: all of it is given out at once when it is complete, by a
    /// record that was appended after this time. Does no I/O yet.
    pub fn anew(client: Client, options: ReaderOptions, after_ms: i64) -> Self {
        let mut reader = Self::from_beginning(client, options);
        reader.following.marker = Marker::after(after_ms);
        reader.following.begin_again(true);
        reader
    }

    /// What was read within `max_wait`; maybe nothing. An error ends this reading: see [`Ending`] and
    /// [`Reader::begin_again`].
    pub async fn next(&mut self, max_wait: Duration) -> Result<Step<T>, Error> {
        let batch = self.tail.next(max_wait).await?;
        Ok(self.following.take(self.tail.topic_id(), batch))
    }

    /// After an error: reads whichever log is there anew, from its beginning. What is held goes on being held until all was
    /// read. Gives the name of the wait for the log to be complete again, if there is one: who tells the control plane of it is
    /// answered soon, others within ten minutes.
    pub fn begin_again(&mut self, error: &Error) -> Option<&str> {
        self.tail = tail_from_beginning(&self.client, &self.options);
        self.following.begin_again(Ending::of(error) == Ending::Lost);
        self.following.marker.wait()
    }

    /// Sets how long a broker holds an empty poll. A poll under way is given up.
    pub fn set_poll_wait(&mut self, poll_wait: Duration) {
        self.options.poll_wait = poll_wait;
        if let Some(next) = self.tail.position() {
            self.tail = tail_from(&self.client, &self.options, self.tail.topic_id(), next, self.tail.last_epoch());
        }
    }

    /// Whether the log is read anew, and what was read of it is held back until it is complete.
    pub fn reads_anew(&self) -> bool {
        self.following.anew.is_some()
    }

    /// Whether the log says that it is complete.
    pub fn is_complete(&self) -> bool {
        self.following.complete.is_some()
    }

    /// The log begins at `start` now: if it said before that it is complete, it does not say so any more.
    pub fn lost_before(&mut self, start: i64) {
        self.following.lost_before(start);
    }

    /// The offset to read next; `None` until the beginning is found.
    pub fn position(&self) -> Option<i64> {
        self.tail.position()
    }

    /// Leader epoch of the record before that, if known; see [`Stand::epoch`].
    pub fn epoch(&self) -> Option<i32> {
        self.tail.last_epoch()
    }

    /// The log that is read; `None` until it is known.
    pub fn log(&self) -> Option<KafkaTopicId> {
        self.following.log
    }

    /// When the latest record was appended that was read, in ms since 1970.
    pub fn read_ms(&self) -> i64 {
        self.following.marker.read_ms()
    }

    /// It is known from elsewhere that the log said that it is complete: what is held is whole.
    pub fn assume_complete(&mut self) {
        self.following.complete = Some(-1);
    }
}

fn tail_from_beginning(client: &Client, options: &ReaderOptions) -> LogTail {
    LogTail::new(client.clone(), options.topic, 0, OffsetAt::Earliest, tail_options(options, options.log))
}

fn tail_from(
    client: &Client,
    options: &ReaderOptions,
    log: Option<KafkaTopicId>,
    next: i64,
    epoch: Option<i32>,
) -> LogTail {
    let options_at = TailOptions { last_epoch: epoch, ..tail_options(options, log) };
    LogTail::from_offset(client.clone(), options.topic, 0, next, options_at)
}

/// Nobody writes to the log in transactions: all that is there is to be seen.
fn tail_options(options: &ReaderOptions, log: Option<KafkaTopicId>) -> TailOptions {
    TailOptions {
        max_bytes: options.max_bytes,
        poll_wait: options.poll_wait,
        isolation: Isolation::ReadUncommitted,
        topic_id: log,
        last_epoch: None,
    }
}
