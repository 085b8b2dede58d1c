//! Where a log begins and ends, and which offset belongs to a time.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;

use crate::client::Client;
use crate::codec::{ListOffsetsRequestData, list_offsets_request, text};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result, code};
use crate::leaders::{Answers, Led};
use crate::pool::Lane;
use crate::types::Isolation;

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
        let ask = |leader, led: Vec<Led>| self.list_at(leader, topic, led, at, isolation, deadline).boxed();
        self.ask_leaders(topic, partitions, ask, deadline).await
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

    async fn list_at(
        &self,
        leader: i32,
        topic: &str,
        led: Vec<Led>,
        at: OffsetAt,
        isolation: Isolation,
        deadline: Deadline,
    ) -> Result<Answers<ListedOffset>> {
        let partition = |(id, epoch)| list_offsets_request::ListOffsetsPartition {
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
                partitions: led.into_iter().map(partition).collect(),
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
