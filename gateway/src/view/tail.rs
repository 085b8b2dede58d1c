//! Follows `sluice.control` into the view.
//!
//! Start: a snapshot on disk is where reading goes on from, if its log is still the same one. The view can be served when it
//! has caught up with the log once; or from the snapshot alone, as soon as Kafka refuses or has been silent for a moment,
//! which health then says. So calls to a gateway that starts without Kafka are answered like calls to one that runs without. Later: every record goes into the tables at once; its offset counts as applied when what it put into service
//! can be served ([`Clusters::ready`]), which is waited for in tasks beside the reading.
//!
//! If the log turns out to be another one or to lack what comes next, the [`Reader`] reads it from its beginning beside the
//! tables, which are served on, and they adopt it when it is whole. The loss may have been seen by nobody else, so heartbeats
//! ask the control plane to compare and to say that the log is complete ([`Applied::awaits_complete`]). The first tables of a
//! gateway without a snapshot wait for a complete log, too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use sluice_control_log::{Reader, ReaderOptions, Stand, Step};
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::limits::TenantLimits;
use sluice_wire::{Client, Error, KafkaTopicId, TailBatch, TailState};

use crate::clusters::Clusters;
use crate::view::ResolvedTopic;
use crate::view::View;
use crate::view::applied::Applied;
use crate::view::freshness::{CUT_OFF_AFTER, Freshness};
use crate::view::index::{Change, Index, RecordError, Value};
use crate::view::snapshot::{self, Snapshot};

/// How long a broker holds an empty poll; also how old the view of a healthy gateway gets.
const POLL_WAIT: Duration = Duration::from_millis(500);
/// Bytes per fetch.
const FETCH_BYTES: u32 = 4 << 20;
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
    pub clusters: Clusters,
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
    reader: Reader<Value>,
    /// The view's tables.
    index: Arc<Index>,
    /// The tables held all of it once. Before, they may lack even what is old: compaction moves it to its last change.
    whole: bool,
    readiness: JoinSet<()>,
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
                step = next(&mut reading) => match step {
                    Ok(step) => self.step(&mut reading, step),
                    Err(error) => {
                        tracing::warn!(%error, "the control log cannot be read on; reading it from its beginning");
                        tokio::time::sleep(RESTART_PAUSE).await;
                        self.begin_again(&mut reading, &error);
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
            reader: Reader::from_beginning(self.client.clone(), reader_options()),
            index: Arc::new(Index::new(self.defaults, self.clusters.served())),
            whole: false,
            readiness: JoinSet::new(),
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
        for (uid, value) in found.records {
            match reading.index.apply_value(&uid, value.into()) {
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
        let read_ms = i64::try_from(read.as_millis()).unwrap_or_default();
        self.view.set_behind(true);
        let stand = Stand { log: KafkaTopicId(found.topic_id), next: found.offset + 1, read_ms };
        let options = ReaderOptions { poll_wait: START_POLL_WAIT, ..reader_options() };
        reading.reader = Reader::resume(self.client.clone(), options, stand);
        // Only a whole view is written.
        reading.reader.assume_complete();
        reading.whole = true;
    }

    /// Another log, or one that was cut off: what is held goes on being served until all was read. What is absent may exist,
    /// and no offset counts as applied: those of a log that was cut off come again for other records.
    fn begin_again(&self, reading: &mut Reading, error: &Error) {
        reading.reader.set_poll_wait(POLL_WAIT);
        let wait = reading.reader.begin_again(error).map(str::to_owned);
        reading.whole = false;
        reading.from_snapshot = None;
        reading.readiness.abort_all();
        self.view.set_behind(true);
        self.applied.read_again(wait);
    }

    fn step(&self, reading: &mut Reading, step: Step<Value>) {
        let Step { new_log, changes, whole, batch } = step;
        if let Some(id) = new_log {
            self.applied.reset(id.0);
        }
        for change in changes {
            let applied = match change.now {
                None => Ok(reading.index.remove(&change.uid)),
                Some(value) => reading.index.apply_value(&change.uid, value),
            };
            self.changed(reading, applied, change.offset);
        }
        while reading.readiness.try_join_next().is_some() {}
        if let Some(log) = whole {
            self.applied.complete();
            let (changes, errors) = reading.index.adopt(log);
            let changes = changes.into_iter().map(Ok).chain(errors.into_iter().map(Err));
            changes.for_each(|change| self.changed(reading, change, batch.position - 1));
            tracing::info!(resources = reading.index.len(), "the view is what the control log says now");
        }
        // Positions count only once the log was read: before, they are the snapshot's.
        if batch.as_of.is_some() && !reading.reader.reads_anew() {
            self.applied.reached(batch.position);
        }
        if batch.is_caught_up() && reading.reader.is_complete() {
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

    /// Does for a topic what a record did to the tables.
    fn changed(&self, reading: &mut Reading, change: Result<Change, RecordError>, offset: i64) {
        match change {
            Ok(Change::Serve(topic)) => self.make_ready(reading, topic, offset),
            Ok(Change::Forget(topic)) => self.clusters.forget(&topic),
            Ok(Change::None) => {}
            Err(error) => tracing::error!(%error, offset, "control record kept unread"),
        }
    }

    /// Holds the offset until the topic can be served, or the time for it is over: then it counts as applied all the same.
    fn make_ready(&self, reading: &mut Reading, topic: Arc<ResolvedTopic>, offset: i64) {
        let hold = self.applied.hold(offset);
        let clusters = self.clusters.clone();
        reading.readiness.spawn(async move {
            let _hold = hold;
            if !clusters.ready(&topic).await {
                let cluster = topic.placement.appends().0;
                tracing::warn!(topic = %topic.topic_uid, %cluster, "topic is not servable yet");
            }
        });
    }

    fn caught_up(&self, reading: &mut Reading, batch: &TailBatch) {
        if reading.from_snapshot.take().is_some() {
            reading.reader.set_poll_wait(POLL_WAIT);
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
        let Some(offset) = reading.reader.position().map(|position| position - 1).filter(|offset| *offset >= 0) else {
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

async fn next(reading: &mut Reading) -> Result<Step<Value>, Error> {
    let wait = reading.poll_wait();
    reading.reader.next(wait).await
}

fn reader_options() -> ReaderOptions {
    ReaderOptions { max_bytes: FETCH_BYTES, poll_wait: POLL_WAIT, ..ReaderOptions::default() }
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
        None if !reading.reader.is_complete() => ComponentStatus::failing(match reading.reader.reads_anew() {
            true => "the control log is a new one and not complete yet; serving from memory",
            false => "the control log is not complete yet; waiting for the control plane",
        }),
        None => ComponentStatus::ok("follows the control log"),
    }
}
