//! A group that nobody dispatches: its status and a trial reset, from Kafka alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use sluice_proto::stream::v1::{
    DeliveryState, GroupStatus, PartitionStatus, ResetOffsetsRequest, ResetOffsetsResponse,
};
use sluice_types::error::Error;
use sluice_wire::{CommittedOffset, Committer, PartitionResults};

use crate::data::failure;
use crate::groups::dispatch::explaining::{self, Notes};
use crate::groups::dispatch::group::policy_of;
use crate::groups::dispatch::positions;
use crate::groups::dispatch::resetting::{Move, nothing_selected, response, selects, targets};
use crate::groups::dispatch::shared::Shared;
use crate::groups::model::{Inspected, ResolvedGroup, Start};
use crate::groups::window::{Bounds, Window};
use crate::ports::ResolvedTopic;
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
    shared: &Shared,
    config: &ResolvedGroup,
    timeout: Duration,
) -> Result<PartitionResults<Option<CommittedOffset>>, Error> {
    let found = shared.wire.committed_offsets(config.physical.as_str(), Committer::Outside, None, timeout).await;
    match found {
        Ok(found) => Ok(found),
        // Nobody ever consumed.
        Err(error) if error.kafka_code() == Some(sluice_wire::code::GROUP_ID_NOT_FOUND) => Ok(BTreeMap::new()),
        Err(error) => Err(failure::reading(error, &config.name)),
    }
}

/// How the group stands.
pub(super) async fn inspect(
    shared: &Shared,
    config: &ResolvedGroup,
    tenant: &TenantEntry,
    deadline: Instant,
) -> Result<Inspected, Error> {
    let (topics, missing_topics) = topics_of(config, tenant);
    let mut known = committed(shared, config, deadline.saturating_duration_since(Instant::now())).await?;
    let mut partitions = Vec::new();
    for topic in &topics {
        let numbers: Vec<i32> = (0..topic.partitions).collect();
        let reading = |error| failure::reading(error, &topic.name);
        let name = topic.physical.as_str();
        let ends = positions::find(shared, name, &numbers, Start::Latest).await.map_err(reading)?;
        let mut is_new = true;
        let mut of_topic = Vec::new();
        for partition in numbers {
            let end = ends.get(&partition).copied().unwrap_or(0);
            let position = known.remove(&(name.to_owned(), partition)).and_then(Result::ok).flatten();
            is_new &= position.is_none();
            of_topic.push(partition_status(config, topic, partition, end, position.as_ref()));
        }
        for status in of_topic.iter_mut().filter(|status| status.committed_offset.is_none()) {
            let rule = if is_new { config.start } else { Start::Earliest };
            let begin = positions::find(shared, name, &[status.partition], rule).await.map_err(reading)?;
            let begin = begin.get(&status.partition).copied().unwrap_or(status.end_offset);
            status.lag = (status.end_offset - begin).max(0);
        }
        partitions.extend(of_topic);
    }
    let state = if topics.is_empty() { DeliveryState::NoTopics } else { DeliveryState::NoRecords };
    let mut status = GroupStatus {
        group: config.name.clone(),
        state: state.into(),
        partitions,
        missing_topics,
        ..GroupStatus::default()
    };
    explaining::complete(
        &mut status,
        &Notes { has_credit: true, ack_deadline: config.ack_deadline, ..Notes::default() },
    );
    // What waits, waits because nobody consumes.
    for waiting in status.partitions.iter_mut().filter(|partition| partition.lag > 0) {
        waiting.state = DeliveryState::NoCredit.into();
    }
    if status.lag > 0 {
        status.state = DeliveryState::NoCredit.into();
    }
    Ok(Inspected { dispatching: false, status })
}

fn partition_status(
    config: &ResolvedGroup,
    topic: &ResolvedTopic,
    partition: i32,
    end: i64,
    position: Option<&CommittedOffset>,
) -> PartitionStatus {
    let figures = position.map(|position| {
        Window::restore(position.offset, &position.metadata, policy_of(config), Bounds::default()).0.figures()
    });
    PartitionStatus {
        topic: topic.name.clone(),
        partition,
        committed_offset: position.map(|position| position.offset),
        end_offset: end,
        acked_ahead_records: figures.map_or(0, |figures| figures.acked_ahead),
        state: DeliveryState::NoRecords.into(),
        ..PartitionStatus::default()
    }
}

/// What a reset would do.
pub(super) async fn try_reset(
    shared: &Shared,
    config: &ResolvedGroup,
    tenant: &TenantEntry,
    request: &ResetOffsetsRequest,
    deadline: Instant,
) -> Result<ResetOffsetsResponse, Error> {
    let (topics, _) = topics_of(config, tenant);
    let known = committed(shared, config, deadline.saturating_duration_since(Instant::now())).await?;
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
    Ok(response(&targets(shared, request, moves).await?))
}
