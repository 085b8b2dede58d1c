//! Publishes dead letters once more to the topics they came from, for their group alone.
//!
//! Batch by batch: publish, wait for Kafka, remember, go on. What was remembered is not published again; if this process dies
//! between the two, the last batch is. A call that cannot go on (time, the tenant's limit, a topic) tells what it did. Partitions that
//! cannot be read are told of, and their letters are left as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_kafka::{Batch, Failure, OnResolved, RecordOutcome, SinkRecord};
use sluice_log::LogicalOffset;
use sluice_proto::stream::v1::{RedriveDeadLettersRequest, RedriveDeadLettersResponse};
use sluice_types::error::Error;
use sluice_types::physical::PhysicalGroup;
use sluice_types::{ErrorKind, Reason, ResourceName};

use crate::access::DataCall;
use crate::clusters::Log;
use crate::data::{answer_by, failure, time_left};
use crate::groups::door::Shared;
use crate::groups::model::ResolvedGroup;
use crate::metering::Meter;
use crate::view::ResolvedTopic;

use super::failing::Failing;
use super::letter::{Letter, parse_id};
use super::reading::{Letters, Ready, apart, committed, ends, part_of, read};
use super::redriven::Redriven;
use super::{DESCRIBE, FIRST, dead_letter_topic};

/// Letters published at a time.
const BATCH: usize = 200;
/// Ids of one call.
const IDS_MAX: usize = 1_000;
/// Letters of one call that takes all.
const ALL_MAX: usize = 10_000;
/// Kept of the time for the last commit.
const LAST_COMMIT: Duration = Duration::from_secs(2);
const PRODUCE: &str = "records.produce";

/// One call under way.
struct Redrive<'a> {
    door: &'a Shared,
    call: &'a Arc<DataCall>,
    group: &'a ResolvedGroup,
    log: &'a Log,
    until: Instant,
    /// Origins that were looked up.
    origins: BTreeMap<String, Arc<ResolvedTopic>>,
    redriven: i64,
    failing: Failing,
}

impl Shared {
    pub(in crate::groups::door) async fn redrive_dead_letters(
        &self,
        call: &Arc<DataCall>,
        request: RedriveDeadLettersRequest,
    ) -> Result<RedriveDeadLettersResponse, Error> {
        let group = call.group("group", &request.group, DESCRIBE)?;
        let topic = dead_letter_topic(call, &group)?;
        let ids = check(&request, &topic)?;
        let (group, log) = (&*group, &self.clusters.log(&topic)?);
        let until = answer_by(call);
        let (origins, failing) = (BTreeMap::new(), Failing::default());
        let mut redrive = Redrive { door: self, call, group, log, until, origins, redriven: 0, failing };
        let asked = ids.as_ref().map_or(topic.partitions.unsigned_abs() as usize, BTreeMap::len);
        let done = match ids {
            Some(ids) => redrive.named(ids, request.dry_run).await,
            None => redrive.all(request.dry_run).await,
        };
        let Redrive { redriven, failing, .. } = redrive;
        let late = |error| failure::in_time(error, until, log.answers());
        let (remaining, failing) = match done {
            Ok(remaining) if redriven > 0 => (remaining, failing),
            Ok(remaining) => (remaining, failing.unless_all(asked).map_err(late)?),
            // What was done is told rather than what was not.
            Err(error) if redriven > 0 && !request.dry_run => {
                failure::log(&error);
                (true, failing)
            }
            Err(error) => return Err(late(error)),
        };
        let remaining = remaining || !failing.is_empty();
        Ok(RedriveDeadLettersResponse { redriven, remaining, failures: failing.told() })
    }
}

/// The ids; `None`: all.
fn check(
    request: &RedriveDeadLettersRequest,
    topic: &ResolvedTopic,
) -> Result<Option<BTreeMap<i32, BTreeSet<i64>>>, Error> {
    match (request.all, request.ids.len()) {
        (true, 0) => return Ok(None),
        (true, _) => return Err(Error::invalid("ids", "cannot be set together with all; send one of them")),
        (false, 0) => return Err(Error::invalid("ids", "is empty; name dead letters, or set all")),
        (false, 1..=IDS_MAX) => {}
        (false, many) => {
            return Err(Error::invalid("ids", format!("has {many} ids, more than {IDS_MAX}; send several calls")));
        }
    }
    let mut ids: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    for (at, id) in request.ids.iter().enumerate() {
        let (partition, offset) =
            parse_id(id).filter(|(partition, _)| *partition < topic.partitions).ok_or_else(|| unknown(at))?;
        ids.entry(partition).or_default().insert(offset);
    }
    Ok(Some(ids))
}

fn unknown(at: usize) -> Error {
    Error::invalid(format!("ids[{at}]"), "is not a dead letter of this group; list them to see their ids")
}

impl Redrive<'_> {
    /// Those that were named.
    async fn named(&mut self, ids: BTreeMap<i32, BTreeSet<i64>>, dry_run: bool) -> Result<bool, Error> {
        let log = self.log;
        let partitions: Vec<i32> = ids.keys().copied().collect();
        let (mut known, ends) =
            tokio::try_join!(committed(log, self.group, &partitions, self.until), ends(log, &partitions, self.until),)?;
        let (ends, closed) = apart(ends);
        closed.into_iter().for_each(|(partition, error)| self.failing.add(partition, error));
        let uid = self.group.group_uid.to_string();
        let mut letters = Vec::new();
        for (partition, offsets) in ids {
            let Some(&end) = ends.get(&partition) else { continue };
            let mut chunk = Vec::new();
            for offset in offsets {
                if known.get(&partition).is_some_and(|done| done.contains(offset)) {
                    continue;
                }
                let position = |chunk: &Vec<sluice_wire::Record>| {
                    chunk.binary_search_by_key(&offset, |record: &sluice_wire::Record| record.offset).ok()
                };
                if offset < end && position(&chunk).is_none() {
                    match read(log, partition, offset, part_of(self.until)).await {
                        Ok((records, _)) => chunk = records,
                        Err(error) if Instant::now() >= self.until => return Err(error),
                        Err(error) => {
                            self.failing.add(partition, error);
                            break;
                        }
                    }
                }
                let record = position(&chunk).map(|at| chunk[at].clone());
                let letter = record.and_then(|record| Letter::read(record, partition, &uid));
                letters.push(letter.ok_or_else(|| {
                    Error::invalid(
                        "ids",
                        format!("{partition}-{offset} is not a dead letter of this group; list them to see their ids"),
                    )
                })?);
            }
        }
        self.check_origins(&letters)?;
        for letter in &letters {
            let done = known.entry(letter.partition).or_insert_with(Redriven::none);
            done.settle(letter.offset, letter.offset + 1);
        }
        // Nothing is published that could not be remembered.
        if known.values().any(|done| done.commit().is_none()) {
            return Err(scattered());
        }
        if dry_run {
            self.redriven = count(letters.len());
            return Ok(false);
        }
        for batch in letters.chunks(BATCH) {
            if !self.publish(batch, &[]).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All there are now.
    async fn all(&mut self, dry_run: bool) -> Result<bool, Error> {
        let read_until = self.until.checked_sub(LAST_COMMIT).unwrap_or(self.until);
        let mut letters = Letters::open(self.log, self.group, FIRST, self.until).await?;
        let mut seen = 0;
        loop {
            let from = letters.place();
            let mut batch = Vec::new();
            let mut more = true;
            while batch.len() < BATCH && seen < ALL_MAX {
                match letters.next().await? {
                    Ready::Letter(letter) => {
                        seen += 1;
                        batch.push(*letter);
                    }
                    Ready::Pause => break,
                    Ready::End => {
                        more = false;
                        break;
                    }
                }
            }
            self.failing.append(&mut letters.take_failing());
            let paused = more && batch.len() < BATCH && seen < ALL_MAX;
            self.check_origins(&batch)?;
            if dry_run {
                self.redriven += count(batch.len());
            } else {
                let looked_at = letters.looked_at(from);
                if !self.publish(&batch, &looked_at).await? {
                    return Ok(true);
                }
            }
            if !more {
                return Ok(false);
            }
            if paused || seen >= ALL_MAX || Instant::now() >= read_until {
                return Ok(true);
            }
        }
    }

    /// Every topic of origin is there, is read by the group, and may be written by the caller.
    fn check_origins(&mut self, letters: &[Letter]) -> Result<(), Error> {
        for letter in letters {
            if !self.origins.contains_key(&letter.origin) {
                let topic = self.origin(&letter.origin)?;
                self.origins.insert(letter.origin.clone(), topic);
            }
        }
        Ok(())
    }

    fn origin(&self, name: &str) -> Result<Arc<ResolvedTopic>, Error> {
        self.call.permit_other(PRODUCE, name)?;
        let refuse = |what: &str| {
            Err(Error::new(ErrorKind::FailedPrecondition, Reason::ResourceState, format!("{name} {what}")))
        };
        let Ok((namespace, id)) = ResourceName::parse_topic(name) else {
            return Err(Error::internal("a dead letter names no topic as its origin"));
        };
        if namespace != self.group.namespace_id || !self.group.topics.contains(&id) {
            return refuse("is not one of the group's topics any more; add it to the group, then redrive");
        }
        let tenant = self.call.view().tenant(self.group.tenant_uid);
        match tenant.and_then(|tenant| tenant.names().topic_in(self.group.namespace_uid, &id)) {
            Some(topic) => Ok(topic),
            None => refuse("does not exist at the moment; create it, then redrive"),
        }
    }

    /// Publishes a batch and remembers it; `looked_at` are ranges without further letters. False: it cannot go on.
    async fn publish(&mut self, letters: &[Letter], looked_at: &[(i32, i64, i64)]) -> Result<bool, Error> {
        let (stored, whole) = self.submit(letters).await?;
        let mut settled: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
        for letter in &stored {
            settled.entry(letter.partition).or_default().push((letter.offset, letter.offset + 1));
        }
        // Only if all of the batch is stored, there is nothing left in between.
        for &(partition, from, to) in looked_at.iter().filter(|_| whole) {
            settled.entry(partition).or_default().push((from, to));
        }
        self.remember(settled).await?;
        self.redriven += count(stored.len());
        Ok(whole)
    }

    /// Gives those that were stored, and whether all were.
    async fn submit<'l>(&self, letters: &'l [Letter]) -> Result<(Vec<&'l Letter>, bool), Error> {
        let uid = self.group.group_uid.to_string();
        let mut by_origin: BTreeMap<&str, Vec<&'l Letter>> = BTreeMap::new();
        for letter in letters {
            by_origin.entry(&letter.origin).or_default().push(letter);
        }
        let until = self.until.checked_sub(LAST_COMMIT).unwrap_or(self.until).max(Instant::now());
        let mut stored = Vec::new();
        for (origin, letters) in by_origin {
            let Some(topic) = self.origins.get(origin) else { continue };
            let (records, sizes): (Vec<SinkRecord>, Vec<u64>) =
                letters.iter().map(|letter| letter.again(topic, &uid)).unzip();
            if let Err(error) = self.call.limiter.take_ingress(sizes.iter().sum()) {
                return if stored.is_empty() { Err(error) } else { Ok((stored, false)) };
            }
            let on_resolved = Some(metered(self.door.meter.clone(), Arc::clone(topic), sizes.clone()));
            let batch = Batch { records, on_resolved };
            let outcomes = match self.door.clusters.log(topic) {
                Ok(log) => log.append(batch, until).await,
                // What was stored before must be remembered.
                Err(_) => vec![RecordOutcome::NotPersisted(Failure::Unavailable); letters.len()],
            };
            let mut failed = None;
            for ((letter, outcome), size) in letters.into_iter().zip(outcomes).zip(sizes) {
                match outcome {
                    RecordOutcome::Persisted { .. } => stored.push(letter),
                    RecordOutcome::NotPersisted(why) => {
                        self.call.limiter.refund_ingress(size);
                        failed = Some(failure::not_persisted(why, origin));
                    }
                    RecordOutcome::PossiblyPersisted(_) => failed = Some(failure::possibly_persisted()),
                }
            }
            if let Some(error) = failed {
                failure::log(&error);
                return if stored.is_empty() { Err(error) } else { Ok((stored, false)) };
            }
        }
        Ok((stored, true))
    }

    /// Commits what is settled, together with what others have committed meanwhile.
    async fn remember(&self, settled: BTreeMap<i32, Vec<(i64, i64)>>) -> Result<(), Error> {
        if settled.is_empty() {
            return Ok(());
        }
        let partitions: Vec<i32> = settled.keys().copied().collect();
        let mut known = committed(self.log, self.group, &partitions, self.until).await?;
        let mut positions = BTreeMap::new();
        for (partition, runs) in settled {
            let redriven = known.entry(partition).or_insert_with(Redriven::none);
            for (from, to) in runs {
                redriven.settle(from, to);
            }
            let (offset, metadata) = redriven.commit().ok_or_else(scattered)?;
            positions.insert(partition, (LogicalOffset::new(offset).map_err(Error::internal)?, metadata));
        }
        let kept_under = PhysicalGroup::redrive(self.group.namespace_uid, self.group.group_uid);
        self.log.commit(&kept_under, positions, time_left(self.until)).await
    }
}

fn scattered() -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        Reason::ResourceState,
        "too many scattered dead letters were redriven to remember each; redrive the oldest ones, or all",
    )
}

fn count(letters: usize) -> i64 {
    i64::try_from(letters).unwrap_or(i64::MAX)
}

/// Counts what got into the log as written, also late.
fn metered(meter: Meter, topic: Arc<ResolvedTopic>, sizes: Vec<u64>) -> OnResolved {
    Box::new(move |records: &[SinkRecord], outcomes: &[RecordOutcome]| {
        let stored = records.iter().zip(outcomes).zip(&sizes).filter_map(|((record, outcome), size)| match outcome {
            RecordOutcome::Persisted { offset, .. } => Some((record.partition, *offset, *size)),
            _ => None,
        });
        meter.produced(&topic, stored);
    })
}
