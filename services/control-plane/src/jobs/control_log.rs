//! Keeps `sluice.control` and the database agreed, both ways.
//!
//! Publishing alone cannot: two relays can leave an older state behind a newer one, which compaction would keep; a log can be
//! cut off or made anew; a database can be restored from a backup that knows less than the log. So the log is read back and
//! compared with the newest state of everything in the outbox: at the start, after each reconnection to the database, when
//! the log turns out to be another one, and regularly, by a log that is read anew ([`READ_AGAIN_EVERY`]). The database is
//! right:
//!
//! - what the log lacks is published again;
//! - what readers hold in a higher version, or otherwise in the same, is published above that version;
//! - what is in service in the log and unknown to the database is reported, or ended if the operator chose so
//!   ([`Unknown`]): the database may be the wrong one.
//!
//! Until the first comparison is done nothing is published, so a change cannot be told to hold where it was dropped. When all
//! stands in the log, a record says so; gateways do not take a log for whole before. It is said again each time that the log
//! turned out to have lost something, and with each regular reading: a gateway may have seen a loss that nobody here saw. It
//! tells so in its heartbeats, and then the log is read anew at once ([`Answers`]).

mod answers;
mod compare;
mod log_state;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use prost::Message as _;
use sluice_control_log::{Carried, Ending, Reader, ReaderOptions, Step};
use sluice_db::{DbError, SystemTx};
use sluice_proto::internal::control::v1::ControlRecord;
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::Uid;
use sluice_types::physical::{CONTROL_COMPLETE_KEY, CONTROL_TOPIC};
use sluice_wire::{Client, KafkaTopicId, OutRecord, TailBatch};
use tokio_util::sync::CancellationToken;

use self::answers::Answers;
use self::compare::{Found, MEND_AGAIN, Mends, Outcome, end, look, look_at, mend};
use self::log_state::{LogState, Said};
use crate::config::Unknown;
use crate::domain::record::complete;
use crate::plane::{Plane, SharedPlane};
use crate::store::comparison::replaced_rows_forget;
use crate::store::outbox::{control_log_get, control_log_set};

/// How long a broker holds an empty poll; a comparison waits for one or two.
const POLL: Duration = Duration::from_millis(200);
const AGAIN: Duration = Duration::from_secs(1);
/// How often all is read again and compared. At 300 bytes a resource and a million of them, half a megabyte a second.
const READ_AGAIN_EVERY: Duration = Duration::from_secs(600);
/// How soon again while something is on its way, at least; and how many times as long as a comparison takes.
const COMPARE_SOON: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 5;
const PRODUCE_WITHIN: Duration = Duration::from_secs(2);
const FORGET_ROWS: i64 = 5_000;
/// Uids of unknown resources in one line of the log.
const NAMED_MAX: usize = 10;

#[derive(Debug, thiserror::Error)]
enum AuditError {
    #[error("read or write the control log: {0}")]
    Kafka(#[from] sluice_wire::Error),
    #[error("compare the control log with the database: {0}")]
    Database(#[from] DbError),
}

impl AuditError {
    /// Whether the log does not hold any more what was read.
    fn is_loss(&self) -> bool {
        matches!(self, Self::Kafka(error) if Ending::of(error) == Ending::Lost)
    }
}

/// What is known from one reading of a log to the next.
#[derive(Debug, Default)]
struct Kept {
    mends: Mends,
    /// The waits that were heard of.
    waits: BTreeSet<String>,
    /// That the log is complete is to be said, also if it was said before.
    say: bool,
}

impl Kept {
    /// What was mended before may be lost again.
    fn after_a_loss() -> Self {
        Self { say: true, ..Self::default() }
    }
}

/// Reads until the shutdown.
pub(crate) async fn run(plane: SharedPlane, kafka: Client, health: Health, shutdown: CancellationToken) {
    let mut kept = (None, Kept::default());
    let follow = async {
        loop {
            let log = plane.revisions.log_ready().await;
            if kept.0 != Some(log) {
                kept = (Some(log), Kept::default());
            }
            let answers = Answers::begin(&plane.members, log);
            if !answers.ids().is_subset(&kept.1.waits) {
                kept.1 = Kept::after_a_loss();
            }
            kept.1.waits.clone_from(answers.ids());
            let Err(error) = Audit::begin(&plane, &kafka, &health, log, answers, &mut kept.1).follow().await else {
                kept.1.say = true;
                continue;
            };
            if error.is_loss() {
                kept.1 = Kept::after_a_loss();
            }
            tracing::debug!(%error, "reading the control log ended; beginning again");
            health.set_component("control_log", ComponentStatus::failing("the control log cannot be read back"));
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follow => {}
    }
}

/// The reading of one life of the log.
struct Audit<'a> {
    plane: &'a SharedPlane,
    kafka: &'a Client,
    health: &'a Health,
    kept: &'a mut Kept,
    log: KafkaTopicId,
    reader: Reader<Said>,
    state: LogState,
    answers: Answers,
    /// Until the log is known to be the one that was published to.
    adopted: bool,
    /// `None`: what was found is settled.
    compare_at: Option<Instant>,
    /// When what is behind is looked at.
    behind_at: Instant,
    read_again_at: Instant,
}

impl<'a> Audit<'a> {
    fn begin(
        plane: &'a SharedPlane,
        kafka: &'a Client,
        health: &'a Health,
        log: KafkaTopicId,
        answers: Answers,
        kept: &'a mut Kept,
    ) -> Self {
        let now = Instant::now();
        Self {
            plane,
            kafka,
            health,
            kept,
            log,
            reader: Reader::from_beginning(kafka.clone(), reader_options(log)),
            state: LogState::default(),
            answers,
            adopted: false,
            compare_at: Some(now),
            behind_at: now,
            read_again_at: now + READ_AGAIN_EVERY,
        }
    }

    /// Reads and compares until it is time to read it all again.
    async fn follow(mut self) -> Result<(), AuditError> {
        while Instant::now() < self.read_again_at && !self.answers.leave_out_one(&self.plane.members, self.log) {
            let batch = self.read().await?;
            if !batch.is_caught_up() {
                continue;
            }
            match self.caught_up(&batch).await {
                Ok(()) => {}
                // The reading goes on: the log is fine.
                Err(AuditError::Database(error)) => {
                    match error.is_unavailable() {
                        true => tracing::debug!(%error, "the comparison ended early; trying again"),
                        // Nothing is published until somebody has mended this.
                        false => {
                            let cause = std::error::Error::source(&error).map(ToString::to_string);
                            tracing::error!(%error, cause, "the control log cannot be compared; trying on");
                        }
                    }
                    self.report_failing("cannot be compared with the database");
                    self.compare_at = Some(Instant::now());
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads on.
    async fn read(&mut self) -> Result<TailBatch, AuditError> {
        let Step { changes, batch, .. } = self.reader.next(POLL).await?;
        self.reader.lost_before(batch.log_start_offset);
        if self.state.lost_before(batch.log_start_offset) {
            *self.kept = Kept::after_a_loss();
            self.compare_at = Some(Instant::now());
        }
        changes.into_iter().for_each(|change| self.state.see(change));
        Ok(batch)
    }

    fn report_failing(&self, failure: &'static str) {
        self.health.set_component("control_log", ComponentStatus::failing(failure));
    }

    async fn caught_up(&mut self, batch: &TailBatch) -> Result<(), AuditError> {
        if !self.adopted {
            self.adopt().await?;
            self.adopted = true;
        }
        let due = self.compare_at.is_some_and(|at| Instant::now() >= at);
        if due || self.plane.comparison.is_required() {
            self.compare(batch.position).await
        } else if self.state.is_behind() && Instant::now() >= self.behind_at {
            self.behind_at = Instant::now() + COMPARE_SOON;
            let found = look_at(self.plane, &self.state, &self.state.behind()).await?;
            self.mend(found).await.map(drop)
        } else {
            Ok(())
        }
    }

    /// When the log is a new one, offsets in the database mean nothing any more.
    async fn adopt(&mut self) -> Result<(), DbError> {
        let id = self.log.to_string();
        let known = with_tx(self.plane, |tx| Box::pin(control_log_get(tx))).await?;
        if known.as_ref() == Some(&id) {
            return Ok(());
        }
        if known.is_some() {
            tracing::warn!(log = id, "the control log is a new one; publishing all states to it");
            let mut from = Some(0);
            while let Some(first) = from {
                from = with_tx(self.plane, move |tx| Box::pin(replaced_rows_forget(tx, first, FORGET_ROWS))).await?;
            }
        }
        with_tx(self.plane, |tx| Box::pin(async move { control_log_set(tx, &id).await })).await
    }

    /// Compares everything, and lets publishing begin.
    async fn compare(&mut self, position: i64) -> Result<(), AuditError> {
        let (number, begun) = (self.plane.comparison.begin(), Instant::now());
        let found = look(self.plane, &self.state, position).await?;
        let outcome = self.mend(found).await?;
        self.plane.comparison.done(number);
        self.answers.compared();
        let unknown = self.unknown(&outcome.unknown).await?;
        let differing = outcome.mended + outcome.again + unknown.ended;
        let unsaid = self.kept.say || !self.reader.is_complete();
        // Whoever adopts a log in which something is missing or old takes away what exists, or brings back what ended.
        if unsaid && differing + outcome.stuck + outcome.waiting == 0 {
            self.say_complete().await?;
            self.kept.say = false;
        }
        let pause = match (differing, outcome.stuck) {
            (0, 0) => (unsaid && outcome.waiting > 0).then(|| COMPARE_SOON.max(begun.elapsed() * PAUSE_FACTOR)),
            (0, _) => Some(MEND_AGAIN),
            _ => Some(COMPARE_SOON.max(begun.elapsed() * PAUSE_FACTOR)),
        };
        self.compare_at = pause.map(|pause| Instant::now() + pause);
        self.tell(&outcome, unknown.left);
        Ok(())
    }

    /// Looks again at what was found once the log was read up to now, and mends what differs still.
    async fn mend(&mut self, found: Found) -> Result<Outcome, AuditError> {
        let looked = tokio::time::Instant::now();
        while !found.is_empty() {
            let batch = self.read().await?;
            if batch.is_caught_up() && batch.as_of.is_some_and(|as_of| as_of > looked) {
                break;
            }
        }
        let outcome = mend(self.plane, &self.state, found, &mut self.kept.mends).await?;
        self.kept.say |= outcome.lost > 0;
        if outcome.mended > 0 {
            tracing::warn!(
                resources = outcome.mended,
                "the control log and the database differed; publishing the database's state again"
            );
            self.plane.metrics.republished.inc_by(outcome.mended as u64);
            self.plane.wakes.outbox.wake();
        }
        Ok(outcome)
    }

    /// Does with resources that the database does not know what the operator chose.
    async fn unknown(&mut self, resources: &[Uid]) -> Result<UnknownLeft, AuditError> {
        if resources.is_empty() {
            return Ok(UnknownLeft { ended: 0, left: 0 });
        }
        let named: Vec<String> = resources.iter().take(NAMED_MAX).map(Uid::to_string).collect();
        tracing::warn!(
            resources = resources.len(), uids = ?named, policy = ?self.plane.settings.unknown,
            "resources are in service in the control log that the database does not know"
        );
        if self.plane.settings.unknown == Unknown::Report {
            return Ok(UnknownLeft { ended: 0, left: resources.len() });
        }
        let last = last_records(self.kafka, self.log, resources).await?;
        let ended = end(self.plane, &self.state, last).await?;
        self.plane.wakes.outbox.wake();
        Ok(UnknownLeft { ended, left: resources.len() - ended })
    }

    /// Tells readers that nothing is missing. The record is read back like any other.
    async fn say_complete(&mut self) -> Result<(), AuditError> {
        let record = complete(self.log, self.state.len(), self.answers.ids().iter().cloned().collect());
        let record = OutRecord {
            key: Some(CONTROL_COMPLETE_KEY.into()),
            value: Some(record.encode_to_vec().into()),
            headers: Vec::new(),
            timestamp_ms: crate::changes::key::now_us() / 1_000,
        };
        self.kafka.produce_batch(CONTROL_TOPIC, 0, &[record], PRODUCE_WITHIN).await?;
        tracing::info!(log = %self.log, "the control log is complete");
        Ok(())
    }

    fn tell(&self, outcome: &Outcome, unknown: usize) {
        self.plane.metrics.unknown_resources.set(i64::try_from(unknown).unwrap_or(i64::MAX));
        let unknown = match unknown {
            0 => ComponentStatus::ok("none"),
            unknown => ComponentStatus::failing(format!(
                "{unknown} resources are in service in the control log that the database does not know; if the database \
                 was restored from a backup, control_log.unknown = \"end\" ends them"
            )),
        };
        self.health.set_component("unknown_resources", unknown);
        let resources = self.state.len();
        let log = match outcome.stuck {
            0 => ComponentStatus::ok(format!("{resources} resources, compared with the database")),
            stuck => ComponentStatus::failing(format!(
                "{stuck} of {resources} resources differ from the database though they were published again"
            )),
        };
        self.health.set_component("control_log", log);
    }
}

struct UnknownLeft {
    ended: usize,
    left: usize,
}

fn reader_options(log: KafkaTopicId) -> ReaderOptions {
    ReaderOptions { log: Some(log), poll_wait: POLL, ..ReaderOptions::default() }
}

/// Runs work of the system in a transaction of its own.
async fn with_tx<T, F>(plane: &Plane, work: F) -> Result<T, DbError>
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut SystemTx) -> BoxFuture<'t, Result<T, DbError>> + Send + 'static,
{
    let system = plane.db.system().clone();
    let work = async move {
        let mut tx = system.begin().await?;
        let done = work(&mut tx).await?;
        tx.commit().await?;
        Ok::<_, DbError>(done)
    };
    plane.db.run(work).await
}

/// The last record of each of these, by reading the whole log: nobody keeps their contents, and this is rare.
async fn last_records(kafka: &Client, log: KafkaTopicId, resources: &[Uid]) -> Result<Vec<ControlRecord>, AuditError> {
    let mut last: HashMap<String, Option<ControlRecord>> =
        resources.iter().map(|uid| (uid.to_string(), None)).collect();
    let mut reader = Reader::<Record>::from_beginning(kafka.clone(), reader_options(log));
    loop {
        let Step { changes, batch, .. } = reader.next(POLL).await?;
        for change in changes {
            if let Some(held) = last.get_mut(&change.uid) {
                *held = change.now.map(|Record(record)| record);
            }
        }
        if batch.is_caught_up() {
            return Ok(last.into_values().flatten().collect());
        }
    }
}

/// The whole record.
struct Record(ControlRecord);

impl Carried for Record {
    fn read(_: &Bytes, record: Option<ControlRecord>) -> Option<Self> {
        record.map(Self)
    }
}
