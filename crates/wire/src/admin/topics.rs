//! Making, growing and deleting topics.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{message, timeout_ms};
use crate::client::Client;
use crate::codec::{
    CreatePartitionsRequestData, CreateTopicsRequestData, DeleteTopicsRequestData, create_partitions_request,
    create_topics_request, delete_topics_request, from_uuid, text, to_uuid,
};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result};
use crate::types::KafkaTopicId;

/// A topic to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Physical name.
    pub name: String,
    /// Partitions (at least 1), or -1 for the broker's default.
    pub partitions: i32,
    /// Replicas per partition, or -1 for the broker's default.
    pub replication: i16,
    /// Configs that differ from the broker's defaults.
    pub configs: BTreeMap<String, String>,
}

/// A topic that was made (or would be).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Physical name.
    pub name: String,
    /// Its id; zero if only validated.
    pub topic_id: KafkaTopicId,
    /// Partitions it has.
    pub partitions: i32,
    /// Replicas per partition.
    pub replication: i16,
}

impl Client {
    /// Makes topics; a result per topic, in the order given. `TOPIC_ALREADY_EXISTS` is an error like others.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
        timeout: Duration,
    ) -> Result<Vec<Result<CreatedTopic>>> {
        let deadline = Deadline::after(timeout);
        let request = CreateTopicsRequestData {
            topics: topics.iter().map(wire_topic).collect(),
            timeout_ms: timeout_ms(deadline),
            validate_only,
            ..Default::default()
        };
        let response = self
            .call_controller(&request, |answer| answer.topics.iter().map(|topic| topic.error_code).collect(), deadline)
            .await?;
        let mut answers: BTreeMap<String, _> =
            response.topics.into_iter().map(|answer| (answer.name.to_string(), answer)).collect();
        Ok(topics
            .iter()
            .map(|topic| {
                let answer = answers.remove(&topic.name).ok_or_else(|| lacks(&topic.name))?;
                KafkaError::check(answer.error_code, message(answer.error_message))?;
                Ok(CreatedTopic {
                    name: topic.name.clone(),
                    topic_id: from_uuid(answer.topic_id),
                    partitions: answer.num_partitions,
                    replication: answer.replication_factor,
                })
            })
            .collect())
    }

    /// Makes one topic.
    pub async fn create_topic(&self, topic: &NewTopic, timeout: Duration) -> Result<CreatedTopic> {
        let mut created = self.create_topics(std::slice::from_ref(topic), false, timeout).await?;
        created.pop().unwrap_or_else(|| Err(lacks(&topic.name)))
    }

    /// Raises a topic's number of partitions to `total`.
    pub async fn create_partitions(
        &self,
        topic: &str,
        total: i32,
        validate_only: bool,
        timeout: Duration,
    ) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let request = CreatePartitionsRequestData {
            topics: vec![create_partitions_request::CreatePartitionsTopic {
                name: text(topic),
                count: total,
                assignments: None,
                ..Default::default()
            }],
            timeout_ms: timeout_ms(deadline),
            validate_only,
            ..Default::default()
        };
        let response = self
            .call_controller(&request, |answer| answer.results.iter().map(|topic| topic.error_code).collect(), deadline)
            .await?;
        let answer = response.results.into_iter().next().ok_or_else(|| lacks(topic))?;
        Ok(KafkaError::check(answer.error_code, message(answer.error_message))?)
    }

    /// Deletes a topic by name.
    pub async fn delete_topic(&self, name: &str, timeout: Duration) -> Result<()> {
        let state = delete_topics_request::DeleteTopicState { name: Some(text(name)), ..Default::default() };
        self.delete(state, name, timeout).await
    }

    /// Deletes a topic by id: never another one that took its name meanwhile.
    pub async fn delete_topic_by_id(&self, id: KafkaTopicId, timeout: Duration) -> Result<()> {
        let state = delete_topics_request::DeleteTopicState { name: None, topic_id: to_uuid(id), ..Default::default() };
        self.delete(state, &id.to_string(), timeout).await
    }

    async fn delete(
        &self,
        state: delete_topics_request::DeleteTopicState,
        name: &str,
        timeout: Duration,
    ) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let request =
            DeleteTopicsRequestData { topics: vec![state], timeout_ms: timeout_ms(deadline), ..Default::default() };
        let response = self
            .call_controller(
                &request,
                |answer| answer.responses.iter().map(|topic| topic.error_code).collect(),
                deadline,
            )
            .await?;
        let answer = response.responses.into_iter().next().ok_or_else(|| lacks(name))?;
        Ok(KafkaError::check(answer.error_code, message(answer.error_message))?)
    }
}

fn wire_topic(topic: &NewTopic) -> create_topics_request::CreatableTopic {
    let config = |(name, value): (&String, &String)| create_topics_request::CreatableTopicConfig {
        name: text(name.as_str()),
        value: Some(text(value.as_str())),
        ..Default::default()
    };
    create_topics_request::CreatableTopic {
        name: text(topic.name.as_str()),
        num_partitions: topic.partitions,
        replication_factor: topic.replication,
        configs: topic.configs.iter().map(config).collect(),
        ..Default::default()
    }
}

fn lacks(name: &str) -> Error {
    Error::Protocol(format!("answer lacks topic {name}"))
}
