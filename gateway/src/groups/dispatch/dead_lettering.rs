//! Records whose attempts are over: into the dead-letter topic first, and only then done.
//!
//! The dead stay in the window until their letters are about to be written: then it is asked whether they are dead still, since a
//! reset, or a change of the policy, may have brought them back while their records were read. A dead letter that cannot be stored
//! stays in the window and is tried again; the status says so. If it is not known whether it was stored it is written again: rather
//! twice than never.
//!
//! A record that this group gave up before, and that comes to it again as the letter of another group, is given up without a further
//! letter: two groups that put their dead letters into each other's topics would write for ever.

mod letter;
mod rereading;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use sluice_kafka::{Batch, Failure, OnResolved, RecordOutcome, SinkRecord};

use crate::groups::dispatch::action::Action;
use crate::groups::dispatch::group::Group;
use crate::groups::dispatch::losing::Reading;
use crate::groups::dispatch::part::PartKey;
use crate::groups::dispatch::shared::Io;
use crate::metering::Meter;
use crate::view::ResolvedTopic;

use self::letter::{letter, path_of};
use self::rereading::cannot_be_read;

pub(super) use self::rereading::{DeadRecord, Found, RereadRecord, reread_all};

/// Dead letters written at once.
const BATCH: usize = 100;
const PRODUCE_WITHIN: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A record that so many groups gave up is given up without a further letter.
const PATH_MAX: usize = 16;

/// Dead records on their way.
#[derive(Default)]
pub(super) struct DeadLettering {
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

/// What became of a letter.
pub(super) struct LetterOutcome {
    key: PartKey,
    term: u64,
    offset: i64,
    outcome: Result<(), String>,
}

impl DeadLettering {
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
    pub(super) fn plan_letters(&mut self, now: Instant) {
        if self.dead_lettering.is_busy() {
            return;
        }
        let dead_records = self.dead_records();
        if dead_records.is_empty() {
            // Whoever was dead is not any more.
            self.dead_lettering.failures = 0;
            self.dead_lettering.trouble = None;
            self.dead_lettering.retry_after = None;
            return;
        }
        if let Some(after) = self.dead_lettering.retry_after.filter(|after| now < *after) {
            return self.wake_at(after);
        }
        if let Err(why) = self.letters_topic() {
            return self.letters_failed(why, now);
        }
        self.dead_lettering.phase = Phase::Reading;
        self.dead_lettering.turn = self.turn_after(&dead_records);
        self.actions.push(Action::RereadDead(dead_records));
    }

    /// Some of the dead, of all partitions alike; who has none in one batch has some in one of the next.
    fn dead_records(&self) -> Vec<DeadRecord> {
        let with_dead = self.parts.iter().filter(|part| part.window.dead().next().is_some()).count();
        let share = BATCH.div_ceil(with_dead.max(1));
        let (later, first) = self.parts.split_at(self.dead_lettering.turn % self.parts.len().max(1));
        let of_parts = first.iter().chain(later).flat_map(|part| {
            part.window.dead().take(share).map(|dead| DeadRecord {
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
    fn turn_after(&self, dead_records: &[DeadRecord]) -> usize {
        let last = dead_records.last().and_then(|dead_record| self.index.get(&dead_record.key));
        last.map_or(0, |at| at + 1)
    }

    /// Where the letters go, or why they cannot.
    fn letters_topic(&self) -> Result<Arc<ResolvedTopic>, String> {
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
    pub(super) fn reread(&mut self, reread: Vec<RereadRecord>, now: Instant) {
        self.dead_lettering.phase = Phase::Resting;
        let (mut letters, mut failure) = (Vec::new(), None);
        let topic = self.letters_topic();
        let (now_ms, uid) = (self.setting.clock.ms(now), Arc::clone(&self.uid));
        for RereadRecord { dead_record, found } in reread {
            let metrics = self.setting.metrics.clone();
            let tenant = self.config.tenant_uid;
            let offset = dead_record.dead.offset;
            let Some(part) = self.part(dead_record.key, dead_record.term) else { continue };
            match (found, &topic) {
                (Ok(Found::Nothing), _) => {
                    // A reset to the same place, or a change of the policy, may have made it another's.
                    if !part.window.begin_letter(offset) {
                        continue;
                    }
                    tracing::warn!(topic = %part.place.topic, partition = part.place.partition, offset, "a dead record was lost to retention");
                    metrics.skipped(tenant, part.window.lose(offset, now_ms));
                    part.changed = true;
                    part.hot = true;
                }
                (Ok(Found::CutOff(end)), _) => self.cut_off(dead_record.key, dead_record.term, end, now),
                (Ok(Found::Beyond), _) => {
                    // Who hears the same for a while begins anew, whether somebody consumes or not.
                    if !part.rereading {
                        self.find_bounds(dead_record.key, dead_record.term, Reading::Again);
                    }
                    failure = Some(cannot_be_read(&dead_record));
                }
                (Err(why), _) => {
                    metrics.dead_letter_failures.inc();
                    failure = Some(why);
                }
                (Ok(Found::Record(_)), Err(why)) => failure = Some(why.clone()),
                (Ok(Found::Record(record)), Ok(topic)) => {
                    // It may live again, by a change of the policy.
                    if !part.window.begin_letter(offset) {
                        continue;
                    }
                    let path = path_of(&record);
                    if path.len() >= PATH_MAX || path.iter().any(|group| **group == *uid) {
                        tracing::warn!(topic = %part.place.topic, partition = part.place.partition, offset, ?path, "a record was given up in a circle of groups");
                        metrics.dead_letter_circles.inc();
                        part.window.letter_written(offset);
                        part.changed = true;
                        part.hot = true;
                        self.dead_lettering.circled += 1;
                        continue;
                    }
                    let (record, size) = letter(*record, &path, &dead_record, &uid, topic, now_ms);
                    letters.push(Letter { key: dead_record.key, term: dead_record.term, offset, record, size });
                }
            }
        }
        self.commits.soon(now);
        if let (Ok(topic), false) = (topic, letters.is_empty()) {
            self.dead_lettering.phase = Phase::Writing;
            self.actions.push(Action::WriteLetters(Letters { topic, letters }));
        }
        if let Some(why) = failure {
            self.letters_failed(why, now);
        }
    }

    pub(super) fn dead_lettered(&mut self, outcomes: Vec<LetterOutcome>, now: Instant) {
        self.dead_lettering.phase = Phase::Resting;
        let mut failure = None;
        for LetterOutcome { key, term, offset, outcome } in outcomes {
            let metrics = self.setting.metrics.clone();
            if outcome.is_ok() {
                metrics.dead_letters.inc();
            }
            let Some(part) = self.part(key, term) else { continue };
            part.hot = true;
            match outcome {
                Ok(()) => {
                    part.window.letter_written(offset);
                    part.changed = true;
                }
                Err(why) => {
                    metrics.dead_letter_failures.inc();
                    part.window.letter_failed(offset);
                    failure = Some(why);
                }
            }
        }
        self.commits.soon(now);
        match failure {
            Some(why) => self.letters_failed(why, now),
            None => {
                self.dead_lettering.failures = 0;
                self.dead_lettering.trouble = None;
                self.dead_lettering.retry_after = None;
            }
        }
    }

    fn letters_failed(&mut self, why: String, now: Instant) {
        if self.dead_lettering.trouble.as_ref() != Some(&why) {
            tracing::warn!(group = %self.name, why, "dead letters cannot be stored");
        }
        let pause = RETRY_MIN.saturating_mul(2_u32.saturating_pow(self.dead_lettering.failures.min(10))).min(RETRY_MAX);
        self.dead_lettering.failures = self.dead_lettering.failures.saturating_add(1);
        self.dead_lettering.trouble = Some(why);
        self.dead_lettering.retry_after = Some(now + pause);
        self.wake_at(now + pause);
    }
}

#[cfg(test)]
impl Letters {
    /// What became of each, in order.
    pub(super) fn outcomes(self, of: Vec<Result<(), String>>) -> Vec<LetterOutcome> {
        let letters = self.letters.into_iter().zip(of);
        letters
            .map(|(Letter { key, term, offset, .. }, outcome)| LetterOutcome { key, term, offset, outcome })
            .collect()
    }
}

/// One of them.
pub(super) struct Letter {
    pub(super) key: PartKey,
    term: u64,
    offset: i64,
    pub(super) record: SinkRecord,
    /// Its logical bytes.
    size: u64,
}

/// Letters to be written, of records that are dead still.
pub(super) struct Letters {
    pub(super) topic: Arc<ResolvedTopic>,
    pub(super) letters: Vec<Letter>,
}

/// Writes them.
pub(super) async fn write(io: Arc<Io>, letters: Letters) -> Vec<LetterOutcome> {
    let Letters { topic, letters } = letters;
    let (mut records, mut sizes, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    for Letter { key, term, offset, record, size } in letters {
        records.push(record);
        sizes.push(size);
        sent.push((key, term, offset));
    }
    let on_resolved = Some(count(io.shared.meter.clone(), Arc::clone(&topic), sizes));
    let until = std::time::Instant::now() + PRODUCE_WITHIN;
    let outcomes = match io.shared.clusters.log(&topic) {
        Ok(log) => log.append(Batch { records, on_resolved }, until).await,
        Err(_) => vec![RecordOutcome::NotPersisted(Failure::Unavailable); sent.len()],
    };
    let letters = sent.into_iter().zip(outcomes).map(|((key, term, offset), outcome)| {
        let outcome = match outcome {
            RecordOutcome::Persisted { .. } => Ok(()),
            RecordOutcome::NotPersisted(why) | RecordOutcome::PossiblyPersisted(why) => {
                Err(format!("the dead-letter topic does not take records: {why}"))
            }
        };
        LetterOutcome { key, term, offset, outcome }
    });
    letters.collect()
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
    use std::collections::BTreeSet;

    use crate::groups::dispatch::part::Part;
    use crate::groups::dispatch::reading::Place;
    use crate::groups::dispatch::testing;
    use crate::groups::window::{Bounds, Policy, Seen, Window};

    use super::*;

    /// A partition that has read so many records, which are all dead.
    fn dead_part(group: &Group, partition: i32, dead: i64) -> Part {
        let policy = Policy {
            key_ordered: false,
            ack_deadline_ms: 1_000,
            max_attempts: Some(1),
            backoff_min_ms: 0,
            backoff_max_ms: 0,
        };
        let mut window = Window::start_at(0, policy, Bounds::default());
        let seen: Vec<Seen> = (0..dead).map(|offset| Seen { offset, key: None, bytes: 1 }).collect();
        window.read(&seen, dead);
        for offset in 0..dead {
            let lease = window.lease(offset, 0).expect("ready");
            window.refuse(offset, lease.attempt, None, "no".into(), 0);
        }
        let assigned = testing::partition(group, partition);
        let topic = Arc::clone(&group.topics[&assigned.topic]);
        let (name, group) = (Arc::clone(&assigned.topic), Arc::clone(&group.uid));
        let place = Place { topic: name, topic_id: assigned.topic_id, partition, share: 0, group, last_epoch: None };
        Part::new(topic, place, assigned, 1, window)
    }

    /// A group whose letters go into its own topic.
    fn group() -> Group {
        let mut group = testing::group();
        let mut config = (*group.config).clone();
        config.dead_letter_topic = config.topics.first().cloned();
        group.config = Arc::new(config);
        group
    }

    /// The partitions of the batch that is planned now, one for each record; nothing comes of it.
    fn planned(group: &mut Group) -> Vec<i32> {
        let partitions = group.dead_records().iter().map(|dead_record| dead_record.key.1).collect();
        group.plan_letters(Instant::now());
        assert!(group.dead_lettering.is_busy());
        group.dead_lettering.phase = Phase::Resting;
        partitions
    }

    #[tokio::test]
    async fn partitions_have_their_turn_for_letters_whatever_becomes_of_those_before() {
        let mut group = group();
        let count = i32::try_from(BATCH * 3 / 2).expect("few");
        for partition in 0..count {
            let part = dead_part(&group, partition, 1);
            group.add_part(part);
        }
        let (first, second) = (planned(&mut group), planned(&mut group));
        assert_eq!((first.len(), second.len()), (BATCH, BATCH));
        let all: BTreeSet<i32> = first.iter().chain(&second).copied().collect();
        assert_eq!(all, (0..count).collect(), "none waits for a third batch");
    }

    #[tokio::test]
    async fn partitions_share_a_batch_alike() {
        let mut group = group();
        for partition in 0..3 {
            let part = dead_part(&group, partition, 1_000);
            group.add_part(part);
        }
        let planned = planned(&mut group);
        let of = |wanted| planned.iter().filter(|partition| **partition == wanted).count();
        assert_eq!([of(0), of(1), of(2)], [34, 34, 32]);
    }
}
