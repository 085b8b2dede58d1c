//! Deleting the beginning of a log, as retention does.

use std::time::Duration;

use super::timeout_ms;
use crate::client::Client;
use crate::codec::{DeleteRecordsRequestData, delete_records_request, text};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result};
use crate::pool::Lane;
use crate::retry::Retry;

impl Client {
    /// Deletes all records before `offset`; gives the offset at which the log begins now. An offset beyond the end is
    /// `OFFSET_OUT_OF_RANGE`.
    pub async fn delete_records_before(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        timeout: Duration,
    ) -> Result<i64> {
        let deadline = Deadline::after(timeout);
        let mut retry = Retry::new(timeout, deadline);
        loop {
            let attempt = async {
                let metadata = match retry.refresh {
                    true => self.refresh_topic(topic, deadline).await?,
                    false => self.cached_topic(topic, deadline).await?,
                };
                let (leader, _) = metadata.leader(partition)?;
                self.delete_records_once(leader, topic, partition, offset, deadline).await
            };
            match attempt.await {
                Ok(start) => return Ok(start),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    async fn delete_records_once(
        &self,
        leader: i32,
        topic: &str,
        partition: i32,
        offset: i64,
        deadline: Deadline,
    ) -> Result<i64> {
        let request = DeleteRecordsRequestData {
            topics: vec![delete_records_request::DeleteRecordsTopic {
                name: text(topic),
                partitions: vec![delete_records_request::DeleteRecordsPartition {
                    partition_index: partition,
                    offset,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            timeout_ms: timeout_ms(deadline),
            ..Default::default()
        };
        let connection = self.connection(leader, Lane::Admin, deadline).await?;
        let response = connection.call(&request, deadline.remaining(), deadline).await?;
        let mut answers = response.topics.into_iter().flat_map(|answer| answer.partitions);
        let answer = answers
            .find(|answer| answer.partition_index == partition)
            .ok_or_else(|| Error::Protocol("answer lacks the partition".to_owned()))?;
        KafkaError::check(answer.error_code, None)?;
        Ok(answer.low_watermark)
    }
}
