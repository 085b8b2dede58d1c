//! Where a log begins and ends, and which offset belongs to a time.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;

use crate::client::Client;
use crate::codec::{ListOffsetsRequestData, list_offsets_request, text};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result, code};
use crate::pool::Lane;
use crate::types::Isolation;

/// Tries per partition: leaders move, and metadata follows a moment later.
const ATTEMPTS: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Which offset to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetAt {
    /// The first one still in the log.
    Earliest,
    /// The one after the last: high watermark, or last stable offset when reading committed.
    Latest,
    /// The first record whose timestamp is at or after this many milliseconds since 1970.
    TimestampMs(i64),
}

impl OffsetAt {
    fn wire(self) -> i64 {
        match self {
            Self::Earliest => -2,
            Self::Latest => -1,
            // Negative times are Kafka's special values; nothing was written before 1970.
            Self::TimestampMs(ms) => ms.max(0),
        }
    }
}

/// An offset of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// `None` when no record is at or after the time asked for.
    pub offset: Option<i64>,
    /// Timestamp of that record, for questions by time.
    pub timestamp_ms: Option<i64>,
    /// Leader epoch of that record, if known.
    pub leader_epoch: Option<i32>,
}

impl Client {
    /// An offset per partition; each partition has its own result, so one without leader fails alone.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partitions: &[i32],
        at: OffsetAt,
        isolation: Isolation,
        timeout: Duration,
    ) -> Result<BTreeMap<i32, Result<ListedOffset>>> {
        let deadline = Deadline::after(timeout);
        let mut done = BTreeMap::new();
        let mut open = partitions.to_vec();
        for attempt in 1..=ATTEMPTS {
            let answers = self.list_offsets_once(topic, &open, at, isolation, attempt > 1, deadline).await?;
            open = answers
                .iter()
                .filter(|(_, answer)| answer.as_ref().is_err_and(Error::is_retriable))
                .map(|(&partition, _)| partition)
                .collect();
            done.extend(answers);
            if open.is_empty() || attempt == ATTEMPTS || deadline.pause(RETRY_PAUSE * attempt).await.is_err() {
                break;
            }
        }
        for error in open.iter().filter_map(|partition| done.get(partition)?.as_ref().err()) {
            self.doubt_leader(topic, error);
        }
        Ok(done)
    }

    /// The offset of one partition.
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: i32,
        at: OffsetAt,
        isolation: Isolation,
        timeout: Duration,
    ) -> Result<ListedOffset> {
        let mut answers = self.list_offsets(topic, &[partition], at, isolation, timeout).await?;
        answers.remove(&partition).unwrap_or(Err(Error::DeadlineExceeded))
    }

    async fn list_offsets_once(
        &self,
        topic: &str,
        partitions: &[i32],
        at: OffsetAt,
        isolation: Isolation,
        refresh: bool,
        deadline: Deadline,
    ) -> Result<BTreeMap<i32, Result<ListedOffset>>> {
        let mut metadata = match refresh {
            true => self.refresh_topic(topic, deadline).await?,
            false => self.cached_topic(topic, deadline).await?,
        };
        // What is cached may be from before the topic grew.
        if !refresh && partitions.iter().any(|partition| !metadata.partitions.contains_key(partition)) {
            metadata = self.refresh_topic(topic, deadline).await?;
        }
        let mut answers = BTreeMap::new();
        let mut by_leader: BTreeMap<i32, Vec<(i32, i32)>> = BTreeMap::new();
        for &partition in partitions {
            match metadata.leader(partition) {
                Ok((leader, epoch)) => by_leader.entry(leader).or_default().push((partition, epoch)),
                Err(error) => drop(answers.insert(partition, Err(error))),
            }
        }
        let asked = by_leader.iter().map(|(&leader, partitions)| async move {
            (partitions, self.ask_leader(leader, topic, partitions, at, isolation, deadline).await)
        });
        for (partitions, answer) in join_all(asked).await {
            match answer {
                Ok(answer) => answers.extend(answer),
                Err(error) => answers.extend(partitions.iter().map(|&(id, _)| (id, Err(error.clone())))),
            }
        }
        Ok(answers)
    }

    async fn ask_leader(
        &self,
        leader: i32,
        topic: &str,
        partitions: &[(i32, i32)],
        at: OffsetAt,
        isolation: Isolation,
        deadline: Deadline,
    ) -> Result<Vec<(i32, Result<ListedOffset>)>> {
        let partition = |&(id, epoch): &(i32, i32)| list_offsets_request::ListOffsetsPartition {
            partition_index: id,
            current_leader_epoch: epoch,
            timestamp: at.wire(),
            ..Default::default()
        };
        let request = ListOffsetsRequestData {
            replica_id: -1,
            isolation_level: isolation.wire(),
            topics: vec![list_offsets_request::ListOffsetsTopic {
                name: text(topic),
                partitions: partitions.iter().map(partition).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let connection = self.connection(leader, Lane::Control, deadline).await?;
        let response = connection.call(&request, Duration::ZERO, deadline).await?;
        let answers = response.topics.into_iter().filter(|answer| answer.name.as_str() == topic);
        Ok(answers
            .flat_map(|answer| answer.partitions)
            .map(|answer| {
                let result = KafkaError::check(answer.error_code, None).map_err(|error| match error.code {
                    // Metadata had the partition, so this leader merely lags behind: ask again.
                    code::UNKNOWN_TOPIC_OR_PARTITION => {
                        Error::NoLeader { topic: topic.to_owned(), partition: answer.partition_index }
                    }
                    _ => Error::Kafka(error),
                });
                let listed = result.map(|()| ListedOffset {
                    offset: Some(answer.offset).filter(|&offset| offset >= 0),
                    timestamp_ms: Some(answer.timestamp).filter(|&timestamp| timestamp >= 0),
                    leader_epoch: Some(answer.leader_epoch).filter(|&epoch| epoch >= 0),
                });
                (answer.partition_index, listed)
            })
            .collect())
    }
}
