//! Leader epochs (KIP-320): whether a log still is the one that was read, or was cut off and written anew below a position.
//!
//! Whoever keeps a position keeps with it the leader epoch of the record before it: [`crate::ReadRecords::epochs`] tells
//! it, [`crate::CommitOffset`] and [`crate::CommittedOffset`] carry it. A read that names it
//! ([`crate::FetchRequest::last_epoch`]) is checked by the leader itself; [`Client::epoch_ends`] checks without reading.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;

use crate::client::Client;
use crate::codec::{OffsetForLeaderEpochRequestData, offset_for_leader_epoch_request as wire, text};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result, code};
use crate::leaders::{Answers, Led};
use crate::pool::Lane;

/// From where on a stretch of a log was written under which leader epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// First offset of the stretch, as far as it was read.
    pub offset: i64,
    /// Leader epoch of its records.
    pub epoch: i32,
}

/// Where a leader epoch ends in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch asked for, or the largest one below it that the log has.
    pub epoch: i32,
    /// Offset after that epoch's last record.
    pub end_offset: i64,
}

impl EpochEnd {
    /// True if the log still holds what lay before `offset`, where the last record was of `epoch`: the same question that
    /// was asked. False: from [`EpochEnd::end_offset`] on, at the latest, it is another log.
    pub fn holds(self, epoch: i32, offset: i64) -> bool {
        self.epoch == epoch && self.end_offset >= offset
    }
}

impl Client {
    /// Where leader epochs end, as the leaders know it: `epochs` names a partition and an epoch each. `None` in an answer:
    /// the leader knows neither this epoch nor an earlier one, as after the loss of its whole log.
    pub async fn epoch_ends(
        &self,
        topic: &str,
        epochs: &BTreeMap<i32, i32>,
        timeout: Duration,
    ) -> Result<BTreeMap<i32, Result<Option<EpochEnd>>>> {
        let deadline = Deadline::after(timeout);
        let partitions: Vec<i32> = epochs.keys().copied().collect();
        let ask = |leader, led: Vec<Led>| self.epoch_ends_at(leader, topic, led, epochs, deadline).boxed();
        self.ask_leaders(topic, &partitions, ask, deadline).await
    }

    async fn epoch_ends_at(
        &self,
        leader: i32,
        topic: &str,
        led: Vec<Led>,
        epochs: &BTreeMap<i32, i32>,
        deadline: Deadline,
    ) -> Result<Answers<Option<EpochEnd>>> {
        let partition = |(partition, current_leader_epoch)| wire::OffsetForLeaderPartition {
            partition,
            current_leader_epoch,
            leader_epoch: epochs.get(&partition).copied().unwrap_or(-1),
            ..Default::default()
        };
        let request = OffsetForLeaderEpochRequestData {
            replica_id: -1,
            topics: vec![wire::OffsetForLeaderTopic {
                topic: text(topic),
                partitions: led.into_iter().map(partition).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let connection = self.connection(leader, Lane::Control, deadline).await?;
        let response = connection.call(&request, Duration::ZERO, deadline).await?;
        let answers = response.topics.into_iter().filter(|answer| answer.topic.as_str() == topic);
        let end = |found: crate::codec::EpochEndOffset| {
            let checked = KafkaError::check(found.error_code, None).map_err(|error| match error.code {
                code::UNKNOWN_TOPIC_OR_PARTITION => {
                    Error::NoLeader { topic: topic.to_owned(), partition: found.partition }
                }
                _ => Error::Kafka(error),
            });
            let end = EpochEnd { epoch: found.leader_epoch, end_offset: found.end_offset };
            (found.partition, checked.map(|()| Some(end).filter(|end| end.epoch >= 0 && end.end_offset >= 0)))
        };
        Ok(answers.flat_map(|answer| answer.partitions).map(end).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_holds_a_position_only_under_the_same_epoch() {
        let end = EpochEnd { epoch: 3, end_offset: 10 };
        assert!(end.holds(3, 10) && end.holds(3, 4));
        assert!(!end.holds(3, 11), "cut off");
        assert!(!end.holds(4, 5), "the epoch itself is gone");
    }
}
