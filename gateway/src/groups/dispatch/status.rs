//! How a group fares: states, figures and findings, without disturbing its delivery.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use sluice_proto::stream::v1::{Consumer, DeliveryState, GroupStatus, PartitionStatus, SkippedRange};
use sluice_proto::wkt::Timestamp;
use sluice_types::limits::GROUP_CONSUMERS_MAX;
use sluice_wire::OffsetAt;

use crate::groups::dispatch::command::Reply;
use crate::groups::dispatch::consumers::Attached;
use crate::groups::dispatch::explaining;
use crate::groups::dispatch::group::{Done, Group, Stage};
use crate::groups::dispatch::opening::ToOpen;
use crate::groups::dispatch::part::Part;
use crate::groups::dispatch::positions;
use crate::groups::dispatch::resetting::RECENT;
use crate::groups::model::Inspected;
use crate::groups::window::Skipped;

/// A group that Kafka confirmed within this is told to be served, unless its last heartbeat failed.
const CONFIRMED_LATELY: Duration = Duration::from_secs(8);

/// Everything but ends that have to be asked for.
struct Draft {
    status: GroupStatus,
    /// By topic in Kafka: partitions whose end is not known, with their places in the status.
    unknown: BTreeMap<Arc<str>, Vec<(i32, usize)>>,
    notes: explaining::Notes,
}

/// One partition of it.
struct PartDraft {
    status: PartitionStatus,
    note: explaining::PartNote,
    /// Its topic in Kafka, if its end is to be asked for.
    ask: Option<Arc<str>>,
}

impl Group {
    /// Why records flow or do not.
    pub(super) fn state(&self) -> DeliveryState {
        // Between two heartbeats there may be a moment too long for handing out records; it is not worth telling.
        let is_between_beats = |member: &sluice_wire::GroupMember| {
            !member.is_failing() && member.since_confirmed().is_some_and(|since| since < CONFIRMED_LATELY)
        };
        let is_confirmed = self.is_confirmed() || self.member.as_ref().is_some_and(is_between_beats);
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
        let shared = Arc::clone(&self.shared);
        self.work.push(
            async move {
                let Draft { mut status, unknown, mut notes } = draft;
                let ask = async {
                    for (topic, partitions) in unknown {
                        let numbers: Vec<i32> = partitions.iter().map(|(partition, _)| *partition).collect();
                        let find = |at| positions::find_each(&shared, &topic, &numbers, at);
                        let (starts, ends) = tokio::join!(find(OffsetAt::Earliest), find(OffsetAt::Latest));
                        for (partition, at) in partitions {
                            if let Some(Ok(end)) = ends.get(&partition) {
                                status.partitions[at].end_offset = *end;
                            }
                            if let Some(Ok(start)) = starts.get(&partition) {
                                notes.parts[at].begin_at(*start);
                            }
                        }
                    }
                };
                let half = now + deadline.saturating_duration_since(now) / 2;
                let _as_far_as_it_came = tokio::time::timeout_at(half, ask).await;
                explaining::complete(&mut status, &notes);
                let _gone = reply.send(Ok(Inspected { dispatching: true, status }));
                Done::Over
            }
            .boxed(),
        );
    }

    fn draft(&self, now: Instant) -> Draft {
        let clock = self.shared.clock;
        let time = |ms: i64| Some(Timestamp::from_millis(ms));
        let mut notes = explaining::Notes {
            trouble: self.trouble.clone().or_else(|| self.commits.is_failing().then(|| "commits fail".to_owned())),
            burial: self.burial.trouble.clone(),
            circled: self.burial.circled,
            ack_deadline: self.config.ack_deadline,
            has_consumers: false,
            has_credit: true,
            parts: Vec::new(),
        };
        let open = self.parts.iter().map(|part| self.draft_open(part));
        let closed = self.to_open.iter().filter_map(|one| self.draft_closed(one));
        let mut parts: Vec<PartDraft> = open.chain(closed).collect();
        parts.sort_by(|a, b| (&a.status.topic, a.status.partition).cmp(&(&b.status.topic, b.status.partition)));
        let mut unknown: BTreeMap<Arc<str>, Vec<(i32, usize)>> = BTreeMap::new();
        let mut partitions = Vec::with_capacity(parts.len());
        for PartDraft { status, note, ask } in parts {
            if let Some(topic) = ask {
                unknown.entry(topic).or_default().push((status.partition, partitions.len()));
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
            dispatcher: self.shared.gateway_id.to_string(),
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
        Draft { status, unknown, notes }
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
        PartDraft { status, note, ask: (!is_known).then(|| Arc::clone(&part.place.topic)) }
    }

    fn draft_closed(&self, one: &ToOpen) -> Option<PartDraft> {
        let topic = self.topics.get(&one.assigned.topic)?;
        let state = match one.trouble {
            Some(_) => DeliveryState::ClusterUnavailable,
            None => DeliveryState::Assigning,
        };
        let status = PartitionStatus {
            topic: topic.name.clone(),
            partition: one.assigned.partition,
            state: state.into(),
            ..PartitionStatus::default()
        };
        let note = explaining::PartNote { trouble: one.trouble.clone(), ..explaining::PartNote::default() };
        Some(PartDraft { status, note, ask: Some(Arc::clone(&one.assigned.topic)) })
    }

    fn consumers(&self, now: Instant) -> Vec<Consumer> {
        let clock = self.shared.clock;
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
