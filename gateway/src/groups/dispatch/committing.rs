//! Commits: one under way per group, with everything that changed until it begins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use sluice_types::TopicUid;
use sluice_wire::{CommitOffset, Error, PartitionResults, code};

use crate::groups::dispatch::action::Action;
use crate::groups::dispatch::group::Group;
use crate::groups::dispatch::part::{Part, PartKey};
use crate::groups::dispatch::positions::Member;

/// Between the beginnings of two commits: what comes meanwhile goes together.
const GAP: Duration = Duration::from_millis(5);
/// What nobody waits for is committed within this.
const LAZY: Duration = Duration::from_millis(500);
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// When the next commit begins.
pub(super) struct Commits {
    pub(super) in_flight: bool,
    due: Option<Instant>,
    pub(super) not_before: Instant,
    failures: u32,
}

/// One that is to be made.
pub(super) struct Commit {
    /// In whose name.
    pub(super) member: Member,
    pub(super) offsets: Vec<CommitOffset>,
    ticket: Ticket,
}

/// What it is about, for when it is over.
struct Ticket {
    /// Partition, term, and the change it holds.
    marks: BTreeMap<PartKey, Mark>,
    /// Whose records Kafka's topics hold.
    topics: BTreeMap<String, TopicUid>,
    epoch: i32,
    began: Instant,
}

/// What became of one.
pub(super) struct Committed {
    ticket: Ticket,
    outcome: Result<PartitionResults<()>, Error>,
}

impl Commit {
    /// It is over.
    pub(super) fn over(self, outcome: Result<PartitionResults<()>, Error>) -> Committed {
        Committed { ticket: self.ticket, outcome }
    }
}

struct Mark {
    term: u64,
    offset: i64,
    sequence: u64,
}

impl Commits {
    pub(super) fn new(now: Instant) -> Self {
        Self { in_flight: false, due: None, not_before: now, failures: 0 }
    }

    /// Somebody waits.
    pub(super) fn soon(&mut self, now: Instant) {
        self.due = Some(self.due.map_or(now, |due| due.min(now)));
    }

    /// Whether commits fail at the moment.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

impl Group {
    pub(super) fn plan_commit(&mut self, now: Instant) {
        if self.commits.in_flight {
            return;
        }
        if !self.parts.iter().any(|part| part.wants_commit(now)) {
            // Those that failed alone wait alone.
            if let Some(at) = self.parts.iter().filter_map(Part::commit_waits).min() {
                self.wake_at(at);
            }
            return;
        }
        let due = (*self.commits.due.get_or_insert(now + LAZY)).max(self.commits.not_before);
        if now < due {
            return self.wake_at(due);
        }
        self.begin_commit(now);
    }

    /// Begins a commit of all that changed; false if there is nothing, or nobody to commit as.
    pub(super) fn begin_commit(&mut self, now: Instant) -> bool {
        let Some(member) = self.as_member() else {
            // Fenced, which the next event tells.
            self.commits.not_before = now + RETRY_MIN;
            self.wake_at(now + RETRY_MIN);
            return false;
        };
        let epoch = member.epoch;
        let mut marks = BTreeMap::new();
        let (mut offsets, mut topics) = (Vec::new(), BTreeMap::new());
        for part in self.parts.iter_mut().filter(|part| part.wants_commit(now)) {
            part.changed = false;
            let Some(snapshot) = part.window.snapshot().or_else(|| part.aged.then(|| part.window.current())) else {
                continue;
            };
            marks.insert(part.key(), Mark { term: part.term, offset: snapshot.offset, sequence: snapshot.sequence });
            topics.insert(part.place.topic.to_string(), part.key().0);
            offsets.push(CommitOffset {
                topic: part.place.topic.to_string(),
                partition: part.place.partition,
                offset: snapshot.offset,
                leader_epoch: part.epochs.before(snapshot.offset),
                metadata: snapshot.metadata,
            });
        }
        self.commits.due = None;
        if offsets.is_empty() {
            return false;
        }
        self.commits.in_flight = true;
        self.commits.not_before = now + GAP;
        let ticket = Ticket { marks, topics, epoch, began: now };
        self.actions.push(Action::Commit(Commit { member, offsets, ticket }));
        true
    }

    pub(super) fn committed(&mut self, committed: Committed, now: Instant) {
        self.commits.in_flight = false;
        let Committed { ticket: Ticket { marks, topics, epoch, began }, outcome } = committed;
        match outcome {
            Ok(results) => {
                self.setting.metrics.commit_seconds.observe(now.saturating_duration_since(began).as_secs_f64());
                self.commits.failures = 0;
                self.stale_since = None;
                for ((topic, partition), result) in results {
                    let Some(&uid) = topics.get(&topic) else { continue };
                    let key = (uid, partition);
                    if let Some(mark) = marks.get(&key) {
                        self.part_committed(key, mark, result, now);
                    }
                }
                self.settle_pending();
            }
            Err(error) => {
                self.setting.metrics.commits_failed.inc();
                for (key, mark) in &marks {
                    if let Some(part) = self.part(*key, mark.term) {
                        part.changed = true;
                    }
                }
                if let Some(after) = self.refused(epoch, &error, now) {
                    self.commits.not_before = after;
                } else {
                    self.retry_commit(&error, now);
                }
                self.commits.soon(now);
            }
        }
    }

    fn part_committed(&mut self, key: PartKey, mark: &Mark, result: Result<(), Error>, now: Instant) {
        let Some(topic) = self.part(key, mark.term).map(|part| Arc::clone(&part.place.topic)) else { return };
        let is_in_view = self.topics.contains_key(&topic);
        let Some(part) = self.part(key, mark.term) else { return };
        match result {
            Ok(()) => {
                part.window.committed(mark.sequence);
                part.committed = Some(mark.offset);
                part.committed_sequence = part.committed_sequence.max(mark.sequence);
                part.commit_failed = None;
                part.aged = false;
                part.epochs.drop_below(mark.offset);
            }
            Err(error) => {
                // The coordinator's broker may not have heard of the topic yet: the assignment says whether it is ours. Only a
                // topic that the view does not have any more is gone.
                let is_unknown = error.kafka_code() == Some(code::UNKNOWN_TOPIC_OR_PARTITION);
                if is_unknown && !is_in_view {
                    tracing::info!(topic = %part.place.topic, partition = part.place.partition, "the topic is gone");
                    if let Some(part) = self.remove_part(key) {
                        part.out.values().for_each(|out| self.consumers.came_back(out.holder, out.bytes));
                    }
                    return;
                }
                part.changed = true;
                let failures = part.commit_failed.map_or(0, |(failures, _)| failures);
                part.commit_failed = Some((failures.saturating_add(1), now + pause(failures + 1)));
                tracing::debug!(topic = %part.place.topic, partition = part.place.partition, %error, failures, "cannot commit; trying on");
                self.setting.metrics.commits_failed.inc();
                self.commits.soon(now);
            }
        }
    }

    fn retry_commit(&mut self, error: &Error, now: Instant) {
        self.commits.failures = self.commits.failures.saturating_add(1);
        tracing::debug!(group = %self.name, %error, failures = self.commits.failures, "cannot commit; trying on");
        self.commits.not_before = now + pause(self.commits.failures);
    }
}

fn pause(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(2_u32.saturating_pow(failures.min(5))).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use sluice_wire::{KafkaError, MemberEvent};

    use crate::groups::dispatch::opening::Step;
    use crate::groups::dispatch::positions::{Closed, Known, Position};
    use crate::groups::dispatch::testing;

    use super::*;

    fn refused(part: &Part, now: Instant) -> Committed {
        let error = KafkaError {
            code: code::UNKNOWN_TOPIC_OR_PARTITION,
            name: "UNKNOWN_TOPIC_OR_PARTITION".into(),
            retriable: true,
            message: None,
        };
        let mark = Mark { term: part.term, offset: 5, sequence: part.window.sequence() };
        let results = [((part.place.topic.to_string(), part.place.partition), Err(Error::Kafka(error)))];
        let ticket = Ticket {
            marks: BTreeMap::from([(part.key(), mark)]),
            topics: BTreeMap::from([(part.place.topic.to_string(), part.key().0)]),
            epoch: 1,
            began: now,
        };
        Committed { ticket, outcome: Ok(PartitionResults::from(results)) }
    }

    #[tokio::test]
    async fn a_coordinator_that_does_not_know_the_topic_yet_takes_no_partition_away() {
        let mut group = testing::group();
        let now = Instant::now();
        let assigned = testing::partition(&group, 0);
        let topic = Arc::clone(&group.topics[&assigned.topic]);
        group.member_event(Some(MemberEvent::Assigned(vec![assigned.clone()])));
        let known = Ok(Known::At(Position { offset: 5, leader_epoch: None, metadata: String::new() }));
        group.opening(1, Step::Looked(vec![(Closed { assigned, topic }, known)]), now);
        let committed = refused(&group.parts[0], now);
        group.committed(committed, now);
        let part = group.parts.first().expect("it stays");
        assert!(part.changed && !part.wants_commit(now) && part.wants_commit(now + RETRY_MAX), "tried again, alone");
        assert!(!group.commits.is_failing(), "other partitions do not wait for it");
        // The view has no such topic any more, and nothing revokes what Kafka does not know.
        let committed = refused(&group.parts[0], now);
        group.topics.clear();
        group.committed(committed, now);
        assert!(group.parts.is_empty());
    }
}
