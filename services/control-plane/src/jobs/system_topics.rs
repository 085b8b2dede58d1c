//! The internal topics: made at the start where they are missing, waiting for Kafka as long as it takes; and kept as they
//! must be, at the start and regularly: what was set otherwise is set right, what cannot be is told in health.

use std::time::{Duration, Instant};

use sluice_installation::kafka::{Action, Difference, topics};
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::physical::{CONTROL_TOPIC, MEMBERS_TOPIC};
use sluice_wire::{Client, ClusterMetadata, Error, KafkaTopicId, code};
use tokio_util::sync::CancellationToken;

use crate::plane::SharedPlane;

const CALL_WITHIN: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(500);
/// How often to look whether the control log is still the same.
const LOOK: Duration = Duration::from_secs(5);
/// How often their settings are looked at.
const VERIFY_EVERY: Duration = Duration::from_secs(300);
const COMPONENT: &str = "internal_topics";

/// Makes the topics, then watches the identity of the control log, until the shutdown.
pub(crate) async fn run(plane: SharedPlane, kafka: Client, health: Health, shutdown: CancellationToken) {
    let watch = async {
        let mut verify_at = Instant::now();
        loop {
            let looked = match ensure(&plane, &kafka).await {
                Ok(cluster) if Instant::now() >= verify_at => verify(&plane, &kafka, &cluster).await.map(|told| {
                    health.set_component(COMPONENT, told);
                    verify_at = Instant::now() + VERIFY_EVERY;
                }),
                other => other.map(drop),
            };
            let pause = match looked {
                Ok(()) => {
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

/// Makes those that are missing, and tells the plane which life of the control log this is.
async fn ensure(plane: &SharedPlane, kafka: &Client) -> Result<ClusterMetadata, Error> {
    let cluster = kafka.metadata(&topics::NAMES, CALL_WITHIN).await?;
    let mut missing = Vec::new();
    for topic in &cluster.topics {
        match &topic.error {
            None => {}
            Some(error) if error.code == code::UNKNOWN_TOPIC_OR_PARTITION => missing.push(topic.name.as_str()),
            Some(error) => return Err(error.clone().into()),
        }
    }
    let cluster = match missing.is_empty() {
        true => cluster,
        false => {
            for name in &missing {
                topics::create(kafka, name, replication(plane, &cluster), CALL_WITHIN).await?;
                tracing::info!(topic = name, "made an internal topic");
            }
            if missing.contains(&MEMBERS_TOPIC) {
                plane.members.log_made();
            }
            kafka.metadata(&topics::NAMES, CALL_WITHIN).await?
        }
    };
    plane.revisions.set_log(log_of(&cluster)?);
    Ok(cluster)
}

fn log_of(cluster: &ClusterMetadata) -> Result<KafkaTopicId, Error> {
    let log = cluster.topics.iter().find(|topic| topic.name == CONTROL_TOPIC && topic.error.is_none());
    log.map(|log| log.topic_id).ok_or_else(|| Error::UnknownTopic { topic: CONTROL_TOPIC.to_owned() })
}

fn replication(plane: &SharedPlane, cluster: &ClusterMetadata) -> usize {
    topics::replication(plane.settings.replication, cluster.brokers.len())
}

/// Sets right what was set otherwise, and tells what cannot be.
async fn verify(plane: &SharedPlane, kafka: &Client, cluster: &ClusterMetadata) -> Result<ComponentStatus, Error> {
    let mut faults = Vec::new();
    for topic in &cluster.topics {
        let found = topics::Found::Present(topics::look(kafka, topic, CALL_WITHIN).await?);
        for difference in topics::plan(&topic.name, &found, replication(plane, cluster)) {
            match difference.action() {
                Some(Action::SetTopicSetting { topic, key, value }) => {
                    tracing::warn!(
                        topic,
                        key,
                        value,
                        was = difference.is,
                        "a setting of an internal topic was other than it must be"
                    );
                    topics::set(kafka, topic, key, value, CALL_WITHIN).await?;
                }
                _ => faults.push(fault(&difference)),
            }
        }
    }
    Ok(match faults.is_empty() {
        true => ComponentStatus::ok("as they must be"),
        false => ComponentStatus::failing(faults.join("; ")),
    })
}

/// What only a person can change.
fn fault(difference: &Difference) -> String {
    let Difference { name, item, is, must, .. } = difference;
    let how = match &difference.remedy {
        sluice_installation::Remedy::Person(how) => how.as_str(),
        sluice_installation::Remedy::Apply(_) => "sluiced install --apply",
    };
    format!("{name} has {} {item} and should have {must}: {how}", is.as_deref().unwrap_or("no"))
}
