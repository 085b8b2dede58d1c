//! One batch into one partition, acknowledged by all in-sync replicas: for internal logs that write little.
//!
//! No idempotence: if the outcome is unknown ([`Error::is_outcome_unknown`]) and the caller sends again, the batch
//! may be in the log twice. Tenants' records go another way.

use std::time::Duration;

use crate::batch::encode::{OutRecord, encode_batch};
use crate::client::Client;
use crate::codec::{ProduceRequestData, produce_request, text};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result, code};
use crate::pool::Lane;
use crate::retry::Retry;

/// Larger batches are refused before they are sent.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a batch was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// Offset of the batch's first record.
    pub base_offset: i64,
    /// The broker's append time in milliseconds since 1970, if the topic uses it.
    pub log_append_time_ms: Option<i64>,
}

impl Client {
    /// Appends the records as one batch with acks=all. Sent again only when the broker certainly did not append it.
    pub async fn produce_batch(
        &self,
        topic: &str,
        partition: i32,
        records: &[OutRecord],
        timeout: Duration,
    ) -> Result<Produced> {
        let deadline = Deadline::after(timeout);
        let batch = encode_batch(records).map_err(|error| Error::InvalidRequest(error.to_string()))?;
        if batch.len() > BATCH_BYTES_MAX {
            return Err(Error::InvalidRequest(format!("batch of {} bytes", batch.len())));
        }
        let mut retry = Retry::new(timeout, deadline);
        loop {
            let attempt = async {
                let metadata = match retry.refresh {
                    true => self.refresh_topic(topic, deadline).await?,
                    false => self.cached_topic(topic, deadline).await?,
                };
                let (leader, _) = metadata.leader(partition)?;
                self.produce_once(leader, topic, partition, batch.clone(), deadline).await
            };
            match attempt.await {
                Ok(produced) => return Ok(produced),
                Err(error) if error.is_outcome_unknown() => {
                    self.doubt_leader(topic, &error);
                    return Err(error);
                }
                Err(error) => retry.after(error).await.map_err(|error| {
                    self.doubt_leader(topic, &error);
                    final_error(error, topic)
                })?,
            }
        }
    }

    async fn produce_once(
        &self,
        leader: i32,
        topic: &str,
        partition: i32,
        batch: bytes::Bytes,
        deadline: Deadline,
    ) -> Result<Produced> {
        let connection = self.connection(leader, Lane::Produce, deadline).await?;
        let wait = deadline.remaining();
        let request = ProduceRequestData {
            acks: -1,
            timeout_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            topic_data: vec![produce_request::TopicProduceData {
                name: text(topic),
                partition_data: vec![produce_request::PartitionProduceData {
                    index: partition,
                    records: Some(batch),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let response = connection.call(&request, wait, deadline).await?;
        let mut answers = response.responses.into_iter().flat_map(|answer| answer.partition_responses);
        let answer = answers
            .find(|answer| answer.index == partition)
            .ok_or_else(|| Error::Protocol("produce answer lacks the partition".to_owned()))?;
        KafkaError::check(answer.error_code, answer.error_message.map(|message| message.to_string()))?;
        Ok(Produced {
            base_offset: answer.base_offset,
            log_append_time_ms: Some(answer.log_append_time_ms).filter(|&ms| ms >= 0),
        })
    }
}

fn final_error(error: Error, topic: &str) -> Error {
    match error {
        Error::Kafka(error) if error.code == code::UNKNOWN_TOPIC_OR_PARTITION => {
            Error::UnknownTopic { topic: topic.to_owned() }
        }
        other => other,
    }
}
