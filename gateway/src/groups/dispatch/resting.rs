//! A group that nobody dispatches: its status and a trial reset, from Kafka alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use sluice_proto::stream::v1::{
    DeliveryState, GroupStatus, PartitionStatus, ResetOffsetsRequest, ResetOffsetsResponse,
};
use sluice_types::error::Error;
use sluice_wire::{CommittedOffset, Committer, OffsetAt, PartitionResults};

use crate::data::failure;
use crate::groups::dispatch::explaining::{self, Notes, PartNote};
use crate::groups::dispatch::group::policy_of;
use crate::groups::dispatch::losing::CutOff;
use crate::groups::dispatch::positions;
use crate::groups::dispatch::resetting::{Move, nothing_selected, response, selects, targets};
use crate::groups::dispatch::shared::Io;
use crate::groups::dispatch::status::skipped_range;
use crate::groups::model::{Inspected, ResolvedGroup};
use crate::groups::window::{Bounds, Window};
use crate::view::ResolvedTopic;
use crate::view::TenantEntry;

/// The group's topics that exist, and the names of those that do not.
fn topics_of(config: &ResolvedGroup, tenant: &TenantEntry) -> (Vec<Arc<ResolvedTopic>>, Vec<String>) {
    let names = tenant.names();
    let (mut topics, mut missing) = (Vec::new(), Vec::new());
    for id in &config.topics {
        match names.topic_in(config.namespace_uid, id) {
            Some(topic) => topics.push(topic),
            None => missing.push(format!("namespaces/{}/topics/{id}", config.namespace_id)),
        }
    }
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    (topics, missing)
}

async fn committed(
    io: &Io,
    config: &ResolvedGroup,
    timeout: Duration,
) -> Result<PartitionResults<Option<CommittedOffset>>, Error> {
    let found = io.handles.wire.committed_offsets(config.physical.as_str(), Committer::Outside, None, timeout).await;
    match found {
        Ok(found) => Ok(found),
        // Nobody ever consumed.
        Err(error) if error.kafka_code() == Some(sluice_wire::code::GROUP_ID_NOT_FOUND) => Ok(BTreeMap::new()),
        Err(error) => Err(failure::reading(error, &config.name)),
    }
}

/// How the group stands.
pub(super) async fn inspect(
    io: &Io,
    config: &ResolvedGroup,
    tenant: &TenantEntry,
    deadline: Instant,
) -> Result<Inspected, Error> {
    let (topics, missing_topics) = topics_of(config, tenant);
    let (partitions, notes) = look(io, config, &topics, deadline).await?.into_iter().unzip();
    let state = if topics.is_empty() { DeliveryState::NoTopics } else { DeliveryState::NoRecords };
    let mut status = GroupStatus {
        group: config.name.clone(),
        state: state.into(),
        partitions,
        missing_topics,
        ..GroupStatus::default()
    };
    let notes = Notes { has_credit: true, ack_deadline: config.ack_deadline, parts: notes, ..Notes::default() };
    explaining::complete(&mut status, &notes);
    Ok(Inspected { dispatching: false, status })
}

/// How the group stands in each partition of some of its topics.
pub(super) async fn look(
    io: &Io,
    config: &ResolvedGroup,
    topics: &[Arc<ResolvedTopic>],
    deadline: Instant,
) -> Result<Vec<(PartitionStatus, PartNote)>, Error> {
    let known = committed(io, config, deadline.saturating_duration_since(Instant::now())).await?;
    let mut looked = Vec::new();
    for topic in topics {
        let numbers: Vec<i32> = (0..topic.partitions).collect();
        let name = topic.physical.as_str();
        let find = |at| positions::find_each(&io.handles.wire, name, &numbers, at);
        let (starts, ends) = tokio::join!(find(OffsetAt::Earliest), find(OffsetAt::Latest));
        let position =
            |partition| known.get(&(name.to_owned(), partition)).and_then(|found| found.as_ref().ok()?.as_ref());
        let is_new = numbers.iter().all(|partition| position(*partition).is_none());
        let begins = match (is_new, positions::offset_at(positions::start_of(config))) {
            (true, at) if at != OffsetAt::Earliest => find(at).await,
            _ => starts.clone(),
        };
        for partition in numbers {
            let log = Log::of(partition, [&starts, &ends, &begins]);
            looked.push(partition_status(io, config, topic, partition, log, position(partition)));
        }
    }
    Ok(looked)
}

/// Where the log of a partition begins and ends, and where a group without a position would begin.
struct Log {
    start: i64,
    end: i64,
    begin: i64,
}

impl Log {
    fn of(partition: i32, found: [&BTreeMap<i32, Result<i64, sluice_wire::Error>>; 3]) -> Option<Self> {
        let of = |found: &BTreeMap<i32, Result<i64, _>>| {
            found.get(&partition).and_then(|found| found.as_ref().ok().copied())
        };
        let [start, end, begin] = found.map(of);
        Some(Self { start: start?, end: end?, begin: begin? })
    }
}

fn partition_status(
    io: &Io,
    config: &ResolvedGroup,
    topic: &ResolvedTopic,
    partition: i32,
    log: Option<Log>,
    position: Option<&CommittedOffset>,
) -> (PartitionStatus, PartNote) {
    let now_ms = io.shared.setting.clock.ms(Instant::now());
    let mut status = PartitionStatus {
        topic: topic.name.clone(),
        partition,
        committed_offset: position.map(|position| position.offset),
        state: DeliveryState::NoRecords.into(),
        ..PartitionStatus::default()
    };
    let window = position.map(|position| {
        Window::restore(position.offset, &position.metadata, policy_of(config), Bounds::default(), now_ms).0
    });
    let mut note = PartNote::default();
    let Some(log) = log else {
        status.state = DeliveryState::ClusterUnavailable.into();
        note.trouble = Some("its leader does not answer".to_owned());
        status.skipped = window.and_then(|window| window.skipped()).map(skipped_range);
        return (status, note);
    };
    status.end_offset = log.end;
    note.from = Some(log.begin);
    if let Some(mut window) = window {
        status.acked_ahead_records = window.figures().acked_ahead;
        // As whoever takes the group will find.
        window.lose_below(log.start, now_ms, |_| false);
        let from = window.base().max(log.start);
        (note.from, note.ahead) = (Some(from), (log.end - from).max(0) - window.lag(from, log.end));
        status.skipped = window.skipped().map(skipped_range);
        if window.base() > log.end {
            note.cut_off = Some(CutOff { position: window.base(), end: log.end, to: log.end, at_ms: now_ms });
        }
    }
    (status, note)
}

/// What a reset would do.
pub(super) async fn try_reset(
    io: &Io,
    config: &ResolvedGroup,
    tenant: &TenantEntry,
    request: &ResetOffsetsRequest,
    deadline: Instant,
) -> Result<ResetOffsetsResponse, Error> {
    let (topics, _) = topics_of(config, tenant);
    let known = committed(io, config, deadline.saturating_duration_since(Instant::now())).await?;
    let mut moves = Vec::new();
    for topic in topics {
        let name: Arc<str> = topic.physical.as_str().into();
        for partition in (0..topic.partitions).filter(|partition| selects(request, &topic.name, *partition)) {
            let position = known.get(&(name.to_string(), partition)).and_then(|found| found.as_ref().ok()?.as_ref());
            moves.push(Move {
                key: (topic.topic_uid, partition),
                topic: Arc::clone(&name),
                name: topic.name.clone(),
                from: position.map(|position| position.offset),
                to: 0,
            });
        }
    }
    if moves.is_empty() {
        return Err(nothing_selected(request, config));
    }
    Ok(response(&targets(&io.handles.wire, request, moves).await?))
}
