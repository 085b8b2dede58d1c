//! Names of assigned topics: brokers assign by topic id.

use std::sync::Arc;

use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::types::KafkaTopicId;

/// Ids and names of those of the topics that exist. What is known is used first; only if an id of `wanted` is not
/// among it the cluster is asked.
pub(super) async fn name_topics(
    client: &Client,
    topics: &[Arc<str>],
    wanted: impl IntoIterator<Item = KafkaTopicId>,
    deadline: Deadline,
) -> Result<Vec<(KafkaTopicId, Arc<str>)>> {
    let known = look_up(client, topics, false, deadline).await?;
    let is_known = |id: KafkaTopicId| known.iter().any(|(had, _)| *had == id);
    if wanted.into_iter().all(is_known) {
        return Ok(known);
    }
    look_up(client, topics, true, deadline).await
}

async fn look_up(
    client: &Client,
    topics: &[Arc<str>],
    refresh: bool,
    deadline: Deadline,
) -> Result<Vec<(KafkaTopicId, Arc<str>)>> {
    let mut names = Vec::with_capacity(topics.len());
    for name in topics {
        let topic = match refresh {
            true => client.refresh_topic(name, deadline).await,
            false => client.cached_topic(name, deadline).await,
        };
        match topic {
            Ok(topic) => names.push((topic.topic_id, Arc::clone(name))),
            Err(Error::UnknownTopic { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}
