//! Records whose attempts are over: into the dead-letter topic first, and only then done.
//!
//! The dead stay in the window until their letters are about to be written: then it is asked whether they are dead still, since a
//! reset, or a change of the policy, may have brought them back while their records were read. A dead letter that cannot be stored
//! stays in the window and is tried again; the status says so. If it is not known whether it was stored it is written again: rather
//! twice than never.
//!
//! A record that this group gave up before, and that comes to it again as the letter of another group, is given up without a further
//! letter: two groups that put their dead letters into each other's topics would write for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::join_all;
use tokio::time::Instant;

use sluice_kafka::{Batch, OnResolved, RecordOutcome, SinkRecord};
use sluice_proto::wkt::Timestamp;
use sluice_types::partitioner::partition_of;
use sluice_types::record::{client_headers, logical_bytes, producers_time_ms};
use sluice_wire::{Error, Record};

use crate::groups::dispatch::group::{Done, Group};
use crate::groups::dispatch::losing::Reading;
use crate::groups::dispatch::part::PartKey;
use crate::groups::dispatch::positions;
use crate::groups::dispatch::reading::{Place, Read, read};
use crate::groups::dispatch::shared::Shared;
use crate::groups::model::Start;
use crate::groups::window::{Dead, DeathReason};
use crate::metering::Meter;
use crate::ports::ResolvedTopic;

/// Dead letters written at once, and their bytes, save a single larger one.
const BATCH: usize = 100;
const BATCH_BYTES: u64 = 4 << 20;
const READ_BYTES: u32 = 256 << 10;
const PRODUCE_WITHIN: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The groups that gave a record up, oldest first: their uids with commas between.
const PATH: &str = "sluice-dlq-path";
const GROUP: &str = "sluice-dlq-group";
/// A record that so many groups gave up is given up without a further letter.
const PATH_MAX: usize = 16;

/// Dead records on their way.
#[derive(Default)]
pub(super) struct Burial {
    phase: Phase,
    retry_after: Option<Instant>,
    failures: u32,
    /// Why the last one failed.
    pub(super) trouble: Option<String>,
    /// The partition that comes first, if one batch cannot have a record of each.
    turn: usize,
    /// Records that were given up without a letter, because they came in a circle.
    pub(super) circled: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Resting,
    /// Their records are read.
    Reading,
    /// Their letters are written.
    Writing,
}

/// A dead record.
pub(super) struct Corpse {
    key: PartKey,
    term: u64,
    dead: Dead,
    place: Place,
    /// The tenants' name of its topic.
    topic: String,
}

/// A dead record, read again.
pub(super) struct Exhumed {
    corpse: Corpse,
    found: Result<Found, String>,
}

#[derive(Debug)]
enum Found {
    Record(Box<Record>),
    /// It is not in the log any more.
    Nothing,
    /// The log was cut off, at this offset: it is not the one that the record was in.
    CutOff(i64),
    /// The log ends before it, as a leader says that may merely lag.
    Beyond,
}

/// What became of a letter.
pub(super) struct Buried {
    key: PartKey,
    term: u64,
    offset: i64,
    outcome: Result<(), String>,
}

impl Burial {
    pub(super) fn is_busy(&self) -> bool {
        self.phase != Phase::Resting
    }

    /// Letters may be stored at any moment.
    pub(super) fn is_under_way(&self) -> bool {
        self.phase == Phase::Writing
    }

    pub(super) fn retry_at_once(&mut self) {
        self.retry_after = None;
    }
}

impl Group {
    pub(super) fn plan_burial(&mut self, now: Instant) {
        if self.burial.is_busy() {
            return;
        }
        let corpses = self.corpses();
        if corpses.is_empty() {
            // Whoever was dead is not any more.
            self.burial.failures = 0;
            self.burial.trouble = None;
            self.burial.retry_after = None;
            return;
        }
        if let Some(after) = self.burial.retry_after.filter(|after| now < *after) {
            return self.wake_at(after);
        }
        if let Err(why) = self.grave() {
            return self.burial_failed(why, now);
        }
        self.burial.phase = Phase::Reading;
        self.burial.turn = self.turn_after(&corpses);
        let shared = Arc::clone(&self.shared);
        self.work.push(async move { Done::Exhumed(exhume(shared, corpses).await) }.boxed());
    }

    /// Some of the dead, of all partitions alike; who has none in one batch has some in one of the next.
    fn corpses(&self) -> Vec<Corpse> {
        let with_dead = self.parts.iter().filter(|part| part.window.dead().next().is_some()).count();
        let share = BATCH.div_ceil(with_dead.max(1));
        let (later, first) = self.parts.split_at(self.burial.turn % self.parts.len().max(1));
        let of_parts = first.iter().chain(later).flat_map(|part| {
            part.window.dead().take(share).map(|dead| Corpse {
                key: part.key(),
                term: part.term,
                place: part.place_at(dead.offset),
                dead,
                topic: part.topic.name.clone(),
            })
        });
        of_parts.take(BATCH).collect()
    }

    /// Behind the last partition that a batch has records of.
    fn turn_after(&self, corpses: &[Corpse]) -> usize {
        let last = corpses.last().and_then(|corpse| self.index.get(&corpse.key));
        last.map_or(0, |at| at + 1)
    }

    /// Where the letters go, or why they cannot.
    fn grave(&self) -> Result<Arc<ResolvedTopic>, String> {
        let Some(id) = &self.config.dead_letter_topic else {
            return Err("the group has no dead-letter topic any more".to_owned());
        };
        let Some(topic) = self.tenant.names().topic_in(self.config.namespace_uid, id) else {
            return Err(format!("the dead-letter topic {id} does not exist; create it, or change the group"));
        };
        if topic.compacted {
            return Err(format!(
                "the dead-letter topic {id} is compacted, so letters would replace each other; name another one"
            ));
        }
        Ok(topic)
    }

    /// Writes the letters of those that are dead still.
    pub(super) fn exhumed(&mut self, exhumed: Vec<Exhumed>, now: Instant) {
        self.burial.phase = Phase::Resting;
        let (mut letters, mut failure) = (Vec::new(), None);
        let grave = self.grave();
        let (now_ms, uid) = (self.shared.clock.ms(now), Arc::clone(&self.uid));
        for Exhumed { corpse, found } in exhumed {
            let metrics = self.shared.metrics.clone();
            let tenant = self.config.tenant_uid;
            let offset = corpse.dead.offset;
            let Some(part) = self.part(corpse.key, corpse.term) else { continue };
            match (found, &grave) {
                (Ok(Found::Nothing), _) => {
                    // A reset to the same place, or a change of the policy, may have made it another's.
                    if !part.window.begin_burial(offset) {
                        continue;
                    }
                    tracing::warn!(topic = %part.place.topic, partition = part.place.partition, offset, "a dead record was lost to retention");
                    metrics.skipped(tenant, part.window.lose(offset, now_ms));
                    part.changed = true;
                    part.hot = true;
                }
                (Ok(Found::CutOff(end)), _) => self.cut_off(corpse.key, corpse.term, end, now),
                (Ok(Found::Beyond), _) => {
                    // Who hears the same for a while begins anew, whether somebody consumes or not.
                    if !part.rereading {
                        self.find_bounds(corpse.key, corpse.term, Reading::Again);
                    }
                    failure = Some(cannot_be_read(&corpse));
                }
                (Err(why), _) => {
                    metrics.dead_letter_failures.inc();
                    failure = Some(why);
                }
                (Ok(Found::Record(_)), Err(why)) => failure = Some(why.clone()),
                (Ok(Found::Record(record)), Ok(topic)) => {
                    // It may live again, by a change of the policy.
                    if !part.window.begin_burial(offset) {
                        continue;
                    }
                    let path = path_of(&record);
                    if path.len() >= PATH_MAX || path.iter().any(|group| **group == *uid) {
                        tracing::warn!(topic = %part.place.topic, partition = part.place.partition, offset, ?path, "a record was given up in a circle of groups");
                        metrics.dead_letter_circles.inc();
                        part.window.bury(offset);
                        part.changed = true;
                        part.hot = true;
                        self.burial.circled += 1;
                        continue;
                    }
                    let (record, size) = letter(*record, &path, &corpse, &uid, topic, now_ms);
                    letters.push((corpse.key, corpse.term, offset, record, size));
                }
            }
        }
        self.commits.soon(now);
        if let (Ok(topic), false) = (grave, letters.is_empty()) {
            self.burial.phase = Phase::Writing;
            let shared = Arc::clone(&self.shared);
            self.work.push(async move { Done::Buried(write(shared, topic, letters).await) }.boxed());
        }
        if let Some(why) = failure {
            self.burial_failed(why, now);
        }
    }

    pub(super) fn buried(&mut self, buried: Vec<Buried>, now: Instant) {
        self.burial.phase = Phase::Resting;
        let mut failure = None;
        for Buried { key, term, offset, outcome } in buried {
            let metrics = self.shared.metrics.clone();
            if outcome.is_ok() {
                metrics.dead_letters.inc();
            }
            let Some(part) = self.part(key, term) else { continue };
            part.hot = true;
            match outcome {
                Ok(()) => {
                    part.window.bury(offset);
                    part.changed = true;
                }
                Err(why) => {
                    metrics.dead_letter_failures.inc();
                    part.window.burial_failed(offset);
                    failure = Some(why);
                }
            }
        }
        self.commits.soon(now);
        match failure {
            Some(why) => self.burial_failed(why, now),
            None => {
                self.burial.failures = 0;
                self.burial.trouble = None;
                self.burial.retry_after = None;
            }
        }
    }

    fn burial_failed(&mut self, why: String, now: Instant) {
        if self.burial.trouble.as_ref() != Some(&why) {
            tracing::warn!(group = %self.name, why, "dead letters cannot be stored");
        }
        let pause = RETRY_MIN.saturating_mul(2_u32.saturating_pow(self.burial.failures.min(10))).min(RETRY_MAX);
        self.burial.failures = self.burial.failures.saturating_add(1);
        self.burial.trouble = Some(why);
        self.burial.retry_after = Some(now + pause);
        self.wake_at(now + pause);
    }
}

/// Reads dead records again; as many as one batch may hold. A partition that cannot be read holds up no other.
async fn exhume(shared: Arc<Shared>, corpses: Vec<Corpse>) -> Vec<Exhumed> {
    let mut of_parts: BTreeMap<PartKey, Vec<Corpse>> = BTreeMap::new();
    for corpse in corpses {
        of_parts.entry(corpse.key).or_default().push(corpse);
    }
    let share = BATCH_BYTES / of_parts.len().max(1) as u64;
    let read = of_parts.into_values().map(|corpses| exhume_part(&shared, corpses, share));
    join_all(read).await.into_iter().flatten().collect()
}

async fn exhume_part(shared: &Arc<Shared>, corpses: Vec<Corpse>, bytes_max: u64) -> Vec<Exhumed> {
    let mut exhumed = Vec::with_capacity(corpses.len());
    let (mut last, mut bytes) = (None, 0);
    for corpse in corpses {
        let found = find(shared, &corpse, &mut last).await;
        if let Ok(Found::Record(record)) = &found {
            let headers = record.headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
            bytes += logical_bytes(record.key.as_deref(), record.value.as_deref(), headers);
        }
        let found = found.map_err(|error| {
            let (topic, partition) = (&corpse.place.topic, corpse.place.partition);
            tracing::debug!(%topic, partition, offset = corpse.dead.offset, %error, "a dead record cannot be read");
            cannot_be_read(&corpse)
        });
        let is_over = bytes >= bytes_max || !matches!(found, Ok(Found::Record(_) | Found::Nothing));
        exhumed.push(Exhumed { corpse, found });
        if is_over {
            break;
        }
    }
    exhumed
}

/// Without the error, which names Kafka's topics.
fn cannot_be_read(corpse: &Corpse) -> String {
    format!("records of {}/{} cannot be read at the moment", corpse.topic, corpse.place.partition)
}

type Letter = (PartKey, u64, i64, SinkRecord, u64);

async fn write(shared: Arc<Shared>, topic: Arc<ResolvedTopic>, letters: Vec<Letter>) -> Vec<Buried> {
    let (mut records, mut sizes, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    for (key, term, offset, record, size) in letters {
        records.push(record);
        sizes.push(size);
        sent.push((key, term, offset));
    }
    let on_resolved = Some(count(shared.meter.clone(), Arc::clone(&topic), sizes));
    let until = std::time::Instant::now() + PRODUCE_WITHIN;
    let outcomes = shared.sink.submit(topic.physical.as_str(), Batch { records, on_resolved }, until).await;
    let buried = sent.into_iter().zip(outcomes).map(|((key, term, offset), outcome)| {
        let outcome = match outcome {
            RecordOutcome::Persisted { .. } => Ok(()),
            RecordOutcome::NotPersisted(why) | RecordOutcome::PossiblyPersisted(why) => {
                Err(format!("the dead-letter topic does not take records: {why}"))
            }
        };
        Buried { key, term, offset, outcome }
    });
    buried.collect()
}

/// The record, read again; neighbours mostly come with one read. [`Found::Nothing`]: it is certain that the log does not hold it any
/// more.
async fn find(shared: &Arc<Shared>, corpse: &Corpse, last: &mut Option<Read>) -> Result<Found, Error> {
    let (offset, place) = (corpse.dead.offset, &corpse.place);
    if let Some(record) = last.as_ref().and_then(|read| in_read(read, offset)) {
        return Ok(Found::Record(Box::new(record)));
    }
    match read(Arc::clone(shared), place.clone(), offset, READ_BYTES).await {
        Ok(read) => {
            let found = proven(&read, offset)?;
            *last = Some(read);
            Ok(found)
        }
        // Lost, if the log begins behind it. One that ends before it is not what it was: nothing is proven.
        Err(error @ Error::OffsetOutOfRange { .. }) => {
            let found = positions::find(shared, &place.topic, &[place.partition], Start::Earliest).await?;
            if positions::one(&found, place.partition)? > offset {
                return Ok(Found::Nothing);
            }
            tracing::debug!(%error, "a log ends before a dead record");
            Ok(Found::Beyond)
        }
        Err(Error::LogTruncated { end_offset, .. }) => Ok(Found::CutOff(end_offset)),
        Err(error) => Err(error),
    }
}

/// The record of an offset that was read, or the proof that it is gone: that the read went past it. An empty read proves nothing,
/// save that the log ends before it.
fn proven(read: &Read, offset: i64) -> Result<Found, Error> {
    match in_read(read, offset) {
        Some(record) => Ok(Found::Record(Box::new(record))),
        None if read.next_offset > offset => Ok(Found::Nothing),
        // Its end is the record's place: a read there is in order, and finds nothing.
        None if read.end <= offset => Ok(Found::Beyond),
        None => Err(Error::Protocol("nothing came, though the log reaches further".to_owned())),
    }
}

fn in_read(read: &Read, offset: i64) -> Option<Record> {
    let at = read.records.binary_search_by_key(&offset, |record| record.offset).ok()?;
    Some(read.records[at].clone())
}

/// The groups that have given a record up, by what they wrote on its letters.
fn path_of(record: &Record) -> Vec<String> {
    let last = |wanted: &str| {
        let value = record.headers.iter().rev().find(|(name, _)| name.as_ref() == wanted.as_bytes())?.1.as_deref()?;
        std::str::from_utf8(value).ok()
    };
    match last(PATH).or_else(|| last(GROUP)) {
        Some(path) => path.split(',').map(str::to_owned).collect(),
        None => Vec::new(),
    }
}

/// The client's record with what happened to it, and its logical bytes.
fn letter(
    record: Record,
    path: &[String],
    corpse: &Corpse,
    group: &str,
    topic: &ResolvedTopic,
    now_ms: i64,
) -> (SinkRecord, u64) {
    let Record { key, value, headers, timestamp_ms, .. } = record;
    let timestamp_ms = producers_time_ms(&headers).unwrap_or(timestamp_ms);
    let mut headers = client_headers(headers);
    let of_headers = headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
    let size = logical_bytes(key.as_deref(), value.as_deref(), of_headers);
    let reason = match &corpse.dead.reason {
        DeathReason::Refused(reason) => reason.to_string(),
        DeathReason::DeadlineExceeded => "ack deadline exceeded".to_owned(),
    };
    let time = |ms: i64| Timestamp::from_millis(ms).to_string();
    let path = path.iter().map(String::as_str).chain([group]).collect::<Vec<_>>().join(",");
    let ours: [(&'static str, String); 10] = [
        (GROUP, group.to_owned()),
        (PATH, path),
        ("sluice-dlq-topic", corpse.topic.clone()),
        ("sluice-dlq-partition", corpse.place.partition.to_string()),
        ("sluice-dlq-offset", corpse.dead.offset.to_string()),
        ("sluice-dlq-attempts", corpse.dead.attempts.to_string()),
        ("sluice-dlq-reason", reason),
        ("sluice-dlq-first-delivery", time(corpse.dead.first_delivery)),
        ("sluice-dlq-time", time(now_ms)),
        ("sluice-dlq-record-time", time(timestamp_ms)),
    ];
    headers.extend(ours.map(|(name, value)| (Bytes::from_static(name.as_bytes()), Some(Bytes::from(value)))));
    let keyless = corpse.dead.offset.unsigned_abs() % u64::from(topic.partitions.max(1).unsigned_abs());
    let partition = match &key {
        Some(key) => partition_of(key, topic.partitions),
        None => i32::try_from(keyless).unwrap_or(0),
    };
    // Its retention begins now, not when the record was published.
    (SinkRecord { partition, key, value, headers, timestamp_ms: now_ms }, size)
}

/// Bills what got into the log, also late.
fn count(meter: Meter, topic: Arc<ResolvedTopic>, sizes: Vec<u64>) -> OnResolved {
    Box::new(move |records: &[SinkRecord], outcomes: &[RecordOutcome]| {
        let stored = records.iter().zip(outcomes).zip(&sizes).filter_map(|((record, outcome), size)| match outcome {
            RecordOutcome::Persisted { offset, .. } => Some((record.partition, *offset, *size)),
            _ => None,
        });
        meter.produced(&topic, stored);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, headers: &[(&'static str, &'static str)]) -> Record {
        let header = |(name, value): &(&'static str, &'static str)| {
            (Bytes::from_static(name.as_bytes()), Some(Bytes::from_static(value.as_bytes())))
        };
        Record {
            offset,
            timestamp_ms: 1,
            timestamp_type: sluice_wire::TimestampType::CreateTime,
            key: None,
            value: None,
            headers: headers.iter().map(header).collect(),
        }
    }

    #[test]
    fn an_empty_read_is_no_proof_that_a_dead_record_is_gone() {
        let read = |records: Vec<Record>, next_offset| Read { records, next_offset, end: 9, ..Read::default() };
        assert!(proven(&read(vec![], 5), 5).is_err(), "as after a change of the leader");
        assert!(matches!(proven(&read(vec![record(7, &[])], 8), 5), Ok(Found::Nothing)));
        assert!(matches!(proven(&read(vec![record(5, &[])], 6), 5), Ok(Found::Record(_))));
        assert!(matches!(proven(&read(vec![], 9), 9), Ok(Found::Beyond)), "the log is shorter than it was");
    }

    #[test]
    fn the_path_of_a_record_is_what_groups_wrote_last() {
        assert!(path_of(&record(0, &[("mine", "x")])).is_empty());
        assert_eq!(path_of(&record(0, &[("sluice-dlq-group", "a")])), ["a"], "a letter of an older build");
        let twice = [("sluice-dlq-path", "a"), ("sluice-dlq-group", "b"), ("sluice-dlq-path", "a,b")];
        assert_eq!(path_of(&record(0, &twice)), ["a", "b"]);
    }
}
