//! Where partitions are read from: what was committed, or the group's start rule, which is committed before the first delivery.
//!
//! A topic of which no partition has a position is new to the group: the start rule applies to its partitions. A partition without
//! a position of a topic the group knows was added later: it is read from its beginning. Each partition has its own result, and
//! what cannot be told now is asked again: that a broker does not know a partition proves nothing, only a revocation takes it away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use sluice_wire::{Client, CommitOffset, Committer, Error, Isolation, OffsetAt, PartitionResults, TopicPartition};

use crate::groups::model::{ResolvedGroup, Start};
use crate::view::ResolvedTopic;

const CALL: Duration = Duration::from_secs(5);

/// A partition to open.
#[derive(Debug, Clone)]
pub(super) struct Closed {
    pub(super) assigned: TopicPartition,
    pub(super) topic: Arc<ResolvedTopic>,
}

/// A position that is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) offset: i64,
    /// Of the record before it, if known.
    pub(super) leader_epoch: Option<i32>,
    pub(super) metadata: String,
}

/// What Kafka knows of a partition's position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// There is one.
    At(Position),
    /// There is none, and none of the whole topic.
    Never,
    /// There is none, but of others of the topic.
    Added,
}

/// In whose name positions are read and committed.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) group: Arc<str>,
    pub(super) id: Arc<str>,
    pub(super) epoch: i32,
}

impl Member {
    pub(super) fn committer(&self) -> Committer<'_> {
        Committer::Member { id: &self.id, epoch: self.epoch }
    }
}

/// Where a group begins that has no position: `latest` means when the group was made, not when somebody first asks.
pub(super) fn start_of(group: &ResolvedGroup) -> Start {
    match group.start {
        Start::Latest if group.create_time_ms > 0 => Start::Time(group.create_time_ms),
        start => start,
    }
}

/// Looks what is committed. An error is of the whole group.
pub(super) async fn look(
    wire: &Client,
    member: &Member,
    closed: Vec<Closed>,
) -> Result<Vec<(Closed, Result<Known, Error>)>, Error> {
    let mut topics: BTreeMap<Arc<str>, Vec<&Closed>> = BTreeMap::new();
    for closed in &closed {
        topics.entry(Arc::clone(&closed.assigned.topic)).or_default().push(closed);
    }
    let asked: Vec<(Arc<str>, Vec<i32>)> =
        topics.iter().map(|(name, closed)| (Arc::clone(name), all_of(closed))).collect();
    let asked: Vec<(&str, &[i32])> = asked.iter().map(|(name, partitions)| (&**name, &partitions[..])).collect();
    let found = wire.committed_offsets(&member.group, member.committer(), Some(&asked), CALL).await?;
    Ok(closed.into_iter().map(|closed| (closed.clone(), known(&found, &closed.assigned))).collect())
}

fn known(
    found: &PartitionResults<Option<sluice_wire::CommittedOffset>>,
    assigned: &TopicPartition,
) -> Result<Known, Error> {
    match found.get(&(assigned.topic.to_string(), assigned.partition)) {
        Some(Ok(Some(found))) => {
            let (offset, leader_epoch, metadata) = (found.offset, found.leader_epoch, found.metadata.clone());
            return Ok(Known::At(Position { offset, leader_epoch, metadata }));
        }
        Some(Ok(None)) => {}
        Some(Err(error)) => return Err(error.clone()),
        None => return Err(lacks_partition()),
    }
    let mut of_topic = found.iter().filter(|((topic, _), _)| **topic == *assigned.topic).map(|(_, found)| found);
    match of_topic.clone().any(|found| matches!(found, Ok(Some(_)))) {
        true => Ok(Known::Added),
        // One of those that could not be told may have a position.
        false => of_topic.find_map(|found| found.as_ref().err()).map_or(Ok(Known::Never), |error| Err(error.clone())),
    }
}

/// Finds where partitions without a position begin, and commits that. An error is of the whole group.
pub(super) async fn begin(
    wire: &Client,
    member: &Member,
    closed: Vec<(Closed, Start)>,
) -> Result<Vec<(Closed, Result<Position, Error>)>, Error> {
    let mut wanted: Vec<(Arc<str>, Start, Vec<i32>)> = Vec::new();
    for (Closed { assigned, .. }, rule) in &closed {
        match wanted.iter_mut().find(|(topic, of, _)| *topic == assigned.topic && of == rule) {
            Some((_, _, partitions)) => partitions.push(assigned.partition),
            None => wanted.push((Arc::clone(&assigned.topic), *rule, vec![assigned.partition])),
        }
    }
    // At the same time, so that a topic whose leaders are away holds up no other.
    let answers = join_all(wanted.into_iter().map(|(topic, rule, partitions)| async move {
        let found = find_each(wire, &topic, &partitions, offset_at(rule)).await;
        found.into_iter().map(move |(partition, found)| ((Arc::clone(&topic), partition), found)).collect::<Vec<_>>()
    }));
    let mut answers: BTreeMap<(Arc<str>, i32), Result<i64, Error>> = answers.await.into_iter().flatten().collect();
    let mut found = Vec::with_capacity(closed.len());
    for (Closed { assigned, .. }, _) in &closed {
        let answer = answers.remove(&(Arc::clone(&assigned.topic), assigned.partition));
        found.push(answer.unwrap_or_else(|| Err(lacks_partition())));
    }
    let fresh =
        closed.iter().zip(&found).filter_map(|((closed, _), found)| found.as_ref().ok().map(|at| (closed, *at)));
    let commits: Vec<CommitOffset> = fresh.map(|(closed, offset)| commit_of(&closed.assigned, offset)).collect();
    let stored = match commits.is_empty() {
        true => BTreeMap::new(),
        false => wire.commit_offsets(&member.group, member.committer(), &commits, CALL).await?,
    };
    let begun = closed.into_iter().zip(found).map(|((closed, _), found)| {
        let position = found.and_then(|offset| {
            match stored.get(&(closed.assigned.topic.to_string(), closed.assigned.partition)) {
                Some(Ok(())) => Ok(Position { offset, leader_epoch: None, metadata: String::new() }),
                Some(Err(error)) => Err(error.clone()),
                None => Err(lacks_partition()),
            }
        });
        (closed, position)
    });
    Ok(begun.collect())
}

/// The offset of one partition among those that were found.
pub(super) fn one(found: &BTreeMap<i32, i64>, partition: i32) -> Result<i64, Error> {
    found.get(&partition).copied().ok_or_else(lacks_partition)
}

fn lacks_partition() -> Error {
    Error::Protocol("answer lacks a partition".to_owned())
}

/// The offsets at which a start rule begins.
pub(super) async fn find(
    wire: &Client,
    topic: &str,
    partitions: &[i32],
    rule: Start,
) -> Result<BTreeMap<i32, i64>, Error> {
    find_at(wire, topic, partitions, offset_at(rule)).await
}

pub(super) fn offset_at(rule: Start) -> OffsetAt {
    match rule {
        Start::Earliest => OffsetAt::Earliest,
        Start::Latest => OffsetAt::Latest,
        Start::Time(ms) => OffsetAt::TimestampMs(ms),
    }
}

/// The offsets at a place, of all partitions or of none.
pub(super) async fn find_at(
    wire: &Client,
    topic: &str,
    partitions: &[i32],
    at: OffsetAt,
) -> Result<BTreeMap<i32, i64>, Error> {
    let found = find_each(wire, topic, partitions, at).await;
    found.into_iter().map(|(partition, found)| Ok((partition, found?))).collect()
}

/// The offset of each partition at a place. Where no record is that late it is the end as it was before that was known: a record
/// that comes meanwhile is late enough, and is not skipped.
pub(super) async fn find_each(
    wire: &Client,
    topic: &str,
    partitions: &[i32],
    at: OffsetAt,
) -> BTreeMap<i32, Result<i64, Error>> {
    let ends = match at {
        OffsetAt::TimestampMs(_) => list(wire, topic, partitions, OffsetAt::Latest).await,
        _ => Vec::new(),
    };
    let listed = list(wire, topic, partitions, at).await;
    or_ends(listed, ends)
}

type Listed = Vec<(i32, Result<Option<i64>, Error>)>;

/// What was found, and the end where there was nothing.
fn or_ends(listed: Listed, ends: Listed) -> BTreeMap<i32, Result<i64, Error>> {
    let mut ends: BTreeMap<i32, Result<Option<i64>, Error>> = ends.into_iter().collect();
    let found = listed.into_iter().map(|(partition, found)| {
        let found = match found {
            Ok(None) => ends.remove(&partition).unwrap_or(Ok(None)),
            found => found,
        };
        (partition, found.and_then(|offset| offset.ok_or_else(lacks_partition)))
    });
    found.collect()
}

async fn list(wire: &Client, topic: &str, partitions: &[i32], at: OffsetAt) -> Listed {
    match wire.list_offsets(topic, partitions, at, Isolation::ReadCommitted, CALL).await {
        Ok(listed) => {
            listed.into_iter().map(|(partition, listed)| (partition, listed.map(|listed| listed.offset))).collect()
        }
        Err(error) => partitions.iter().map(|partition| (*partition, Err(error.clone()))).collect(),
    }
}

fn commit_of(assigned: &TopicPartition, offset: i64) -> CommitOffset {
    CommitOffset {
        topic: assigned.topic.to_string(),
        partition: assigned.partition,
        offset,
        leader_epoch: None,
        metadata: String::new(),
    }
}

/// All partitions of the topic, to see whether the group knows it.
fn all_of(closed: &[&Closed]) -> Vec<i32> {
    let known = closed.first().map_or(0, |closed| closed.topic.partitions);
    let asked: BTreeSet<i32> = closed.iter().map(|closed| closed.assigned.partition).chain(0..known).collect();
    asked.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), topic_id: sluice_wire::KafkaTopicId::ZERO, partition }
    }

    fn at(offset: i64) -> Option<sluice_wire::CommittedOffset> {
        Some(sluice_wire::CommittedOffset { offset, leader_epoch: None, metadata: String::new() })
    }

    #[test]
    fn where_no_record_is_that_late_the_end_before_the_question_is_the_place() {
        let away = || Error::Protocol("away".to_owned());
        let ends = vec![(0, Ok(Some(8))), (1, Ok(Some(9))), (2, Err(away()))];
        let found = or_ends(vec![(0, Ok(Some(5))), (1, Ok(None)), (2, Ok(None)), (3, Err(away()))], ends);
        assert!(matches!((&found[&0], &found[&1]), (Ok(5), Ok(9))), "{found:?}");
        assert!(found[&2].is_err() && found[&3].is_err(), "{found:?}");
    }

    #[test]
    fn a_partition_that_a_broker_does_not_know_yet_fails_alone_and_is_not_taken_for_deleted() {
        let unknown = || Error::UnknownPartition { topic: "a".into(), partition: 1 };
        let found = PartitionResults::from([
            (("a".into(), 0), Ok(at(7))),
            (("a".into(), 1), Err(unknown())),
            (("a".into(), 2), Ok(None)),
            (("b".into(), 0), Ok(None)),
            (("c".into(), 0), Ok(None)),
            (("c".into(), 1), Err(unknown())),
        ]);
        let of = |topic, partition| known(&found, &assigned(topic, partition));
        assert!(matches!(of("a", 0), Ok(Known::At(Position { offset: 7, .. }))));
        assert!(of("a", 1).is_err());
        assert!(matches!(of("a", 2), Ok(Known::Added)));
        assert!(matches!(of("b", 0), Ok(Known::Never)));
        assert!(of("c", 0).is_err(), "the other one may have a position");
        assert!(of("d", 0).is_err(), "not in the answer");
    }
}
