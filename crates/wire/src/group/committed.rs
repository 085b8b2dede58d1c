//! Committed offsets of groups: writing, reading, forgetting.

use std::collections::BTreeMap;
use std::time::Duration;

use super::coordinator::lane_of;
use crate::client::Client;
use crate::codec::{
    OffsetCommitRequestData, OffsetDeleteRequestData, OffsetFetchRequestData, offset_commit_request,
    offset_delete_request, offset_fetch_request, text,
};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result, code};
use crate::pool::Lane;

/// A result per (topic, partition).
pub type PartitionResults<T> = BTreeMap<(String, i32), Result<T>>;

/// In whose name offsets are committed or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committer<'a> {
    /// A member; the group checks that this is its current epoch.
    Member {
        /// Its id.
        id: &'a str,
        /// Its epoch.
        epoch: i32,
    },
    /// Nobody: commits are taken only while the group has no members.
    Outside,
}

impl<'a> Committer<'a> {
    fn wire(self) -> (&'a str, i32) {
        match self {
            Self::Member { id, epoch } => (id, epoch),
            Self::Outside => ("", -1),
        }
    }
}

/// A position to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffset {
    /// Physical topic name.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// The offset to go on from: the one after the last that is done.
    pub offset: i64,
    /// Leader epoch of the record before it, if known.
    pub leader_epoch: Option<i32>,
    /// The committer's own notes, at most 4,096 bytes by default (`OFFSET_METADATA_TOO_LARGE`).
    pub metadata: String,
}

/// A position that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset to go on from.
    pub offset: i64,
    /// Leader epoch of the record before it, if known.
    pub leader_epoch: Option<i32>,
    /// The committer's own notes.
    pub metadata: String,
}

impl Client {
    /// Commits positions. What concerns the whole group (membership, authorization) fails the call; what concerns a
    /// partition is its result. Tried again while the coordinator moves, so a position may be written twice.
    ///
    /// A commit whose outcome stayed unknown may still arrive, and would take positions back. So the next one of the group
    /// that succeeds is sent once more: by then the coordinator has read what it had received.
    pub async fn commit_offsets(
        &self,
        group: &str,
        committer: Committer<'_>,
        offsets: &[CommitOffset],
        timeout: Duration,
    ) -> Result<PartitionResults<()>> {
        let (member_id, epoch) = committer.wire();
        let mut topics: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for commit in offsets {
            topics.entry(&commit.topic).or_default().push(offset_commit_request::OffsetCommitRequestPartition {
                partition_index: commit.partition,
                committed_offset: commit.offset,
                committed_leader_epoch: commit.leader_epoch.unwrap_or(-1),
                committed_metadata: Some(text(commit.metadata.as_str())),
                ..Default::default()
            });
        }
        let topic = |(name, partitions)| offset_commit_request::OffsetCommitRequestTopic {
            name: text(name),
            partitions,
            ..Default::default()
        };
        let request = OffsetCommitRequestData {
            group_id: text(group),
            generation_id_or_member_epoch: epoch,
            member_id: text(member_id),
            topics: topics.into_iter().map(topic).collect(),
            ..Default::default()
        };
        let codes = |topics: &crate::codec::OffsetCommitResponseData| {
            topics.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code).collect()
        };
        let (lane, deadline) = (Lane::Committed(lane_of(group)), Deadline::after(timeout));
        let mut response = self.call_coordinator(group, lane, &request, codes, deadline).await?;
        if self.inner.coordinators.take_doubt(group)
            && let Ok(again) = self.call_coordinator(group, lane, &request, codes, deadline).await
        {
            response = again;
        }
        let results = response.topics.into_iter().flat_map(|topic| {
            let name = topic.name.to_string();
            topic.partitions.into_iter().map(move |answer| (name.clone(), answer.partition_index, answer.error_code))
        });
        collect(results.map(|(topic, partition, error)| ((topic, partition), error, ())))
    }

    /// Reads positions of some partitions, or of all that have one (`topics` is `None`). `None` in the answer: none was
    /// committed. Waits for transactions that are committing.
    pub async fn committed_offsets(
        &self,
        group: &str,
        reader: Committer<'_>,
        topics: Option<&[(&str, &[i32])]>,
        timeout: Duration,
    ) -> Result<PartitionResults<Option<CommittedOffset>>> {
        let (member_id, member_epoch) = reader.wire();
        let topic = |(name, partitions): &(&str, &[i32])| offset_fetch_request::OffsetFetchRequestTopics {
            name: text(*name),
            partition_indexes: partitions.to_vec(),
            ..Default::default()
        };
        let request = OffsetFetchRequestData {
            groups: vec![offset_fetch_request::OffsetFetchRequestGroup {
                group_id: text(group),
                member_id: Some(text(member_id)).filter(|_| member_epoch >= 0),
                member_epoch,
                topics: topics.map(|topics| topics.iter().map(topic).collect()),
                ..Default::default()
            }],
            require_stable: true,
            ..Default::default()
        };
        let codes = |response: &crate::codec::OffsetFetchResponseData| {
            let of_group = response.groups.iter().map(|group| group.error_code);
            let partitions = response.groups.iter().flat_map(|group| &group.topics).flat_map(|topic| &topic.partitions);
            of_group.chain(partitions.map(|partition| partition.error_code)).collect()
        };
        let lane = Lane::Committed(lane_of(group));
        let response = self.call_coordinator(group, lane, &request, codes, Deadline::after(timeout)).await?;
        let answer = response.groups.into_iter().find(|answer| answer.group_id.as_str() == group);
        let answer = answer.ok_or_else(|| Error::Protocol("answer lacks the group".to_owned()))?;
        KafkaError::check(answer.error_code, None)?;
        let results = answer.topics.into_iter().flat_map(|topic| {
            let name = topic.name.to_string();
            topic.partitions.into_iter().map(move |found| {
                let committed = CommittedOffset {
                    offset: found.committed_offset,
                    leader_epoch: Some(found.committed_leader_epoch).filter(|&epoch| epoch >= 0),
                    metadata: found.metadata.map(|text| text.to_string()).unwrap_or_default(),
                };
                let committed = Some(committed).filter(|committed| committed.offset >= 0);
                ((name.clone(), found.partition_index), found.error_code, committed)
            })
        });
        collect(results)
    }

    /// Forgets positions. Partitions of topics that members subscribe to are refused (`GROUP_SUBSCRIBED_TO_TOPIC`).
    pub async fn delete_offsets(
        &self,
        group: &str,
        topics: &[(&str, &[i32])],
        timeout: Duration,
    ) -> Result<PartitionResults<()>> {
        let partition = |partition: &i32| offset_delete_request::OffsetDeleteRequestPartition {
            partition_index: *partition,
            ..Default::default()
        };
        let topic = |(name, partitions): &(&str, &[i32])| offset_delete_request::OffsetDeleteRequestTopic {
            name: text(*name),
            partitions: partitions.iter().map(partition).collect(),
            ..Default::default()
        };
        let request = OffsetDeleteRequestData {
            group_id: text(group),
            topics: topics.iter().map(topic).collect(),
            ..Default::default()
        };
        let codes = |response: &crate::codec::OffsetDeleteResponseData| vec![response.error_code];
        let response = self.call_coordinator(group, Lane::Admin, &request, codes, Deadline::after(timeout)).await?;
        KafkaError::check(response.error_code, None)?;
        let results = response.topics.into_iter().flat_map(|topic| {
            let name = topic.name.to_string();
            topic
                .partitions
                .into_iter()
                .map(move |answer| ((name.clone(), answer.partition_index), answer.error_code, ()))
        });
        collect(results)
    }
}

/// Gathers results; an error of the whole group becomes the call's.
fn collect<T>(results: impl Iterator<Item = ((String, i32), i16, T)>) -> Result<PartitionResults<T>> {
    let mut collected = BTreeMap::new();
    for (key, error, value) in results {
        match KafkaError::check(error, None).map_err(Error::Kafka) {
            Err(error) if concerns_group(&error) => return Err(error),
            checked => drop(collected.insert(key, checked.map(|()| value))),
        }
    }
    Ok(collected)
}

fn concerns_group(error: &Error) -> bool {
    let of_group = [
        code::COORDINATOR_LOAD_IN_PROGRESS,
        code::COORDINATOR_NOT_AVAILABLE,
        code::NOT_COORDINATOR,
        code::INVALID_GROUP_ID,
        code::GROUP_AUTHORIZATION_FAILED,
        code::GROUP_ID_NOT_FOUND,
    ];
    error.membership().is_some() || error.kafka_code().is_some_and(|code| of_group.contains(&code))
}
