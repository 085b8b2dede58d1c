//! How a group fares: states, figures and findings, without disturbing its delivery.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use sluice_proto::stream::v1::{Consumer, DeliveryState, GroupStatus, PartitionStatus, SkippedRange};
use sluice_proto::wkt::Timestamp;
use sluice_types::limits::GROUP_CONSUMERS_MAX;

use crate::groups::dispatch::action::{Action, Membership};
use crate::groups::dispatch::command::Reply;
use crate::groups::dispatch::consumers::Attached;
use crate::groups::dispatch::explaining;
use crate::groups::dispatch::group::{Group, Stage};
use crate::groups::dispatch::inspecting::{Draft, Inspection};
use crate::groups::dispatch::opening::ToOpen;
use crate::groups::dispatch::part::Part;
use crate::groups::dispatch::resetting::RECENT;
use crate::groups::model::Inspected;
use crate::groups::window::Skipped;
use crate::view::ResolvedTopic;

/// A group that Kafka confirmed within this is told to be served, unless its last heartbeat failed.
const CONFIRMED_LATELY: Duration = Duration::from_secs(8);

/// One partition of it.
struct PartDraft {
    status: PartitionStatus,
    note: explaining::PartNote,
    ask: Ask,
}

/// What is to be asked for of a partition.
enum Ask {
    Nothing,
    /// Its end, in its topic in Kafka.
    End(Arc<str>),
    /// Everything: it is not open.
    Position,
}

impl Group {
    /// Why records flow or do not.
    pub(super) fn state(&self) -> DeliveryState {
        // Between two heartbeats there may be a moment too long for handing out records; it is not worth telling.
        let now = self.moment.at;
        let is_between_beats = |member: &Membership| {
            let confirmed = |at| now.saturating_duration_since(at) < CONFIRMED_LATELY;
            !member.is_failing && member.confirmed_at.is_some_and(confirmed)
        };
        let is_confirmed = self.is_confirmed() || self.member().is_some_and(is_between_beats);
        match self.stage {
            Stage::NoTopics => DeliveryState::NoTopics,
            Stage::Running if is_confirmed && !self.parts.is_empty() => self.running_state(),
            Stage::Running if is_confirmed && self.trouble.is_none() && !self.none_opens() => DeliveryState::Assigning,
            Stage::Joining { .. } if self.trouble.is_none() => DeliveryState::Assigning,
            Stage::Running | Stage::Joining { .. } => DeliveryState::ClusterUnavailable,
        }
    }

    /// Whether something was assigned and nothing of it can be opened.
    fn none_opens(&self) -> bool {
        !self.to_open.is_empty() && !self.is_opening()
    }

    fn running_state(&self) -> DeliveryState {
        let rank = |state: &DeliveryState| match state {
            DeliveryState::Flowing => 0,
            DeliveryState::ClusterUnavailable => 1,
            DeliveryState::WindowFull => 2,
            DeliveryState::CatchingUp => 3,
            DeliveryState::WaitingForAcks => 4,
            _ => 5,
        };
        let closed = self.to_open.iter().filter(|one| one.trouble.is_some());
        let states = self.parts.iter().map(part_state).chain(closed.map(|_| DeliveryState::ClusterUnavailable));
        states.min_by_key(rank).unwrap_or(DeliveryState::NoRecords)
    }

    pub(super) fn inspect(&mut self, deadline: Instant, reply: Reply<Inspected>, now: Instant) {
        let draft = self.draft(now);
        let is_closed = |topic: &&Arc<ResolvedTopic>| draft.closed.keys().any(|(name, _)| *name == topic.name);
        let closed_topics: Vec<_> = self.topics.values().filter(is_closed).cloned().collect();
        let half = now + deadline.saturating_duration_since(now) / 2;
        let config = Arc::clone(&self.config);
        self.actions.push(Action::Inspect(Box::new(Inspection { draft, config, closed_topics, half, reply })));
    }

    fn draft(&self, now: Instant) -> Draft {
        let clock = self.setting.clock;
        let time = |ms: i64| Some(Timestamp::from_millis(ms));
        let mut notes = explaining::Notes {
            trouble: self.trouble.clone().or_else(|| self.commits.is_failing().then(|| "commits fail".to_owned())),
            dead_lettering: self.dead_lettering.trouble.clone(),
            circled: self.dead_lettering.circled,
            ack_deadline: self.config.ack_deadline,
            has_consumers: false,
            has_credit: true,
            parts: Vec::new(),
        };
        let open = self.parts.iter().map(|part| self.draft_open(part));
        let closed = self.to_open.iter().filter_map(|one| self.draft_closed(one));
        let mut parts: Vec<PartDraft> = open.chain(closed).chain(self.draft_unassigned()).collect();
        parts.sort_by(|a, b| (&a.status.topic, a.status.partition).cmp(&(&b.status.topic, b.status.partition)));
        let mut unknown: BTreeMap<Arc<str>, Vec<(i32, usize)>> = BTreeMap::new();
        let mut not_open = BTreeMap::new();
        let mut partitions = Vec::with_capacity(parts.len());
        for PartDraft { status, note, ask } in parts {
            match ask {
                Ask::Nothing => {}
                Ask::End(topic) => unknown.entry(topic).or_default().push((status.partition, partitions.len())),
                Ask::Position => drop(not_open.insert((status.topic.clone(), status.partition), partitions.len())),
            }
            notes.parts.push(note);
            partitions.push(status);
        }
        let consumers = self.consumers(now);
        notes.has_consumers = !consumers.is_empty();
        notes.has_credit = self.consumers.attached.is_empty()
            || !self.consumers.waiting.is_empty()
            || self.consumers.attached.iter().any(Attached::has_credit);
        let status = GroupStatus {
            group: self.config.name.clone(),
            state: self.state().into(),
            dispatcher: self.setting.gateway_id.to_string(),
            dispatching_since: time(self.began_ms),
            consumers,
            partitions,
            lag: 0,
            findings: Vec::new(),
            missing_topics: self
                .missing
                .iter()
                .map(|id| format!("namespaces/{}/topics/{id}", self.config.namespace_id))
                .collect(),
        };
        tracing::trace!(group = %self.name, now_ms = clock.ms(now), "looked at");
        Draft { status, unknown, closed: not_open, notes }
    }

    #[cfg(test)]
    pub(super) fn partition_states(&self) -> impl Iterator<Item = DeliveryState> {
        self.draft(Instant::now()).status.partitions.into_iter().map(|partition| partition.state())
    }

    fn draft_open(&self, part: &Part) -> PartDraft {
        let time = |ms: i64| Some(Timestamp::from_millis(ms));
        let figures = part.window.figures();
        let commits = part.commit_failed.map(|_| "commits fail".to_owned());
        let from = part.window.base().max(part.log_start);
        let end = part.end.max(part.window.next_read());
        let note = explaining::PartNote {
            trouble: part.trouble.clone().or(commits),
            dead: figures.dead,
            starved: part.starved,
            from: Some(from),
            is_end_unknown: part.end < 0,
            ahead: end - from - part.window.lag(from, end),
            cut_off: part.cut_off,
        };
        let status = PartitionStatus {
            topic: part.topic.name.clone(),
            partition: part.place.partition,
            committed_offset: part.committed,
            end_offset: end,
            lag: 0,
            window_offsets: figures.window_offsets,
            outstanding_records: figures.outstanding,
            delayed_records: figures.delayed,
            blocked_records: figures.blocked,
            acked_ahead_records: figures.acked_ahead,
            oldest_unacked_offset: figures.oldest_unacked.map(|(offset, _)| offset),
            oldest_unacked_since: figures.oldest_unacked.and_then(|(_, ms)| time(ms)),
            state: part_state(part).into(),
            skipped: part.window.skipped().map(skipped_range),
        };
        // What waits at the end knows where that is, and has nothing that retention could take but what is not done.
        let is_known = part.at_end && part.tailing && part.window.base() >= end;
        PartDraft { status, note, ask: if is_known { Ask::Nothing } else { Ask::End(Arc::clone(&part.place.topic)) } }
    }

    fn draft_closed(&self, one: &ToOpen) -> Option<PartDraft> {
        let topic = self.topics.get(&one.assigned.topic)?;
        let state = match one.trouble {
            Some(_) => DeliveryState::ClusterUnavailable,
            None => DeliveryState::Assigning,
        };
        let mut draft = not_open(topic, one.assigned.partition, state);
        draft.note.trouble.clone_from(&one.trouble);
        Some(draft)
    }

    /// Partitions that the group is to have and was not assigned yet.
    fn draft_unassigned(&self) -> Vec<PartDraft> {
        let state = match self.state() {
            DeliveryState::ClusterUnavailable => DeliveryState::ClusterUnavailable,
            _ => DeliveryState::Assigning,
        };
        let to_open: HashSet<(&str, i32)> =
            self.to_open.iter().map(|one| (&*one.assigned.topic, one.assigned.partition)).collect();
        let of_topic = |topic: &Arc<ResolvedTopic>| {
            let topic = Arc::clone(topic);
            (0..topic.partitions).map(move |partition| (Arc::clone(&topic), partition))
        };
        let all = self.topics.values().flat_map(of_topic);
        let unassigned = all.filter(|(topic, partition)| {
            !self.index.contains_key(&(topic.topic_uid, *partition))
                && !to_open.contains(&(topic.physical.as_str(), *partition))
        });
        unassigned.map(|(topic, partition)| not_open(&topic, partition, state)).collect()
    }

    fn consumers(&self, now: Instant) -> Vec<Consumer> {
        let clock = self.setting.clock;
        let time = |at: Instant| Some(Timestamp::from_millis(clock.ms(at)));
        let attached = self.consumers.attached.iter().map(|attached| Consumer {
            service_account: attached.caller.account.to_string(),
            kind: if attached.returns_credit { "SUBSCRIBE" } else { "CONSUME" }.to_owned(),
            gateway: attached.caller.door.to_string(),
            outstanding_records: attached.outstanding,
            credit_records: i64::try_from(attached.credit_records).unwrap_or(i64::MAX),
            since: time(attached.since),
        });
        let recent = self.consumers.recent.iter().filter(|(caller, recent)| {
            now < recent.last + RECENT || self.consumers.waiting.iter().any(|waiting| waiting.caller == **caller)
        });
        let pulls = recent.map(|(caller, recent)| Consumer {
            service_account: caller.account.to_string(),
            kind: "PULL".to_owned(),
            gateway: caller.door.to_string(),
            outstanding_records: 0,
            credit_records: -1,
            since: time(recent.since),
        });
        attached.chain(pulls).take(GROUP_CONSUMERS_MAX).collect()
    }
}

fn not_open(topic: &ResolvedTopic, partition: i32, state: DeliveryState) -> PartDraft {
    let status =
        PartitionStatus { topic: topic.name.clone(), partition, state: state.into(), ..PartitionStatus::default() };
    PartDraft { status, note: explaining::PartNote::default(), ask: Ask::Position }
}

/// As it is told.
pub(super) fn skipped_range(skipped: Skipped) -> SkippedRange {
    SkippedRange {
        from_offset: skipped.from,
        to_offset: skipped.to,
        time: Some(Timestamp::from_millis(skipped.at)),
        total_offsets: i64::try_from(skipped.total).unwrap_or(i64::MAX),
    }
}

/// Why records of one partition flow or do not.
pub(super) fn part_state(part: &Part) -> DeliveryState {
    let figures = part.window.figures();
    let is_behind = !part.at_end || !part.wants.is_empty();
    let is_reading = (part.reading || part.rereading) && !part.tailing;
    let knows_of_more = part.starved || part.window.next_read() < part.end;
    if part.trouble.is_some() {
        DeliveryState::ClusterUnavailable
    } else if figures.ready > 0 {
        DeliveryState::Flowing
    } else if !part.window.has_room() {
        DeliveryState::WindowFull
    } else if is_behind && (is_reading || knows_of_more) {
        DeliveryState::CatchingUp
    } else if figures.outstanding + figures.delayed + figures.blocked + figures.dead > 0 {
        DeliveryState::WaitingForAcks
    } else {
        DeliveryState::NoRecords
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::groups::dispatch::testing;

    use super::*;

    #[tokio::test]
    async fn a_group_that_is_still_assigning_tells_of_its_partitions_and_no_lag_of_zero() {
        let mut group = testing::group();
        let now = Instant::now();
        let (reply, answer) = tokio::sync::oneshot::channel();
        group.inspect(now + Duration::from_secs(1), reply, now);
        let Some(Action::Inspect(inspection)) = group.actions.pop() else { panic!("nothing is asked") };
        inspection.run(&testing::io()).await;
        let status = answer.await.expect("sent").expect("a status").status;
        let lags: Vec<i64> = status.partitions.iter().map(|partition| partition.lag).collect();
        assert_eq!((status.lag, lags), (-1, vec![-1, -1]), "no cluster is there to ask");
        group.publish_figures(now);
        assert_eq!(group.figures.lag(), None);
    }
}
