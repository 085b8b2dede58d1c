//! A member's side of the group protocol: what to send, and what an answer means. No I/O, no clock.
//!
//! A partition is owned from the moment its name is known and the member was told, until it was released after being
//! revoked. After a failure the next heartbeat carries everything, so that a broker whose answer was lost recognises a
//! member that is one epoch behind.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::member::{MemberEvent, TopicPartition};
use crate::error::Error;
use crate::types::KafkaTopicId;

/// A partition as brokers name it.
pub(super) type PartitionKey = (KafkaTopicId, i32);

/// What a heartbeat says. `None` means "as before".
#[derive(Debug)]
pub(super) struct Beat {
    pub(super) group: Arc<str>,
    pub(super) member_id: Arc<str>,
    pub(super) epoch: i32,
    pub(super) rebalance_timeout_ms: Option<i32>,
    pub(super) topics: Option<Arc<[Arc<str>]>>,
    pub(super) owned: Option<BTreeSet<PartitionKey>>,
}

/// What a coordinator said to it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) epoch: i32,
    pub(super) interval: Duration,
    pub(super) assignment: Option<BTreeSet<PartitionKey>>,
}

/// What a coordinator is told.
struct Report {
    topics: Arc<[Arc<str>]>,
    owned: BTreeSet<PartitionKey>,
}

/// One membership.
pub(super) struct MemberState {
    pub(super) group: Arc<str>,
    pub(super) member_id: Arc<str>,
    pub(super) topics: Arc<[Arc<str>]>,
    rebalance_timeout_ms: i32,
    /// 0 until joined.
    epoch: i32,
    owned: BTreeSet<PartitionKey>,
    /// Of the owned, those the member was asked to give back.
    releasing: BTreeSet<PartitionKey>,
    target: Option<BTreeSet<PartitionKey>>,
    names: HashMap<KafkaTopicId, Arc<str>>,
    /// What the coordinator knows of us; `None` makes the next heartbeat complete.
    reported: Option<Report>,
    in_flight: Option<Report>,
    /// Whether the member heard of an assignment since it joined, be it empty.
    announced: bool,
}

impl MemberState {
    pub(super) fn new(group: Arc<str>, member_id: Arc<str>, topics: Arc<[Arc<str>]>, rebalance: Duration) -> Self {
        Self {
            group,
            member_id,
            topics,
            rebalance_timeout_ms: i32::try_from(rebalance.as_millis()).unwrap_or(i32::MAX),
            epoch: 0,
            owned: BTreeSet::new(),
            releasing: BTreeSet::new(),
            target: None,
            names: HashMap::new(),
            reported: None,
            in_flight: None,
            announced: false,
        }
    }

    /// The epoch to commit with, once joined.
    pub(super) fn epoch(&self) -> Option<i32> {
        Some(self.epoch).filter(|&epoch| epoch > 0)
    }

    /// The heartbeat to send now.
    pub(super) fn beat(&mut self) -> Beat {
        let told = self.reported.as_ref();
        let beat = Beat {
            group: Arc::clone(&self.group),
            member_id: Arc::clone(&self.member_id),
            epoch: self.epoch,
            rebalance_timeout_ms: told.is_none().then_some(self.rebalance_timeout_ms),
            topics: told.is_none_or(|told| told.topics != self.topics).then(|| Arc::clone(&self.topics)),
            owned: told.is_none_or(|told| told.owned != self.owned).then(|| self.owned.clone()),
        };
        self.in_flight = Some(Report { topics: Arc::clone(&self.topics), owned: self.owned.clone() });
        beat
    }

    /// True if the coordinator should hear of what changed here.
    pub(super) fn owes_report(&self) -> bool {
        self.reported.as_ref().is_some_and(|told| told.topics != self.topics || told.owned != self.owned)
    }

    /// Wants other topics from now on.
    pub(super) fn subscribe(&mut self, topics: Arc<[Arc<str>]>) {
        self.topics = topics;
    }

    /// Takes the answer to the last heartbeat; [`MemberState::reconcile`] acts on it.
    pub(super) fn answered(&mut self, epoch: i32, assignment: Option<BTreeSet<PartitionKey>>) {
        self.epoch = epoch;
        self.reported = self.in_flight.take();
        if assignment.is_some() {
            self.target = assignment;
        }
    }

    /// The last heartbeat may or may not have arrived.
    pub(super) fn failed(&mut self) {
        self.reported = None;
    }

    /// The group does not know us any more, or not in this epoch: nothing is owned. The next heartbeat joins.
    pub(super) fn fenced(&mut self, error: Error) -> MemberEvent {
        let partitions = self.named(&self.owned);
        self.owned.clear();
        self.releasing.clear();
        self.target = None;
        self.reported = None;
        self.epoch = 0;
        self.announced = false;
        MemberEvent::Fenced { partitions, error }
    }

    /// Takes note of topics' names.
    pub(super) fn learn(&mut self, names: impl IntoIterator<Item = (KafkaTopicId, Arc<str>)>) {
        self.names.extend(names);
        let (owned, target) = (&self.owned, &self.target);
        let is_used = |id: &KafkaTopicId| owned.iter().chain(target.iter().flatten()).any(|(topic, _)| topic == id);
        self.names.retain(|id, _| is_used(id));
    }

    /// Assigned topics whose names are not known.
    pub(super) fn nameless(&self) -> BTreeSet<KafkaTopicId> {
        let assigned = self.target.iter().flatten();
        assigned.map(|(topic, _)| *topic).filter(|topic| !self.names.contains_key(topic)).collect()
    }

    /// Moves what is owned towards what is assigned: says what the member must do.
    pub(super) fn reconcile(&mut self) -> Vec<MemberEvent> {
        let Some(target) = &self.target else { return Vec::new() };
        let mut events = Vec::new();
        let revoked: BTreeSet<_> =
            self.owned.difference(target).filter(|key| !self.releasing.contains(key)).copied().collect();
        let is_named = |(topic, _): &&PartitionKey| self.names.contains_key(topic);
        let assigned: BTreeSet<_> = target.difference(&self.owned).filter(is_named).copied().collect();
        let is_first = !self.announced && self.nameless().is_empty();
        if !revoked.is_empty() {
            events.push(MemberEvent::Revoked(self.named(&revoked)));
            self.releasing.extend(revoked);
        }
        if !assigned.is_empty() || is_first {
            events.push(MemberEvent::Assigned(self.named(&assigned)));
            self.owned.extend(assigned);
            self.announced = true;
        }
        events
    }

    /// The member has stopped using these revoked partitions. Others are not released.
    pub(super) fn release(&mut self, partitions: &[TopicPartition]) {
        for key in partitions.iter().map(|partition| (partition.topic_id, partition.partition)) {
            if self.releasing.remove(&key) {
                self.owned.remove(&key);
            }
        }
    }

    /// What the member may use now.
    pub(super) fn usable(&self) -> Vec<TopicPartition> {
        self.named(&self.owned.difference(&self.releasing).copied().collect())
    }

    fn named(&self, keys: &BTreeSet<PartitionKey>) -> Vec<TopicPartition> {
        let named = |&(topic_id, partition): &PartitionKey| {
            let topic = Arc::clone(self.names.get(&topic_id)?);
            Some(TopicPartition { topic, topic_id, partition })
        };
        keys.iter().filter_map(named).collect()
    }
}
