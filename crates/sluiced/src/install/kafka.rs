//! The Kafka cluster of an installation.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sluice_installation::kafka::{self, Difference, Wanted};
use sluice_runtime::config::KafkaConfig;
use sluice_wire::{Client, ClientConfig, ScramSha512, Security};

use super::config::Config;
use super::report::Report;
use crate::secrets::{Secrets, given, given_or_made};

/// How long a change may take to reach every broker.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How to reach it, and what must be there.
pub(super) struct Target<'a> {
    client: ClientConfig,
    wanted: Wanted,
    secrets: &'a Secrets,
}

impl<'a> Target<'a> {
    pub(super) fn new(config: &Config, kafka: &KafkaConfig, secrets: &'a Secrets) -> Result<Self> {
        let sasl = ScramSha512 { user: kafka.username.clone(), password: kafka.password()? };
        let security = Security { tls: Some(kafka.rustls_client_config()?), sasl: Some(sasl) };
        let principals = config.principals.principals();
        let mut passwords = BTreeMap::new();
        for (role, name) in principals.by_role() {
            if let Some(password) = given(&secrets.kafka_password(role))? {
                passwords.insert(name.to_owned(), password);
            }
        }
        let wanted = Wanted {
            admin: kafka.username.clone(),
            principals,
            internal_topics: config.topics.internal,
            replication: config.topics.replication,
            passwords,
        };
        let client = ClientConfig::new(&kafka.bootstrap).with_security(security).with_client_id("sluice-install");
        Ok(Self { client, wanted, secrets })
    }

    /// What is not as it must be.
    pub(super) async fn differences(&self) -> Result<Vec<Difference>> {
        let observed = kafka::observe(&self.client, &self.wanted).await.context("look at Kafka")?;
        Ok(kafka::plan(&self.wanted, &observed))
    }

    /// What is left after [`apply`](Self::apply). A change reaches brokers one after the other, and any of them may be asked: what
    /// was mended is given a moment to be seen.
    pub(super) async fn left(&self) -> Result<Vec<Difference>> {
        let deadline = Instant::now() + SEEN_WITHIN;
        loop {
            let differences = self.differences().await?;
            if Instant::now() >= deadline || differences.iter().all(|difference| difference.action().is_none()) {
                return Ok(differences);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Mends what can be mended, until something is refused.
    pub(super) async fn apply(&mut self, report: &mut Report) -> Result<()> {
        let client = Client::new(self.client.clone())?;
        for difference in self.differences().await? {
            let Some(action) = difference.action() else { continue };
            if let kafka::Action::SetPassword { user } = action {
                self.make_password(user)?;
            }
            let passwords = &self.wanted.passwords;
            match kafka::apply(&client, action, |user| passwords.get(user).cloned()).await {
                Ok(()) => report.done.push(action.to_string()),
                Err(error) => {
                    report.failed = Some(anyhow::Error::from(error).context(format!("{action}")));
                    break;
                }
            }
        }
        Ok(())
    }

    /// The password is in its file before Kafka knows it: otherwise nobody would.
    fn make_password(&mut self, user: &str) -> Result<()> {
        let roles = self.wanted.principals.by_role();
        let role =
            roles.iter().find(|(_, name)| *name == user).map(|(role, _)| *role).context("a principal of ours")?;
        let password = given_or_made(&self.secrets.kafka_password(role))?;
        self.wanted.passwords.insert(user.to_owned(), password);
        Ok(())
    }
}
