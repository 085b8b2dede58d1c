//! Follows `sluice.control` into the view.
//!
//! Start: a snapshot on disk is where reading goes on from, if its log is still the same one. The view can be served when it
//! has caught up with the log once; or from the snapshot alone, as soon as Kafka refuses or has been silent for a moment,
//! which health then says. So calls to a gateway that starts without Kafka are answered like calls to one that runs without. Later: every record goes into the tables at once; its offset counts as applied when what it put into service
//! can be served ([`TopicReadiness`]), which is waited for in tasks beside the reading. If the log turns out to be another one
//! or to lack what comes next, new tables are filled from its beginning and replace the old ones when they are complete.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost::Message;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use sluice_proto::internal::control::v1::ControlRecord;
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::limits::TenantLimits;
use sluice_types::physical::CONTROL_TOPIC;
use sluice_wire::{Client, LogTail, OffsetAt, Record, TailBatch, TailOptions, TailState, TopicId};

use crate::ports::{ResolvedTopic, TopicReadiness};
use crate::view::View;
use crate::view::applied::Applied;
use crate::view::freshness::{CUT_OFF_AFTER, Freshness};
use crate::view::index::{Change, Index};
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
    /// The tables being filled: the view's own, or new ones that will replace them.
    index: Arc<Index>,
    /// `index` is not the view's yet.
    fresh: bool,
    readiness: JoinSet<()>,
    permits: Arc<Semaphore>,
    saved: Saved,
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
                    Ok(batch) => self.step(&mut reading, batch).await,
                    Err(error) => {
                        tracing::warn!(%error, "the control log cannot be read on; reading it from its beginning");
                        tokio::time::sleep(RESTART_PAUSE).await;
                        self.begin_again(&mut reading);
                    }
                },
            }
        }
        self.save(&mut reading).await;
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
            fresh: false,
            readiness: JoinSet::new(),
            permits: Arc::new(Semaphore::new(READY_AT_ONCE)),
            saved: Saved { offset: -1, at: now },
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
        for record in &found.records {
            if let Ok(Change::Serve(topic)) = reading.index.apply((**record).clone()) {
                self.make_ready(reading, topic, found.offset);
            }
        }
        self.applied.reached(found.offset + 1);
        reading.saved.offset = found.offset;
        reading.from_snapshot = Some(found.time);
        self.view.set_behind(true);
        let options =
            TailOptions { topic_id: Some(TopicId(found.topic_id)), poll_wait: START_POLL_WAIT, ..tail_options() };
        reading.tail = LogTail::from_offset(self.client.clone(), CONTROL_TOPIC, 0, found.offset + 1, options);
    }

    fn tail_from_beginning(&self) -> LogTail {
        LogTail::new(self.client.clone(), CONTROL_TOPIC, 0, OffsetAt::Earliest, tail_options())
    }

    /// Another log, or a gap: what is held goes on being served until new tables are complete.
    fn begin_again(&self, reading: &mut Reading) {
        reading.tail = self.tail_from_beginning();
        reading.index = Arc::new(Index::new(self.defaults));
        reading.fresh = true;
        reading.from_snapshot = None;
        reading.readiness.abort_all();
    }

    async fn step(&self, reading: &mut Reading, batch: TailBatch) {
        if let Some(id) = reading.tail.topic_id()
            && batch.as_of.is_some()
            && self.applied.topic_id() != id.0
        {
            self.applied.reset(id.0);
        }
        for record in &batch.records {
            self.apply(reading, record);
        }
        while reading.readiness.try_join_next().is_some() {}
        // Positions count only once the log was read: before, they are the snapshot's.
        if batch.as_of.is_some() && !reading.fresh {
            self.applied.reached(batch.position);
        }
        if batch.is_caught_up() {
            self.caught_up(reading, &batch);
        }
        self.watch_age(reading, &batch);
        let offset = batch.position - 1;
        let since = reading.saved.at.elapsed();
        let due = if offset > reading.saved.offset { SNAPSHOT_EVERY } else { SNAPSHOT_REFRESH };
        if batch.is_caught_up() && since >= due {
            self.save(reading).await;
        }
    }

    fn apply(&self, reading: &mut Reading, record: &Record) {
        let change = match &record.value {
            None => {
                record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).map(|uid| reading.index.remove(uid))
            }
            Some(value) => match ControlRecord::decode(value.clone()) {
                Ok(decoded) => reading
                    .index
                    .apply(decoded)
                    .inspect_err(|error| tracing::error!(%error, offset = record.offset, "control record skipped"))
                    .ok(),
                Err(error) => {
                    tracing::error!(%error, offset = record.offset, "control record skipped");
                    None
                }
            },
        };
        match change {
            Some(Change::Serve(topic)) => self.make_ready(reading, topic, record.offset),
            Some(Change::Forget(topic)) => self.readiness.forget(&topic.physical),
            Some(Change::None) | None => {}
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
        if reading.fresh {
            self.view.replace(Arc::clone(&reading.index));
            reading.fresh = false;
            self.applied.reached(batch.position);
        }
        if reading.from_snapshot.take().is_some() {
            let options = TailOptions { topic_id: reading.tail.topic_id(), ..tail_options() };
            reading.tail = LogTail::from_offset(self.client.clone(), CONTROL_TOPIC, 0, batch.position, options);
        }
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

    /// Writes the view to disk; a failure is a warning, since serving does not need the file.
    async fn save(&self, reading: &mut Reading) {
        let Some(offset) = reading.tail.position().map(|position| position - 1).filter(|offset| *offset >= 0) else {
            return;
        };
        if reading.fresh || reading.as_of.is_none() {
            return;
        }
        let age = reading.as_of.map_or(Duration::ZERO, |as_of| as_of.elapsed());
        let now = SystemTime::now();
        let snapshot = Snapshot {
            topic_id: self.applied.topic_id(),
            offset,
            time: now.checked_sub(age).unwrap_or(now),
            records: reading.index.records(),
        };
        let dir = self.data_dir.clone();
        match tokio::task::spawn_blocking(move || snapshot::write(&dir, &snapshot)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "snapshot not written"),
            Err(error) => tracing::warn!(%error, "snapshot not written"),
        }
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
        None => ComponentStatus::ok("follows the control log"),
    }
}
