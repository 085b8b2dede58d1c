//! Records whose attempts are over: into the dead-letter topic first, and only then done.
//!
//! A dead letter that cannot be stored stays in the window and is tried again; the status says so. If it is not known whether it was
//! stored it is written again: rather twice than never.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::time::Instant;

use sluice_kafka::{Batch, OnResolved, RecordOutcome, SinkRecord};
use sluice_proto::wkt::Timestamp;
use sluice_types::partitioner::partition_of;
use sluice_types::record::{client_headers, logical_bytes, producers_time_ms};
use sluice_wire::{Error, Record};

use crate::groups::dispatch::group::{Done, Group};
use crate::groups::dispatch::part::PartKey;
use crate::groups::dispatch::reading::{Place, Read, read};
use crate::groups::dispatch::shared::Shared;
use crate::groups::window::{Dead, DeathReason};
use crate::metering::Meter;
use crate::ports::ResolvedTopic;

/// Dead letters written at once.
const BATCH: usize = 100;
const READ_BYTES: u32 = 256 << 10;
const PRODUCE_WITHIN: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Dead records on their way.
#[derive(Default)]
pub(super) struct Burial {
    in_flight: bool,
    waiting: Vec<Corpse>,
    retry_after: Option<Instant>,
    failures: u32,
    /// Why the last one failed.
    pub(super) trouble: Option<String>,
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

/// What became of one.
pub(super) struct Buried {
    key: PartKey,
    term: u64,
    offset: i64,
    outcome: Result<Fate, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stored,
    /// It was not in the log any more.
    Lost,
}

impl Burial {
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight || !self.waiting.is_empty()
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.in_flight
    }

    pub(super) fn retry_at_once(&mut self) {
        self.retry_after = None;
    }
}

impl Group {
    pub(super) fn plan_burial(&mut self, now: Instant) {
        for part in &mut self.parts {
            let (key, term) = (part.key(), part.term);
            for dead in part.window.dead() {
                let (place, topic) = (part.place.clone(), part.topic.name.clone());
                self.burial.waiting.push(Corpse { key, term, dead, place, topic });
            }
        }
        if self.burial.in_flight || self.burial.waiting.is_empty() {
            return;
        }
        if let Some(after) = self.burial.retry_after.filter(|after| now < *after) {
            return self.wake_at(after);
        }
        let Some(id) = self.config.dead_letter_topic.clone() else {
            // The policy that let them die is gone, and they are ready again.
            return self.burial.waiting.clear();
        };
        let Some(topic) = self.tenant.names().topic_in(self.config.namespace_uid, &id) else {
            self.burial_failed(
                format!("the dead-letter topic {id} does not exist; create it, or change the group"),
                now,
            );
            return;
        };
        if topic.compacted {
            self.burial_failed(
                format!(
                    "the dead-letter topic {id} is compacted, so letters would replace each other; name another one"
                ),
                now,
            );
            return;
        }
        let count = self.burial.waiting.len().min(BATCH);
        let corpses: Vec<Corpse> = self.burial.waiting.drain(..count).collect();
        self.burial.in_flight = true;
        let (shared, group) = (Arc::clone(&self.shared), Arc::clone(&self.uid));
        self.work.push(async move { Done::Buried(bury(shared, group, topic, corpses).await) }.boxed());
    }

    pub(super) fn buried(&mut self, buried: Vec<Buried>, now: Instant) {
        self.burial.in_flight = false;
        let mut failure = None;
        for Buried { key, term, offset, outcome } in buried {
            let metrics = self.shared.metrics.clone();
            let Some(part) = self.part(key, term) else { continue };
            match outcome {
                Ok(fate) => {
                    if fate == Fate::Lost {
                        tracing::warn!(topic = %part.place.topic, partition = part.place.partition, offset, "a dead record was lost to retention");
                    } else {
                        metrics.dead_letters.inc();
                    }
                    part.window.bury(offset);
                    part.changed = true;
                    part.hot = true;
                }
                Err(why) => {
                    metrics.dead_letter_failures.inc();
                    part.window.revive(offset);
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

async fn bury(shared: Arc<Shared>, group: Arc<str>, topic: Arc<ResolvedTopic>, corpses: Vec<Corpse>) -> Vec<Buried> {
    let mut results = Vec::with_capacity(corpses.len());
    let (mut records, mut sizes, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    let mut last: Option<(PartKey, Read)> = None;
    for corpse in corpses {
        let offset = corpse.dead.offset;
        let mut told = |outcome| results.push(Buried { key: corpse.key, term: corpse.term, offset, outcome });
        match find(&shared, &corpse, &mut last).await {
            Ok(Some(record)) => {
                let (record, size) = letter(record, &corpse, &group, &topic, shared.clock.ms(Instant::now()));
                records.push(record);
                sizes.push(size);
                sent.push((corpse.key, corpse.term, offset));
            }
            Ok(None) => told(Ok(Fate::Lost)),
            Err(error) => told(Err(format!("the record cannot be read: {error}"))),
        }
    }
    if records.is_empty() {
        return results;
    }
    let on_resolved = Some(count(shared.meter.clone(), Arc::clone(&topic), sizes));
    let until = std::time::Instant::now() + PRODUCE_WITHIN;
    let outcomes = shared.sink.submit(topic.physical.as_str(), Batch { records, on_resolved }, until).await;
    for ((key, term, offset), outcome) in sent.into_iter().zip(outcomes) {
        let outcome = match outcome {
            RecordOutcome::Persisted { .. } => Ok(Fate::Stored),
            RecordOutcome::NotPersisted(why) | RecordOutcome::PossiblyPersisted(why) => {
                Err(format!("the dead-letter topic does not take records: {why}"))
            }
        };
        results.push(Buried { key, term, offset, outcome });
    }
    results
}

/// The record, read again; neighbours mostly come with one read.
async fn find(
    shared: &Arc<Shared>,
    corpse: &Corpse,
    last: &mut Option<(PartKey, Read)>,
) -> Result<Option<Record>, Error> {
    let offset = corpse.dead.offset;
    let in_last = |last: &Option<(PartKey, Read)>| {
        let (_, read) = last.as_ref().filter(|(key, _)| *key == corpse.key)?;
        let at = read.records.binary_search_by_key(&offset, |record| record.offset).ok()?;
        Some(read.records[at].clone())
    };
    if let Some(record) = in_last(last) {
        return Ok(Some(record));
    }
    match read(Arc::clone(shared), corpse.place.clone(), offset, READ_BYTES).await {
        Ok(read) => {
            *last = Some((corpse.key, read));
            Ok(in_last(last))
        }
        Err(Error::OffsetOutOfRange { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The client's record with what happened to it, and its logical bytes.
fn letter(record: Record, corpse: &Corpse, group: &str, topic: &ResolvedTopic, now_ms: i64) -> (SinkRecord, u64) {
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
    let ours: [(&'static str, String); 9] = [
        ("sluice-dlq-group", group.to_owned()),
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
