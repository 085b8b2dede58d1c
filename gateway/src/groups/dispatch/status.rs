//! How a group fares: states, figures and findings, without disturbing its delivery.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::time::Instant;

use sluice_proto::stream::v1::{Consumer, DeliveryState, GroupStatus, PartitionStatus, SkippedRange};
use sluice_proto::wkt::Timestamp;
use sluice_types::limits::GROUP_CONSUMERS_MAX;

use crate::groups::dispatch::command::Reply;
use crate::groups::dispatch::consumers::Attached;
use crate::groups::dispatch::delivering::lag_of;
use crate::groups::dispatch::explaining;
use crate::groups::dispatch::group::{Done, Group, Stage};
use crate::groups::dispatch::part::Part;
use crate::groups::dispatch::positions;
use crate::groups::dispatch::resetting::RECENT;
use crate::groups::model::{Inspected, Start};

/// Everything but ends that have to be asked for.
struct Draft {
    status: GroupStatus,
    /// By topic in Kafka: partitions whose end is not known, with their places in the status.
    unknown: BTreeMap<Arc<str>, Vec<(i32, usize)>>,
    notes: explaining::Notes,
}

impl Group {
    /// Why records flow or do not.
    pub(super) fn state(&self) -> DeliveryState {
        match self.stage {
            Stage::NoTopics => DeliveryState::NoTopics,
            Stage::Running if self.is_confirmed() && !self.parts.is_empty() => self.running_state(),
            Stage::Running if self.is_confirmed() && self.trouble.is_none() => DeliveryState::Assigning,
            Stage::Joining { .. } if self.trouble.is_none() => DeliveryState::Assigning,
            Stage::Running | Stage::Joining { .. } => DeliveryState::ClusterUnavailable,
        }
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
        let states = self.parts.iter().map(part_state);
        states.min_by_key(rank).unwrap_or(DeliveryState::NoRecords)
    }

    pub(super) fn inspect(&mut self, deadline: Instant, reply: Reply<Inspected>, now: Instant) {
        let draft = self.draft(now);
        let shared = Arc::clone(&self.shared);
        self.work.push(
            async move {
                let Draft { mut status, unknown, notes } = draft;
                let ask = async {
                    for (topic, partitions) in unknown {
                        let numbers: Vec<i32> = partitions.iter().map(|(partition, _)| *partition).collect();
                        let Ok(ends) = positions::find(&shared, &topic, &numbers, Start::Latest).await else {
                            continue;
                        };
                        for (partition, at) in partitions {
                            if let Some(end) = ends.get(&partition) {
                                status.partitions[at].end_offset = *end;
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
        let mut unknown: BTreeMap<Arc<str>, Vec<(i32, usize)>> = BTreeMap::new();
        let mut parts: Vec<&Part> = self.parts.iter().collect();
        parts.sort_by(|a, b| (&a.topic.name, a.place.partition).cmp(&(&b.topic.name, b.place.partition)));
        let mut notes = explaining::Notes {
            trouble: self.trouble.clone().or_else(|| self.commits.is_failing().then(|| "commits fail".to_owned())),
            burial: self.burial.trouble.clone(),
            ack_deadline: self.config.ack_deadline,
            has_consumers: false,
            has_credit: true,
            parts: Vec::with_capacity(parts.len()),
        };
        let mut partitions = Vec::with_capacity(parts.len());
        for part in parts {
            let figures = part.window.figures();
            if !(part.at_end && part.tailing) {
                unknown
                    .entry(Arc::clone(&part.place.topic))
                    .or_default()
                    .push((part.place.partition, partitions.len()));
            }
            notes.parts.push(explaining::PartNote {
                trouble: part.trouble.clone(),
                dead: figures.dead,
                starved: part.starved,
            });
            partitions.push(PartitionStatus {
                topic: part.topic.name.clone(),
                partition: part.place.partition,
                committed_offset: part.committed,
                end_offset: part.end.max(part.window.next_read()),
                lag: lag_of(part.end, part.window.base(), figures.acked_ahead),
                window_offsets: figures.window_offsets,
                outstanding_records: figures.outstanding,
                delayed_records: figures.delayed,
                blocked_records: figures.blocked,
                acked_ahead_records: figures.acked_ahead,
                oldest_unacked_offset: figures.oldest_unacked.map(|(offset, _)| offset),
                oldest_unacked_since: figures.oldest_unacked.and_then(|(_, ms)| time(ms)),
                state: part_state(part).into(),
                skipped: part.skipped.map(|skipped| SkippedRange {
                    from_offset: skipped.from,
                    to_offset: skipped.to,
                    time: time(skipped.at_ms),
                }),
            });
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
