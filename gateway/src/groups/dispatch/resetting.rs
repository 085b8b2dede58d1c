//! Moving positions of a group that is dispatched here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use sluice_proto::stream::v1::reset_offsets_request::To;
use sluice_proto::stream::v1::{Position, ResetOffsetsRequest, ResetOffsetsResponse, ResetPartition};
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};
use sluice_wire::{Client, OffsetAt};

use crate::data::failure;
use crate::groups::dispatch::action::Action;
use crate::groups::dispatch::command::Reply;
use crate::groups::dispatch::group::{Group, Stage};
use crate::groups::dispatch::part::PartKey;
use crate::groups::dispatch::positions;
use crate::groups::model::{DispatchError, ResolvedGroup};

/// Who pulled within this is a consumer.
pub(super) const RECENT: Duration = Duration::from_secs(5);
const MARGIN: Duration = Duration::from_millis(50);

/// A reset that waits for its turn.
pub(super) struct ResetCall {
    pub(super) request: ResetOffsetsRequest,
    pub(super) deadline: Instant,
    pub(super) reply: Reply<ResetOffsetsResponse>,
}

/// A reset whose offsets were found.
pub(super) struct Planned {
    pub(super) call: ResetCall,
    pub(super) outcome: Result<Vec<Move>, Error>,
}

/// One partition's move.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) key: PartKey,
    /// The topic in Kafka, and the tenants' name of it.
    pub(super) topic: Arc<str>,
    pub(super) name: String,
    pub(super) from: Option<i64>,
    pub(super) to: i64,
}

impl Group {
    /// Begins resets once the group has its partitions.
    pub(super) fn plan_resets(&mut self, now: Instant) {
        if self.resets.is_empty() {
            return;
        }
        let ready = match self.stage {
            Stage::NoTopics => true,
            Stage::Joining { .. } => false,
            Stage::Running => !self.is_opening(),
        };
        if !ready {
            let moving = || DispatchError::Moving("it is being taken".to_owned());
            let (late, left) =
                std::mem::take(&mut self.resets).into_iter().partition(|reset| now + MARGIN >= reset.deadline);
            self.resets = left;
            let late: Vec<ResetCall> = late;
            late.into_iter().for_each(|reset| drop(reset.reply.send(Err(moving()))));
            if let Some(next) = self.resets.iter().map(|reset| reset.deadline).min() {
                self.wake_at(next.checked_sub(MARGIN).unwrap_or(next));
            }
            return;
        }
        for call in std::mem::take(&mut self.resets) {
            if let Err(error) = self.begin_reset(&call, now) {
                drop(call.reply.send(Err(error.into())));
            } else {
                self.find_offsets(call);
            }
        }
    }

    fn begin_reset(&self, call: &ResetCall, now: Instant) -> Result<(), Error> {
        let pulled = self.consumers.recent.values().filter(|recent| now < recent.last + RECENT).count();
        let consumers = self.consumers.attached.len() + pulled;
        if consumers > 0 && !call.request.force && !call.request.dry_run {
            return Err(connected(consumers));
        }
        // Those that cannot be opened now would stay where they are.
        let closed = self.to_open.iter().find_map(|one| {
            let topic = self.topics.get(&one.assigned.topic)?;
            selects(&call.request, &topic.name, one.assigned.partition).then(|| (&topic.name, one.assigned.partition))
        });
        if let Some((topic, partition)) = closed {
            let what = format!(
                "partition {partition} of {topic} cannot be reached at the moment; try again, or reset the others alone"
            );
            return Err(Error::unavailable(Reason::ClusterUnavailable, what));
        }
        let wanted = self.parts.iter().any(|part| selects(&call.request, &part.topic.name, part.place.partition));
        if wanted { Ok(()) } else { Err(nothing_selected(&call.request, &self.config)) }
    }

    fn find_offsets(&mut self, call: ResetCall) {
        let wanted = self.parts.iter().filter(|part| selects(&call.request, &part.topic.name, part.place.partition));
        let moves: Vec<Move> = wanted
            .map(|part| Move {
                key: part.key(),
                topic: Arc::clone(&part.place.topic),
                name: part.topic.name.clone(),
                from: Some(part.window.base()),
                to: 0,
            })
            .collect();
        self.actions.push(Action::FindTargets { call, moves });
    }

    pub(super) fn reset_planned(&mut self, planned: Planned, now: Instant) {
        let Planned { call, outcome } = planned;
        let moves = match outcome {
            Ok(moves) => moves,
            Err(error) => return drop(call.reply.send(Err(error.into()))),
        };
        let response = response(&moves);
        if call.request.dry_run {
            return drop(call.reply.send(Ok(response)));
        }
        let mut needs = Vec::new();
        for one in &moves {
            let Some(&at) = self.index.get(&one.key) else { continue };
            let of_term = self.parts[at].term;
            if let Some(term) = self.move_part(one.key, of_term, one.to) {
                let sequence = self.index.get(&one.key).map_or(0, |&at| self.parts[at].window.sequence());
                needs.push((one.key, term, sequence));
            }
        }
        tracing::info!(group = %self.name, partitions = needs.len(), "positions were moved");
        self.commits.soon(now);
        let until = call.deadline.checked_sub(MARGIN).unwrap_or(call.deadline);
        self.await_reset(needs, until, response, call.reply);
    }
}

/// An offset in a log that holds `first..end`. What was before the first one is gone; beyond the end nothing would be left to
/// read, and most likely something else was meant.
fn within(offset: i64, first: i64, end: i64, (topic, partition): (&str, i32)) -> Result<i64, Error> {
    if offset <= end {
        return Ok(offset.max(first));
    }
    let mut what = format!(
        "offset: {offset} is beyond the end of partition {partition} of {topic}, which holds {first}..{end}; nothing was moved; POSITION_LATEST goes to the end, and topic with partitions moves other partitions alone"
    );
    // Seconds or milliseconds since 1970, from 2001 on.
    if (1_000_000_000..100_000_000_000_000).contains(&offset) {
        what.push_str("; a time goes into the field time");
    }
    let mut error = Error::new(ErrorKind::OutOfRange, Reason::OffsetOutOfRange, what)
        .with_metadata("logStartOffset", first.to_string())
        .with_metadata("endOffset", end.to_string());
    error.field = Some("offset".to_owned());
    Err(error)
}

/// Fills in where to, within the log.
pub(super) async fn targets(
    wire: &Client,
    request: &ResetOffsetsRequest,
    mut moves: Vec<Move>,
) -> Result<Vec<Move>, Error> {
    let mut topics: BTreeMap<Arc<str>, (String, Vec<i32>)> = BTreeMap::new();
    for one in &moves {
        topics.entry(Arc::clone(&one.topic)).or_insert_with(|| (one.name.clone(), Vec::new())).1.push(one.key.1);
    }
    let mut found = BTreeMap::new();
    for (topic, (name, partitions)) in topics {
        let find = |at| positions::find_at(wire, &topic, &partitions, at);
        let offsets = match request.to {
            Some(To::Position(position)) if position == Position::Latest as i32 => find(OffsetAt::Latest).await,
            Some(To::Position(_)) | None => find(OffsetAt::Earliest).await,
            Some(To::Time(time)) => find(OffsetAt::TimestampMs(time.as_millis())).await,
            Some(To::Offset(offset)) => match tokio::try_join!(find(OffsetAt::Earliest), find(OffsetAt::Latest)) {
                Ok((first, end)) => {
                    let within = |(partition, first): (i32, i64)| {
                        let end = end.get(&partition).copied().unwrap_or(first).max(first);
                        within(offset, first, end, (&name, partition)).map(|offset| (partition, offset))
                    };
                    Ok(first.into_iter().map(within).collect::<Result<_, _>>()?)
                }
                Err(error) => Err(error),
            },
        };
        let offsets = offsets.map_err(|error| failure::reading(error, &name))?;
        found.extend(offsets.into_iter().map(|(partition, offset)| ((Arc::clone(&topic), partition), offset)));
    }
    moves.retain_mut(|one| match found.get(&(Arc::clone(&one.topic), one.key.1)) {
        Some(offset) => {
            one.to = *offset;
            true
        }
        None => false,
    });
    Ok(moves)
}

pub(super) fn response(moves: &[Move]) -> ResetOffsetsResponse {
    let partition = |one: &Move| ResetPartition {
        topic: one.name.clone(),
        partition: one.key.1,
        from_offset: one.from,
        to_offset: one.to,
    };
    let mut partitions: Vec<ResetPartition> = moves.iter().map(partition).collect();
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    ResetOffsetsResponse { partitions }
}

/// Whether a reset is about a partition.
pub(super) fn selects(request: &ResetOffsetsRequest, topic: &str, partition: i32) -> bool {
    (request.topic.is_empty() || request.topic == topic)
        && (request.partitions.is_empty() || request.partitions.contains(&partition))
}

pub(super) fn nothing_selected(request: &ResetOffsetsRequest, group: &ResolvedGroup) -> Error {
    match request.topic.is_empty() {
        true => Error::new(
            ErrorKind::FailedPrecondition,
            Reason::ResourceState,
            format!("none of the topics of {} exists; create one first", group.name),
        ),
        false => {
            Error::invalid("topic", format!("{} with these partitions is not a topic of {}", request.topic, group.name))
        }
    }
}

fn connected(consumers: usize) -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        Reason::ConsumersConnected,
        format!("{consumers} consumers are connected; stop them, or set force: then what they hold becomes stale"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_beyond_the_end_is_refused_and_one_that_is_gone_means_the_first() {
        let at = |offset| within(offset, 10, 20, ("namespaces/a/topics/b", 3));
        for (offset, to) in [(0, 10), (10, 10), (15, 15), (20, 20)] {
            assert_eq!(at(offset).expect("good"), to);
        }
        for offset in [21, 1_764_500_000, i64::MAX] {
            let error = at(offset).expect_err("beyond");
            assert_eq!((error.kind, error.reason), (ErrorKind::OutOfRange, Reason::OffsetOutOfRange));
            assert_eq!(error.field.as_deref(), Some("offset"));
            assert!(error.message.contains("which holds 10..20"), "{}", error.message);
            assert_eq!(error.message.contains("a time"), offset == 1_764_500_000, "{}", error.message);
        }
    }
}
