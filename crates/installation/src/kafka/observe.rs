//! Looks at a Kafka cluster. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_wire::{AclFilter, Client, ClientConfig, ConfigEntry, Error, ScramSha512, Topic, code};

use super::topics::{self, Found};
use super::{Observed, Seen, Unseen, Wanted, brokers};

const CALL_WITHIN: Duration = Duration::from_secs(10);

/// Looks at everything that [`plan`](super::plan()) compares. `config` is that of our own principal.
///
/// # Errors
/// The cluster cannot be reached, does not let us in, or fails otherwise than by a missing right.
pub async fn observe(config: &ClientConfig, wanted: &Wanted) -> Result<Observed, Error> {
    let kafka = Client::connect(config.clone(), CALL_WITHIN).await?;
    let names: &[&str] = if wanted.internal_topics { &topics::NAMES } else { &[] };
    let cluster = kafka.metadata(names, CALL_WITHIN).await?;
    let mut found = BTreeMap::new();
    for topic in &cluster.topics {
        let replication = topics::replication(wanted.replication, cluster.brokers.len());
        found.insert(topic.name.clone(), look(&kafka, topic, replication).await?);
    }
    let mut settings = BTreeMap::new();
    for broker in cluster.brokers.keys() {
        settings.insert(*broker, broker_settings(&kafka, *broker).await?);
    }
    let access = kafka.describe_acls(&AclFilter::default(), CALL_WITHIN).await;
    let users = users(&kafka, wanted).await?;
    Ok(Observed {
        rights: kafka.cluster_operations(CALL_WITHIN).await?.into_iter().collect(),
        brokers: settings,
        topics: found,
        access: seen(access, "Describe on the cluster")?,
        locked_out: locked_out(config, wanted, &users).await?,
        users,
    })
}

async fn look(kafka: &Client, topic: &Topic, replication: usize) -> Result<Seen<Found>, Error> {
    match &topic.error {
        None => seen(
            topics::look(kafka, topic, CALL_WITHIN).await.map(Found::Present),
            "DescribeConfigs on topics that begin with sluice.",
        ),
        Some(error) if error.code == code::UNKNOWN_TOPIC_OR_PARTITION => {
            let tried = [topics::new_topic(&topic.name, replication)];
            let answer = kafka.create_topics(&tried, true, CALL_WITHIN).await?.pop();
            match answer {
                Some(Err(Error::Kafka(error))) if error.code != code::TOPIC_ALREADY_EXISTS => {
                    Ok(Ok(Found::Absent { refused: Some(error.to_string()) }))
                }
                Some(Err(error @ (Error::DeadlineExceeded | Error::Disconnected { .. }))) => Err(error),
                _ => Ok(Ok(Found::Absent { refused: None })),
            }
        }
        Some(error) => seen(Err(error.clone().into()), "Describe on topics that begin with sluice."),
    }
}

async fn broker_settings(kafka: &Client, broker: i32) -> Result<Seen<BTreeMap<String, ConfigEntry>>, Error> {
    let settings = brokers::settings();
    let keys: Vec<&str> = settings.iter().map(|setting| setting.key).collect();
    let answer = kafka.describe_broker_configs(broker, Some(&keys), CALL_WITHIN).await;
    seen(answer, "DescribeConfigs on the cluster")
}

async fn users(kafka: &Client, wanted: &Wanted) -> Result<Seen<BTreeSet<String>>, Error> {
    let names = wanted.principals.by_role().map(|(_, name)| name);
    seen(kafka.scram_users(&names, CALL_WITHIN).await, "Describe on the cluster")
}

/// Kafka does not tell passwords. Whether one is right is tried out.
async fn locked_out(
    config: &ClientConfig,
    wanted: &Wanted,
    users: &Seen<BTreeSet<String>>,
) -> Result<BTreeSet<String>, Error> {
    let mut refused = BTreeSet::new();
    let Ok(users) = users else { return Ok(refused) };
    for user in users {
        let Some(password) = wanted.passwords.get(user) else { continue };
        let mut config = config.clone().with_client_id("sluice-install");
        config.security.sasl = Some(ScramSha512 { user: user.clone(), password: password.clone() });
        match Client::connect(config, CALL_WITHIN).await {
            Ok(_) => {}
            Err(Error::Authentication { .. }) => {
                refused.insert(user.clone());
            }
            Err(other) => return Err(other),
        }
    }
    Ok(refused)
}

/// A right that is missing is something seen.
fn seen<T>(answer: Result<T, Error>, right: &'static str) -> Result<Seen<T>, Error> {
    match answer {
        Ok(value) => Ok(Ok(value)),
        Err(error) => match error.kafka_code() {
            Some(code::TOPIC_AUTHORIZATION_FAILED | code::CLUSTER_AUTHORIZATION_FAILED) => {
                Ok(Err(Unseen::Right(right)))
            }
            Some(code::SECURITY_DISABLED) => Ok(Err(Unseen::NoAuthorizer)),
            _ => Err(error),
        },
    }
}
