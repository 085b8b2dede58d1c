//! The internal topics: made at the start where they are missing, waiting for Kafka as long as it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_runtime::{ComponentStatus, Health};
use sluice_types::physical::{CONTROL_TOPIC, MEMBERS_TOPIC, USAGE_TOPIC};
use sluice_wire::{Client, Error, NewTopic, TopicId, code};
use tokio_util::sync::CancellationToken;

use crate::plane::SharedPlane;

const CALL_WITHIN: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(500);
/// How often to look whether the control log is still the same.
const LOOK: Duration = Duration::from_secs(5);

/// Makes the topics, then watches the identity of the control log, until the shutdown.
pub(crate) async fn run(plane: SharedPlane, kafka: Client, health: Health, shutdown: CancellationToken) {
    let watch = async {
        loop {
            let pause = match ensure(&kafka).await {
                Ok(log) => {
                    plane.revisions.set_log(log);
                    health.set_component("kafka", ComponentStatus::ok("answers"));
                    LOOK
                }
                Err(error) => {
                    tracing::debug!(%error, "look at the internal topics");
                    health.set_component("kafka", ComponentStatus::failing("does not answer; see the log at debug"));
                    AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watch => {}
    }
}

/// The id of the control log, once all three are there.
async fn ensure(kafka: &Client) -> Result<TopicId, Error> {
    let names = [CONTROL_TOPIC, MEMBERS_TOPIC, USAGE_TOPIC];
    let metadata = kafka.metadata(&names, CALL_WITHIN).await?;
    let mut log = None;
    let mut missing = Vec::new();
    for topic in &metadata.topics {
        match &topic.error {
            None if topic.name == CONTROL_TOPIC => log = Some(topic.topic_id),
            None => {}
            Some(error) if error.code == code::UNKNOWN_TOPIC_OR_PARTITION => missing.push(wanted(&topic.name)),
            Some(error) => return Err(error.clone().into()),
        }
    }
    if !missing.is_empty() {
        create(kafka, &missing).await?;
    }
    match log {
        Some(log) => Ok(log),
        None => {
            let topic = kafka.metadata(&[CONTROL_TOPIC], CALL_WITHIN).await?.topics.into_iter().next();
            let topic = topic.filter(|topic| topic.error.is_none());
            topic.map(|topic| topic.topic_id).ok_or_else(|| Error::UnknownTopic { topic: CONTROL_TOPIC.to_owned() })
        }
    }
}

async fn create(kafka: &Client, missing: &[NewTopic]) -> Result<(), Error> {
    for created in kafka.create_topics(missing, false, CALL_WITHIN).await? {
        match created {
            Ok(topic) => tracing::info!(topic = topic.name, "made an internal topic"),
            Err(Error::Kafka(error)) if error.code == code::TOPIC_ALREADY_EXISTS => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How each of them is made. Replicas as the cluster's default.
fn wanted(name: &str) -> NewTopic {
    const HOUR_MS: i64 = 3_600_000;
    const DAY_MS: i64 = 24 * HOUR_MS;
    let (partitions, configs): (i32, Vec<(&str, String)>) = match name {
        CONTROL_TOPIC => (
            1,
            vec![
                ("cleanup.policy", "compact".into()),
                ("message.timestamp.type", "LogAppendTime".into()),
                ("delete.retention.ms", (7 * DAY_MS).to_string()),
                ("min.compaction.lag.ms", HOUR_MS.to_string()),
            ],
        ),
        MEMBERS_TOPIC => (
            1,
            vec![
                ("cleanup.policy", "compact,delete".into()),
                ("message.timestamp.type", "LogAppendTime".into()),
                ("retention.ms", HOUR_MS.to_string()),
                ("segment.ms", (HOUR_MS / 6).to_string()),
            ],
        ),
        _ => (4, vec![("cleanup.policy", "delete".into()), ("retention.ms", (30 * DAY_MS).to_string())]),
    };
    let configs: BTreeMap<String, String> = configs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    NewTopic { name: name.to_owned(), partitions, replication: -1, configs }
}
