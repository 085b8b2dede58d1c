//! From an assigned partition to an open one: its position is looked up, or found by the start rule, then reading begins.
//!
//! The assignment is the truth: what was assigned stays until it is revoked. A partition that cannot be opened now (its leader is
//! away, a broker does not know it yet) is tried again by itself, is shown with its trouble, and holds up no other.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use sluice_wire::{Error, TopicPartition};

use crate::groups::dispatch::action::Action;
use crate::groups::dispatch::epochs::Epochs;
use crate::groups::dispatch::group::{Group, Stage};
use crate::groups::dispatch::part::Part;
use crate::groups::dispatch::positions::{self, Closed, Known, Member, Position};
use crate::groups::dispatch::reading::Place;
use crate::groups::model::Start;
use crate::groups::window::{Bounds, Window};

const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// An assigned partition that is not open.
pub(super) struct ToOpen {
    pub(super) assigned: TopicPartition,
    /// A call about it is under way.
    asked: bool,
    not_before: Option<Instant>,
    failures: u32,
    /// Why the last try failed.
    pub(super) trouble: Option<String>,
}

/// What came of the calls about some partitions.
pub(super) enum Step {
    Looked(Vec<(Closed, Result<Known, Error>)>),
    Begun(Vec<(Closed, Result<Position, Error>)>),
    /// The group refused, or could not be asked.
    Failed(Vec<Closed>, Error),
}

impl ToOpen {
    pub(super) fn new(assigned: TopicPartition) -> Self {
        Self { assigned, asked: false, not_before: None, failures: 0, trouble: None }
    }

    fn failed(&mut self, why: String, now: Instant) {
        let pause = RETRY_MIN.saturating_mul(2_u32.saturating_pow(self.failures.min(10))).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.asked = false;
        self.trouble = Some(why);
        self.not_before = Some(now + pause);
    }
}

impl Group {
    /// Whether partitions are about to be opened. Those that could not be are waited for by nobody.
    pub(super) fn is_opening(&self) -> bool {
        self.to_open.iter().any(|one| one.trouble.is_none() && self.topics.contains_key(&one.assigned.topic))
    }

    /// Begins to open what was assigned.
    pub(super) fn open_parts(&mut self, now: Instant) {
        if !matches!(self.stage, Stage::Running) || self.to_open.iter().all(|one| one.asked) {
            return;
        }
        if let Some(after) = self.open_after.filter(|after| now < *after) {
            return self.wake_at(after);
        }
        let Some(member) = self.as_member() else { return self.wake_at(now + RETRY_MIN) };
        let mut closed = Vec::new();
        let mut wake = None::<Instant>;
        for one in self.to_open.iter_mut().filter(|one| !one.asked) {
            // A topic that the view does not have at the moment: its return, or the revocation, comes with a change of the view.
            let Some(topic) = self.topics.get(&one.assigned.topic) else { continue };
            match one.not_before.filter(|at| now < *at) {
                Some(at) => wake = Some(wake.map_or(at, |wake| wake.min(at))),
                None => {
                    one.asked = true;
                    closed.push(Closed { assigned: one.assigned.clone(), topic: Arc::clone(topic) });
                }
            }
        }
        if let Some(at) = wake {
            self.wake_at(at);
        }
        if closed.is_empty() {
            return;
        }
        self.actions.push(Action::LookPositions { member, closed });
    }

    pub(super) fn opening(&mut self, epoch: i32, step: Step, now: Instant) {
        match step {
            Step::Looked(looked) => {
                self.group_answered();
                let mut fresh = Vec::new();
                for (closed, known) in looked {
                    match known {
                        Ok(Known::At(position)) => self.open(epoch, closed, position),
                        Ok(known) => {
                            let rule = self.rule_of(&closed, &known);
                            fresh.push((closed, rule));
                        }
                        Err(error) => self.not_opened(&closed, &error, now),
                    }
                }
                self.begin_fresh(fresh);
            }
            Step::Begun(begun) => {
                self.group_answered();
                for (closed, position) in begun {
                    match position {
                        Ok(position) => self.open(epoch, closed, position),
                        Err(error) => self.not_opened(&closed, &error, now),
                    }
                }
            }
            Step::Failed(closed, error) => {
                let after = self.refused(epoch, &error, now);
                self.open_after = Some(after.unwrap_or(now + RETRY_MIN));
                if after.is_none() {
                    tracing::debug!(group = %self.name, %error, "cannot read positions");
                    self.trouble = Some(error.to_string());
                }
                for closed in closed {
                    if let Some(one) = self.to_open.iter_mut().find(|one| one.assigned == closed.assigned) {
                        one.asked = false;
                    }
                }
            }
        }
    }

    fn group_answered(&mut self) {
        self.trouble = None;
        self.stale_since = None;
        self.open_after = None;
    }

    /// A topic that is begun is begun as a whole, also if some of its partitions cannot be asked at first; those that are added
    /// later are not of that.
    fn rule_of(&mut self, closed: &Closed, known: &Known) -> Start {
        let TopicPartition { topic, partition, .. } = &closed.assigned;
        if *known == Known::Never {
            let of_topic = self.to_open.iter().filter(|one| one.assigned.topic == *topic);
            self.beginning.extend(of_topic.map(|one| (Arc::clone(topic), one.assigned.partition)));
        }
        match self.beginning.contains(&(Arc::clone(topic), *partition)) {
            true => positions::start_of(&self.config),
            false => Start::Earliest,
        }
    }

    fn begin_fresh(&mut self, fresh: Vec<(Closed, Start)>) {
        if fresh.is_empty() {
            return;
        }
        let Some(member) = self.as_member() else {
            // Fenced, which the next event tells.
            let ours =
                self.to_open.iter_mut().filter(|one| fresh.iter().any(|(closed, _)| closed.assigned == one.assigned));
            return ours.for_each(|one| one.asked = false);
        };
        self.actions.push(Action::BeginPositions { member, fresh });
    }

    fn not_opened(&mut self, closed: &Closed, error: &Error, now: Instant) {
        let Closed { assigned, .. } = closed;
        let Some(one) = self.to_open.iter_mut().find(|one| one.assigned == *assigned) else { return };
        if one.trouble.is_none() {
            tracing::info!(group = %self.name, topic = %assigned.topic, partition = assigned.partition, %error, "an assigned partition cannot be opened yet; trying on");
        }
        one.failed(error.to_string(), now);
    }

    fn open(&mut self, epoch: i32, closed: Closed, position: Position) {
        let now_ms = self.setting.clock.ms(self.moment.at);
        let Closed { assigned, topic } = closed;
        let before = self.to_open.len();
        self.to_open.retain(|one| one.assigned != assigned);
        // It may have been taken back meanwhile.
        if self.to_open.len() == before {
            return;
        }
        let Position { offset, leader_epoch, metadata } = position;
        let (window, restored) = Window::restore(offset, &metadata, self.policy, Bounds::default(), now_ms);
        tracing::debug!(group = %self.name, topic = %assigned.topic, partition = assigned.partition, offset, ?restored, "reads on");
        let place = Place {
            topic: Arc::clone(&assigned.topic),
            topic_id: assigned.topic_id,
            partition: assigned.partition,
            share: self.config.tenant_uid.uid().as_u64(),
            group: Arc::clone(&self.uid),
            last_epoch: None,
        };
        let mut part = Part::new(topic, place, assigned, self.terms.next(epoch), window);
        part.epochs = Epochs::restored(offset, leader_epoch);
        self.remove_part(part.key());
        self.add_part(part);
    }

    /// In whose name positions are read and committed now.
    pub(super) fn as_member(&self) -> Option<Member> {
        let member = self.member()?;
        Some(Member { group: Arc::clone(&self.name), id: Arc::clone(&member.id), epoch: member.epoch? })
    }
}

/// Numbers that no other time shares in which anybody had a partition: of the member's epoch, and by chance.
#[derive(Debug)]
pub(super) struct Terms(u64);

impl Terms {
    /// Those that follow from a number that nobody else has.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one, in an epoch.
    pub(super) fn next(&mut self, epoch: i32) -> u64 {
        // SplitMix64: each state comes once, and each looks like chance.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        u64::from(epoch.unsigned_abs()) << 32 | mixed & u64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::stream::v1::DeliveryState;
    use sluice_wire::MemberEvent;

    use crate::groups::dispatch::testing;

    use super::*;

    #[tokio::test]
    async fn what_was_assigned_and_cannot_be_opened_is_shown_and_tried_again_until_it_is_revoked() {
        let mut group = testing::group();
        let now = Instant::now();
        let assigned = [testing::partition(&group, 0), testing::partition(&group, 1)];
        group.member_event(Some(MemberEvent::Assigned(assigned.to_vec())));
        let topic = Arc::clone(&group.topics[&assigned[0].topic]);
        let closed = |at: usize| Closed { assigned: assigned[at].clone(), topic: Arc::clone(&topic) };
        let at = |offset| Ok(Known::At(Position { offset, leader_epoch: None, metadata: String::new() }));
        // As a broker answers that lags behind.
        let unknown = || Error::UnknownPartition { topic: assigned[1].topic.to_string(), partition: 1 };
        group.opening(1, Step::Looked(vec![(closed(0), at(5)), (closed(1), Err(unknown()))]), now);
        assert_eq!((group.parts.len(), group.to_open.len(), group.is_opening()), (1, 1, false));
        group.opening(1, Step::Begun(vec![(closed(1), Err(unknown()))]), now);
        let states: Vec<_> = group.partition_states().collect();
        assert_eq!(states[1], DeliveryState::ClusterUnavailable, "{states:?}");
        let due = group.to_open[0].not_before.expect("a next try");
        assert!(due > now && !group.to_open[0].asked);
        group.opening(1, Step::Looked(vec![(closed(1), at(7))]), now);
        assert_eq!((group.parts.len(), group.to_open.len()), (2, 0));
        assert_eq!(group.parts[1].window.base(), 7);
        // A late answer about what was taken back opens nothing.
        group.give_back(&assigned);
        group.opening(1, Step::Looked(vec![(closed(0), at(5))]), now);
        assert!(group.parts.is_empty());
    }

    #[tokio::test]
    async fn a_topic_is_begun_by_one_rule_though_its_partitions_begin_one_after_the_other() {
        let mut group = testing::group();
        let mut config = (*group.config).clone();
        (config.start, config.create_time_ms) = (Start::Latest, 1_000);
        group.config = Arc::new(config);
        let topic = Arc::clone(group.topics.values().next().expect("a topic"));
        let closed = |group: &Group, partition| Closed {
            assigned: testing::partition(group, partition),
            topic: Arc::clone(&topic),
        };
        let assigned = vec![testing::partition(&group, 0), testing::partition(&group, 1)];
        group.member_event(Some(MemberEvent::Assigned(assigned)));
        let (first, second, added) = (closed(&group, 0), closed(&group, 1), closed(&group, 2));
        assert_eq!(group.rule_of(&first, &Known::Never), Start::Time(1_000), "when it was made");
        assert_eq!(group.rule_of(&second, &Known::Added), Start::Time(1_000), "its neighbour was quicker");
        assert_eq!(group.rule_of(&added, &Known::Added), Start::Earliest, "added later");
    }
}
