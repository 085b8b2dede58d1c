//! Mends one difference. Harmless to repeat.

use std::time::Duration;

use secrecy::SecretString;
use sluice_wire::{Client, Error, ScramUpsert, code};

use super::{Action, access, topics};

const CALL_WITHIN: Duration = Duration::from_secs(30);

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Our principal may not.
    #[error("Kafka refuses it: our principal needs {right}")]
    Right {
        /// The right that is missing.
        right: &'static str,
        /// What Kafka said.
        #[source]
        source: Error,
    },
    /// Kafka failed.
    #[error("change Kafka")]
    Kafka(#[source] Error),
    /// No password is known for the user.
    #[error("no password is known for {user}")]
    NoPassword {
        /// The user.
        user: String,
    },
}

/// Does it. `password` tells the password of a user, and is asked when one is set.
///
/// # Errors
/// What Kafka refuses, with the right that is missing, and what fails.
pub async fn apply(
    kafka: &Client,
    action: &Action,
    password: impl FnOnce(&str) -> Option<SecretString>,
) -> Result<(), ApplyError> {
    let done = match action {
        Action::SetPassword { user } => {
            let password = password(user).ok_or_else(|| ApplyError::NoPassword { user: user.clone() })?;
            let upsert = [ScramUpsert { user: user.clone(), password }];
            kafka.upsert_scram_users(&upsert, CALL_WITHIN).await
        }
        Action::CreateTopic { name, replication } => topics::create(kafka, name, *replication, CALL_WITHIN).await,
        Action::SetTopicSetting { topic, key, value } => topics::set(kafka, topic, key, value, CALL_WITHIN).await,
        Action::AddRules(rules) => access::add(kafka, rules, CALL_WITHIN).await,
        Action::RemoveRules(rules) => access::remove(kafka, rules, CALL_WITHIN).await,
    };
    done.map_err(|source| match source.kafka_code() {
        Some(code::TOPIC_AUTHORIZATION_FAILED | code::CLUSTER_AUTHORIZATION_FAILED) => {
            ApplyError::Right { right: needed(action), source }
        }
        _ => ApplyError::Kafka(source),
    })
}

fn needed(action: &Action) -> &'static str {
    match action {
        Action::SetPassword { .. } | Action::AddRules(_) | Action::RemoveRules(_) => "Alter on the cluster",
        Action::CreateTopic { .. } => "Create on topics that begin with sluice.",
        Action::SetTopicSetting { .. } => "AlterConfigs on topics that begin with sluice.",
    }
}
