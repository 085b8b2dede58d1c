//! The internal topics: made at the start where they are missing, waiting for Kafka as long as it takes; and kept as they
//! must be, at the start and regularly: what was set otherwise is set right, what cannot be is told in health.

mod settings;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_runtime::{ComponentStatus, Health};
use sluice_types::physical::{CONTROL_TOPIC, MEMBERS_TOPIC, USAGE_TOPIC};
use sluice_wire::{Client, ClusterMetadata, ConfigChange, Error, NewTopic, Topic, TopicId, code};
use tokio_util::sync::CancellationToken;

use self::settings::{Layout, layout};
use crate::plane::SharedPlane;

const CALL_WITHIN: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(500);
/// How often to look whether the control log is still the same.
const LOOK: Duration = Duration::from_secs(5);
/// How often their settings are looked at.
const VERIFY_EVERY: Duration = Duration::from_secs(300);
/// Replicas of a topic that is made, if the operator did not say and there are so many brokers.
const REPLICATION: usize = 3;
const NAMES: [&str; 3] = [CONTROL_TOPIC, MEMBERS_TOPIC, USAGE_TOPIC];
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
    let cluster = kafka.metadata(&NAMES, CALL_WITHIN).await?;
    let mut missing = Vec::new();
    for topic in &cluster.topics {
        match &topic.error {
            None => {}
            Some(error) if error.code == code::UNKNOWN_TOPIC_OR_PARTITION => {
                missing.push(wanted(&topic.name, replication(plane, &cluster)));
            }
            Some(error) => return Err(error.clone().into()),
        }
    }
    let cluster = match missing.is_empty() {
        true => cluster,
        false => {
            create(kafka, &missing).await?;
            if missing.iter().any(|topic| topic.name == MEMBERS_TOPIC) {
                plane.members.log_made();
            }
            kafka.metadata(&NAMES, CALL_WITHIN).await?
        }
    };
    plane.revisions.set_log(log_of(&cluster)?);
    Ok(cluster)
}

fn log_of(cluster: &ClusterMetadata) -> Result<TopicId, Error> {
    let log = cluster.topics.iter().find(|topic| topic.name == CONTROL_TOPIC && topic.error.is_none());
    log.map(|log| log.topic_id).ok_or_else(|| Error::UnknownTopic { topic: CONTROL_TOPIC.to_owned() })
}

/// How many replicas a topic gets: what the operator said, or one on each of up to three brokers.
fn replication(plane: &SharedPlane, cluster: &ClusterMetadata) -> usize {
    plane.settings.replication.map_or_else(|| cluster.brokers.len().clamp(1, REPLICATION), usize::from)
}

/// Sets right what was set otherwise, and tells what cannot be.
async fn verify(plane: &SharedPlane, kafka: &Client, cluster: &ClusterMetadata) -> Result<ComponentStatus, Error> {
    let replication = replication(plane, cluster);
    let mut faults = Vec::new();
    for topic in &cluster.topics {
        // By the replicas that there are: with more in sync than that nothing could be written.
        let replicas = topic.partitions.values().map(|partition| partition.replicas.len()).min().unwrap_or_default();
        let layout = layout(&topic.name, replicas);
        faults.extend(faults_of(topic, &layout, replicas, replication));
        let names: Vec<&str> = layout.settings.iter().map(|setting| setting.key).collect();
        let present = kafka.describe_topic_configs(&topic.name, Some(&names), CALL_WITHIN).await?;
        let wrong = layout.settings.iter().filter(|setting| {
            !present.get(setting.key).is_some_and(|entry| setting.is_met(entry.value.as_deref(), entry.is_set))
        });
        let changes: BTreeMap<String, ConfigChange> =
            wrong.map(|setting| (setting.key.to_owned(), ConfigChange::Set(setting.value.clone()))).collect();
        if changes.is_empty() {
            continue;
        }
        tracing::warn!(topic = topic.name, ?changes, "settings of an internal topic were other than they must be");
        kafka.incremental_alter_configs(&topic.name, &changes, false, CALL_WITHIN).await?;
    }
    Ok(match faults.is_empty() {
        true => ComponentStatus::ok("as they must be"),
        false => ComponentStatus::failing(faults.join("; ")),
    })
}

/// What only a person can change.
fn faults_of(topic: &Topic, layout: &Layout, replicas: usize, replication: usize) -> Vec<String> {
    let mut faults = Vec::new();
    let partitions = topic.partitions.len();
    if layout.partitions_fixed && partitions != usize::from(layout.partitions) {
        faults.push(format!("{} has {partitions} partitions and must have {}", topic.name, layout.partitions));
    }
    if replicas < replication {
        faults.push(format!(
            "{} has {replicas} replicas and should have {replication}: reassign its partitions, or set \
             internal_topics.replication",
            topic.name
        ));
    }
    faults
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

/// How one of them is made.
fn wanted(name: &str, replication: usize) -> NewTopic {
    let layout = layout(name, replication);
    NewTopic {
        name: name.to_owned(),
        partitions: i32::from(layout.partitions),
        replication: i16::try_from(replication).unwrap_or(i16::MAX),
        configs: layout.settings.into_iter().map(|setting| (setting.key.to_owned(), setting.value)).collect(),
    }
}
