//! Where partitions are read from: what was committed, or the group's start rule, which is committed before the first delivery.
//!
//! A topic of which no partition has a position is new to the group: the start rule applies to all of its partitions at once, in
//! one commit. A partition without a position of a topic the group knows was added later: it is read from its beginning.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_wire::{CommitOffset, Committer, Error, Isolation, OffsetAt, TopicPartition};

use crate::groups::dispatch::shared::Shared;
use crate::groups::model::Start;
use crate::ports::ResolvedTopic;

const CALL: Duration = Duration::from_secs(5);

/// A partition to open.
#[derive(Debug, Clone)]
pub(super) struct Closed {
    pub(super) assigned: TopicPartition,
    pub(super) topic: Arc<ResolvedTopic>,
}

/// A partition with its position, which is committed.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) closed: Closed,
    pub(super) offset: i64,
    pub(super) metadata: String,
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

/// Finds positions, and commits those that are new. Partitions of topics that are gone are left out.
pub(super) async fn open(
    shared: Arc<Shared>,
    member: Member,
    start: Start,
    closed: Vec<Closed>,
) -> Result<Vec<Opened>, Error> {
    let mut topics: BTreeMap<Arc<str>, Vec<Closed>> = BTreeMap::new();
    for closed in closed {
        topics.entry(Arc::clone(&closed.assigned.topic)).or_default().push(closed);
    }
    let asked: Vec<(Arc<str>, Vec<i32>)> =
        topics.iter().map(|(name, closed)| (Arc::clone(name), all_of(closed))).collect();
    let asked: Vec<(&str, &[i32])> = asked.iter().map(|(name, partitions)| (&**name, &partitions[..])).collect();
    let mut committed = BTreeMap::new();
    for (key, found) in shared.wire.committed_offsets(&member.group, member.committer(), Some(&asked), CALL).await? {
        if let Some(found) = found? {
            committed.insert(key, found);
        }
    }
    let mut opened = Vec::new();
    let mut fresh = Vec::new();
    for (name, closed) in topics {
        let is_known = committed.keys().any(|(topic, _)| **topic == *name);
        let mut missing = Vec::new();
        for closed in closed {
            match committed.remove(&(name.to_string(), closed.assigned.partition)) {
                Some(found) => opened.push(Opened { closed, offset: found.offset, metadata: found.metadata }),
                None => missing.push(closed),
            }
        }
        if missing.is_empty() {
            continue;
        }
        let rule = if is_known { Start::Earliest } else { start };
        let partitions: Vec<i32> = missing.iter().map(|closed| closed.assigned.partition).collect();
        match find(&shared, &name, &partitions, rule).await {
            Ok(found) => fresh.extend(missing.into_iter().filter_map(|closed| {
                let offset = found.get(&closed.assigned.partition).copied()?;
                Some(Opened { closed, offset, metadata: String::new() })
            })),
            Err(Error::UnknownTopic { .. } | Error::UnknownPartition { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if !fresh.is_empty() {
        let commits: Vec<CommitOffset> = fresh.iter().map(commit_of).collect();
        let stored = shared.wire.commit_offsets(&member.group, member.committer(), &commits, CALL).await?;
        let mut kept = Vec::new();
        for opened in fresh {
            match stored.get(&(opened.closed.assigned.topic.to_string(), opened.closed.assigned.partition)) {
                Some(Ok(())) => kept.push(opened),
                // Deleted at this moment.
                Some(Err(Error::Kafka(error))) if error.code == sluice_wire::code::UNKNOWN_TOPIC_OR_PARTITION => {}
                Some(Err(error)) => return Err(error.clone()),
                None => return Err(Error::Protocol("answer lacks a partition".to_owned())),
            }
        }
        opened.extend(kept);
    }
    Ok(opened)
}

/// The offsets at which a start rule begins.
pub(super) async fn find(
    shared: &Shared,
    topic: &str,
    partitions: &[i32],
    rule: Start,
) -> Result<BTreeMap<i32, i64>, Error> {
    let at = match rule {
        Start::Earliest => OffsetAt::Earliest,
        Start::Latest => OffsetAt::Latest,
        Start::Time(ms) => OffsetAt::TimestampMs(ms),
    };
    find_at(shared, topic, partitions, at).await
}

/// The offsets at a place; the end where no record is that late.
pub(super) async fn find_at(
    shared: &Shared,
    topic: &str,
    partitions: &[i32],
    at: OffsetAt,
) -> Result<BTreeMap<i32, i64>, Error> {
    let mut found = BTreeMap::new();
    let mut late = Vec::new();
    for (partition, listed) in list(shared, topic, partitions, at).await? {
        match listed {
            Some(offset) => drop(found.insert(partition, offset)),
            None => late.push(partition),
        }
    }
    if !late.is_empty() {
        let ends = list(shared, topic, &late, OffsetAt::Latest).await?;
        found.extend(ends.into_iter().map(|(partition, end)| (partition, end.unwrap_or(0))));
    }
    Ok(found)
}

async fn list(
    shared: &Shared,
    topic: &str,
    partitions: &[i32],
    at: OffsetAt,
) -> Result<Vec<(i32, Option<i64>)>, Error> {
    let listed = shared.wire.list_offsets(topic, partitions, at, Isolation::ReadCommitted, CALL).await?;
    listed.into_iter().map(|(partition, listed)| Ok((partition, listed?.offset))).collect()
}

fn commit_of(opened: &Opened) -> CommitOffset {
    CommitOffset {
        topic: opened.closed.assigned.topic.to_string(),
        partition: opened.closed.assigned.partition,
        offset: opened.offset,
        leader_epoch: None,
        metadata: opened.metadata.clone(),
    }
}

/// All partitions of the topic, to see whether the group knows it.
fn all_of(closed: &[Closed]) -> Vec<i32> {
    let known = closed.first().map_or(0, |closed| closed.topic.partitions);
    let most = closed.iter().map(|closed| closed.assigned.partition + 1).max().unwrap_or(0);
    (0..known.max(most)).collect()
}
