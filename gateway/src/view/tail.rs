//! Follows `sluice.control` into the view.
//!
//! Start: a snapshot on disk is where reading goes on from, if its log is still the same one. The view can be served when it
//! has caught up with the log once; or from the snapshot alone, as soon as Kafka refuses or has been silent for a moment,
//! which health then says. So calls to a gateway that starts without Kafka are answered like calls to one that runs without. Later: every record goes into the tables at once; its offset counts as applied when what it put into service
//! can be served ([`TopicReadiness`]), which is waited for in tasks beside the reading.
//!
//! If the log turns out to be another one or to lack what comes next, it is read from its beginning beside the tables, which
//! are served on, and adopted when it is whole: read to its end, and said to be complete by the control plane. A new log
//! that is still being filled would take away what exists. Of a log that lost something it must be said again since: what was
//! said before stands in it still, while its last changes are gone, and what they ended would work again. The loss may have
//! been seen by nobody else, so heartbeats ask the control plane to compare and to say it ([`Applied::awaits_complete`]). The
//! first tables of a gateway without a snapshot wait for a complete log, too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message as _;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use sluice_proto::internal::control::v1::ControlRecord;
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::limits::TenantLimits;
use sluice_types::physical::{CONTROL_COMPLETE_KEY, CONTROL_TOPIC};
use sluice_wire::{Client, Error, KafkaTopicId, LogTail, OffsetAt, Record, TailBatch, TailOptions, TailState};

use crate::ports::TopicReadiness;
use crate::view::ResolvedTopic;
use crate::view::View;
use crate::view::applied::Applied;
use crate::view::freshness::{CUT_OFF_AFTER, Freshness};
use crate::view::index::{Change, Index, RecordError, WholeLog};
use crate::view::snapshot::{self, Snapshot};

/// How long a broker holds an empty poll; also how old the view of a healthy gateway gets.
const POLL_WAIT: Duration = Duration::from_millis(500);
/// Bytes per fetch.
const FETCH_BYTES: u32 = 4 << 20;
/// How long a topic may take to become servable; then its offset counts as applied all the same, or one dead partition
/// would hold back every tenant's changes.
const READY_WITHIN: Duration = Duration::from_millis(1500);
/// Topics made servable at the same time.
const READY_AT_ONCE: usize = 64;
/// A changed view is written to disk this often.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);
/// An unchanged one this often, so that its age stays small.
const SNAPSHOT_REFRESH: Duration = Duration::from_secs(3600);
/// How long a start waits for a silent Kafka before it serves from the snapshot; one that refuses is not waited for. Short,
/// because calls wait meanwhile and the shortest deadlines are below a second; long enough for a Kafka that is there.
const START_WAIT: Duration = Duration::from_millis(400);
/// How long a broker holds an empty poll until the view has caught up: a snapshot is often up to date.
const START_POLL_WAIT: Duration = Duration::from_millis(50);
/// Pause before the log is read again after an error that reading on cannot mend.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// What the reading needs and feeds.
pub struct Feed {
    /// Filled.
    pub view: Arc<View>,
    /// Told what is applied.
    pub applied: Applied,
    /// Told when the view can be served, and how old it is.
    pub freshness: Freshness,
    /// Asked before an offset counts.
    pub readiness: Arc<dyn TopicReadiness>,
    /// The cluster with `sluice.control`.
    pub client: Client,
    /// Says `control` and `kafka`.
    pub health: Health,
    /// Where the snapshot lives.
    pub data_dir: PathBuf,
    /// Limits of tenants that have none of their own.
    pub defaults: TenantLimits,
}

/// Where the reading stands.
struct Reading {
    tail: LogTail,
    /// The view's tables.
    index: Arc<Index>,
    /// What a log read from its beginning holds, until the tables adopt it.
    beside: Option<WholeLog>,
    /// The log says that all is in it.
    complete: bool,
    /// Which of the records that say so count.
    marker: Marker,
    /// The tables held all of it once. Before, they may lack even what is old: compaction moves it to its last change.
    whole: bool,
    readiness: JoinSet<()>,
    permits: Arc<Semaphore>,
    saved: Saved,
    /// A snapshot being written.
    saving: Option<JoinHandle<()>>,
    /// Running time without a successful fetch.
    cut_for: Duration,
    looked: Instant,
    as_of: Option<Instant>,
    began: Instant,
    from_snapshot: Option<SystemTime>,
}

impl Reading {
    /// How long to wait for records before looking around.
    fn poll_wait(&self) -> Duration {
        if self.from_snapshot.is_some() && self.began.elapsed() <= START_WAIT { START_POLL_WAIT } else { POLL_WAIT }
    }
}

/// Which record that says that the log is complete is believed: of a log that lost something only one that answers the wait
/// that began then, or was appended after all that was read of it before. Times are those of appending; the broker that leads
/// now may have an earlier clock than the one before, and a control plane of an older version answers no wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Marker {
    /// When the latest record was appended that was read.
    read_ms: i64,
    awaited: Option<Awaited>,
}

/// What a record must be to count.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Awaited {
    answers: String,
    or_after_ms: i64,
}

impl Marker {
    fn read(&mut self, record: &Record) {
        self.read_ms = self.read_ms.max(record.timestamp_ms);
    }

    /// The log lost something that was read: a new wait begins.
    fn lost(&mut self) {
        self.awaited = Some(Awaited { answers: Uuid::now_v7().simple().to_string(), or_after_ms: self.read_ms });
    }

    /// The wait, if there is one.
    fn wait(&self) -> Option<String> {
        self.awaited.as_ref().map(|awaited| awaited.answers.clone())
    }

    /// Whether this record says it of the log with this id.
    fn is_complete(&self, record: &Record, log: KafkaTopicId) -> bool {
        let said = record.value.as_ref().and_then(|value| ControlRecord::decode(value.clone()).ok());
        let Some(Resource::Complete(complete)) = said.and_then(|said| said.resource) else { return false };
        complete.control_topic_id == log.to_string()
            && self.awaited.as_ref().is_none_or(|awaited| {
                record.timestamp_ms > awaited.or_after_ms || complete.answers.contains(&awaited.answers)
            })
    }
}

/// What the disk holds.
struct Saved {
    offset: i64,
    at: Instant,
}

impl Feed {
    /// Reads until the shutdown, then writes a last snapshot.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut reading = self.start().await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                step = reading.tail.next(reading.poll_wait()) => match step {
                    Ok(batch) => self.step(&mut reading, batch),
                    Err(error) => {
                        tracing::warn!(%error, "the control log cannot be read on; reading it from its beginning");
                        tokio::time::sleep(RESTART_PAUSE).await;
                        if matches!(error, Error::LogTruncated { .. } | Error::OffsetOutOfRange { .. }) {
                            reading.marker.lost();
                        }
                        self.begin_again(&mut reading);
                    }
                },
            }
        }
        if let Some(saving) = reading.saving.take() {
            // It says itself how it went.
            let _ = saving.await;
        }
        self.save(&mut reading);
        if let Some(saving) = reading.saving.take() {
            let _ = saving.await;
        }
    }

    async fn start(&self) -> Reading {
        let dir = self.data_dir.clone();
        let read = tokio::task::spawn_blocking(move || snapshot::read(&dir, SystemTime::now())).await;
        let found = match read {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the snapshot is not used");
                None
            }
            Err(_) => None,
        };
        let now = Instant::now();
        let mut reading = Reading {
            tail: self.tail_from_beginning(),
            index: Arc::new(Index::new(self.defaults)),
            beside: None,
            complete: false,
            marker: Marker::default(),
            whole: false,
            readiness: JoinSet::new(),
            permits: Arc::new(Semaphore::new(READY_AT_ONCE)),
            saved: Saved { offset: -1, at: now },
            saving: None,
            cut_for: Duration::ZERO,
            looked: now,
            as_of: None,
            began: now,
            from_snapshot: None,
        };
        self.view.replace(Arc::clone(&reading.index));
        if let Some(found) = found {
            self.restore(&mut reading, found);
        }
        reading
    }

    fn restore(&self, reading: &mut Reading, found: Snapshot) {
        tracing::info!(offset = found.offset, records = found.records.len(), "view restored from its snapshot");
        self.applied.reset(found.topic_id);
        // Only a whole view is written.
        (reading.complete, reading.whole) = (true, true);
        for (uid, value) in found.records {
            match reading.index.apply_value(&uid, value) {
                Ok(Change::Serve(topic)) => self.make_ready(reading, topic, found.offset),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "record of the snapshot is kept unread"),
            }
        }
        self.applied.reached(found.offset + 1);
        reading.saved.offset = found.offset;
        reading.from_snapshot = Some(found.time);
        // All of the log up to then was read, by this gateway's clock.
        let read = found.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        reading.marker.read_ms = i64::try_from(read.as_millis()).unwrap_or_default();
        self.view.set_behind(true);
        let options =
            TailOptions { topic_id: Some(KafkaTopicId(found.topic_id)), poll_wait: START_POLL_WAIT, ..tail_options() };
        reading.tail = LogTail::from_offset(self.client.clone(), CONTROL_TOPIC, 0, found.offset + 1, options);
    }

    fn tail_from_beginning(&self) -> LogTail {
        LogTail::new(self.client.clone(), CONTROL_TOPIC, 0, OffsetAt::Earliest, tail_options())
    }

    /// Another log, or one that was cut off: what is held goes on being served until all was read. What is absent may exist,
    /// and no offset counts as applied: those of a log that was cut off come again for other records.
    fn begin_again(&self, reading: &mut Reading) {
        reading.tail = self.tail_from_beginning();
        reading.beside = Some(WholeLog::default());
        (reading.complete, reading.whole) = (false, false);
        reading.from_snapshot = None;
        reading.readiness.abort_all();
        self.view.set_behind(true);
        self.applied.read_again(reading.marker.wait());
    }

    fn step(&self, reading: &mut Reading, batch: TailBatch) {
        if let Some(id) = reading.tail.topic_id()
            && batch.as_of.is_some()
            && self.applied.topic_id() != id.0
        {
            self.applied.reset(id.0);
            // What was read was of another one, whose losses do not matter.
            reading.marker = Marker::default();
        }
        for record in &batch.records {
            self.apply(reading, record);
        }
        while reading.readiness.try_join_next().is_some() {}
        // Positions count only once the log was read: before, they are the snapshot's.
        if batch.as_of.is_some() && reading.beside.is_none() {
            self.applied.reached(batch.position);
        }
        if batch.is_caught_up() && reading.complete {
            self.caught_up(reading, &batch);
        }
        self.watch_age(reading, &batch);
        let offset = batch.position - 1;
        let since = reading.saved.at.elapsed();
        let due = if offset > reading.saved.offset { SNAPSHOT_EVERY } else { SNAPSHOT_REFRESH };
        if batch.is_caught_up() && since >= due {
            self.save(reading);
        }
    }

    fn apply(&self, reading: &mut Reading, record: &Record) {
        let Some(uid) = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) else { return };
        if uid == CONTROL_COMPLETE_KEY {
            // One that does not count takes nothing back.
            let said = || reading.marker.is_complete(record, KafkaTopicId(self.applied.topic_id()));
            reading.complete = record.value.is_some() && (reading.complete || said());
            reading.marker.read(record);
            return;
        }
        reading.marker.read(record);
        if let Some(beside) = &mut reading.beside {
            beside.see(uid, record.value.clone());
            return;
        }
        let change = match record.value.clone() {
            None => Ok(reading.index.remove(uid)),
            Some(value) => reading.index.apply_value(uid, value),
        };
        self.changed(reading, change, record.offset);
    }

    /// Does for a topic what a record did to the tables.
    fn changed(&self, reading: &mut Reading, change: Result<Change, RecordError>, offset: i64) {
        match change {
            Ok(Change::Serve(topic)) => self.make_ready(reading, topic, offset),
            Ok(Change::Forget(topic)) => self.readiness.forget(&topic.physical),
            Ok(Change::None) => {}
            Err(error) => tracing::error!(%error, offset, "control record kept unread"),
        }
    }

    /// Holds the offset until the topic can be served, or the time for it is over.
    fn make_ready(&self, reading: &mut Reading, topic: Arc<ResolvedTopic>, offset: i64) {
        let hold = self.applied.hold(offset);
        let readiness = Arc::clone(&self.readiness);
        let permits = Arc::clone(&reading.permits);
        reading.readiness.spawn(async move {
            let _hold = hold;
            let Ok(_permit) = permits.acquire_owned().await else { return };
            let ready = readiness.ready(&topic.physical, topic.partitions);
            if tokio::time::timeout(READY_WITHIN, ready).await != Ok(true) {
                tracing::warn!(topic = ?topic.physical, "topic is not servable yet");
            }
        });
    }

    fn caught_up(&self, reading: &mut Reading, batch: &TailBatch) {
        if let Some(log) = reading.beside.take() {
            reading.marker.awaited = None;
            self.applied.complete();
            let (changes, errors) = reading.index.adopt(log);
            let changes = changes.into_iter().map(Ok).chain(errors.into_iter().map(Err));
            changes.for_each(|change| self.changed(reading, change, batch.position - 1));
            self.applied.reached(batch.position);
            tracing::info!(resources = reading.index.len(), "the view is what the control log says now");
        }
        if reading.from_snapshot.take().is_some() {
            let options = TailOptions { topic_id: reading.tail.topic_id(), ..tail_options() };
            reading.tail = LogTail::from_offset(self.client.clone(), CONTROL_TOPIC, 0, batch.position, options);
        }
        reading.whole = true;
        if let Some(as_of) = batch.as_of {
            self.freshness.seen(as_of);
        }
        self.view.set_behind(false);
        self.freshness.set_servable();
    }

    /// Counts the time without a successful fetch; a stop of the whole process does not count.
    fn watch_age(&self, reading: &mut Reading, batch: &TailBatch) {
        let elapsed = reading.looked.elapsed().min(2 * POLL_WAIT);
        reading.looked = Instant::now();
        if batch.as_of > reading.as_of {
            reading.as_of = batch.as_of;
            reading.cut_for = Duration::ZERO;
        } else {
            reading.cut_for += elapsed;
        }
        let away = match &batch.state {
            TailState::Reading => None,
            TailState::Unavailable { error, .. } => Some(error.to_string()),
        };
        self.health.set_component(
            "kafka",
            match &away {
                None if reading.cut_for <= CUT_OFF_AFTER => ComponentStatus::ok("answers"),
                None => ComponentStatus::failing("does not answer"),
                Some(error) => ComponentStatus::failing(error.clone()),
            },
        );
        let without_kafka = away.is_some() || reading.began.elapsed() > START_WAIT;
        let served_from_disk = reading.from_snapshot.filter(|_| without_kafka);
        if served_from_disk.is_some() {
            self.freshness.set_servable();
        }
        self.health.set_component("control", control_status(reading, batch, served_from_disk));
    }

    /// Has the view written to disk, beside the reading; a failure is a warning, since serving does not need the file. What
    /// is applied while it is written may be in it, too: read again, it changes nothing.
    fn save(&self, reading: &mut Reading) {
        let Some(offset) = reading.tail.position().map(|position| position - 1).filter(|offset| *offset >= 0) else {
            return;
        };
        if !reading.whole
            || reading.as_of.is_none()
            || reading.saving.as_ref().is_some_and(|saving| !saving.is_finished())
        {
            return;
        }
        let age = reading.as_of.map_or(Duration::ZERO, |as_of| as_of.elapsed());
        let now = SystemTime::now();
        let (topic_id, time) = (self.applied.topic_id(), now.checked_sub(age).unwrap_or(now));
        let (index, dir) = (Arc::clone(&reading.index), self.data_dir.clone());
        reading.saving = Some(tokio::task::spawn_blocking(move || {
            let snapshot = Snapshot { topic_id, offset, time, records: index.values() };
            if let Err(error) = snapshot::write(&dir, &snapshot) {
                tracing::warn!(error = &error as &dyn std::error::Error, "snapshot not written");
            }
        }));
        reading.saved = Saved { offset, at: Instant::now() };
    }
}

fn tail_options() -> TailOptions {
    TailOptions { max_bytes: FETCH_BYTES, poll_wait: POLL_WAIT, ..TailOptions::default() }
}

fn control_status(reading: &Reading, batch: &TailBatch, from_disk: Option<SystemTime>) -> ComponentStatus {
    match from_disk {
        Some(time) => {
            let age = time.elapsed().unwrap_or_default().as_secs();
            ComponentStatus::failing(format!("served from a snapshot {age} s old; the control log cannot be read"))
        }
        None if reading.as_of.is_none() => ComponentStatus::failing("the control log was not read yet"),
        None if reading.cut_for > CUT_OFF_AFTER => {
            ComponentStatus::failing(format!("cut off for {} s; serving from memory", reading.cut_for.as_secs()))
        }
        None if !batch.is_caught_up() => ComponentStatus::ok("catching up"),
        None if !reading.complete => ComponentStatus::failing(match reading.beside {
            Some(_) => "the control log is a new one and not complete yet; serving from memory",
            None => "the control log is not complete yet; waiting for the control plane",
        }),
        None => ComponentStatus::ok("follows the control log"),
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::internal::control::v1::LogComplete;
    use sluice_wire::TimestampType;

    use super::*;

    const LOG: KafkaTopicId = KafkaTopicId([7; 16]);

    fn said_of(log: KafkaTopicId, timestamp_ms: i64) -> Record {
        answering(Vec::new(), log, timestamp_ms)
    }

    fn answering(answers: Vec<String>, log: KafkaTopicId, timestamp_ms: i64) -> Record {
        let complete = LogComplete { resources: 1, control_topic_id: log.to_string(), answers };
        let record = ControlRecord { resource: Some(Resource::Complete(complete)), ..ControlRecord::default() };
        Record {
            offset: 0,
            timestamp_ms,
            timestamp_type: TimestampType::LogAppendTime,
            key: Some(CONTROL_COMPLETE_KEY.into()),
            value: Some(record.encode_to_vec().into()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_log_that_lost_something_is_complete_when_that_is_said_again() {
        let mut marker = Marker::default();
        assert!(marker.is_complete(&said_of(LOG, 5), LOG));
        assert!(!marker.is_complete(&said_of(KafkaTopicId([8; 16]), 5), LOG), "said of another log");
        assert!(!marker.is_complete(&Record { value: None, ..said_of(LOG, 5) }, LOG));
        marker.read(&said_of(LOG, 5));
        marker.read(&Record { key: None, ..said_of(LOG, 9) });
        marker.lost();
        assert!(!marker.is_complete(&said_of(LOG, 5), LOG), "it was said before the loss");
        // What is read again is not later than what was lost.
        marker.read(&said_of(LOG, 5));
        assert!(!marker.is_complete(&said_of(LOG, 9), LOG));
        assert!(marker.is_complete(&said_of(LOG, 10), LOG));
    }

    #[test]
    fn an_answer_to_the_wait_counts_by_any_clock() {
        let mut marker = Marker::default();
        marker.read(&Record { key: None, ..said_of(LOG, 9) });
        marker.lost();
        let first = marker.wait().expect("a wait");
        let answer = |waits: &[&String], log| answering(waits.iter().map(|wait| (*wait).clone()).collect(), log, 1);
        assert!(marker.is_complete(&answer(&[&"another".to_owned(), &first], LOG), LOG));
        assert!(!marker.is_complete(&answer(&[&first], KafkaTopicId([8; 16])), LOG), "said of another log");
        marker.lost();
        assert!(!marker.is_complete(&answer(&[&first], LOG), LOG), "what was lost since may be missing still");
        assert!(marker.is_complete(&answer(&[&marker.wait().expect("a wait")], LOG), LOG));
    }
}
