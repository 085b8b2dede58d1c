//! Reading and changing the configs of topics and groups, and reading those of brokers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::message;
use crate::client::Client;
use crate::codec::{
    DescribeConfigsRequestData, DescribeConfigsResponseData, IncrementalAlterConfigsRequestData,
    describe_configs_request, incremental_alter_configs_request, text,
};
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result};
use crate::pool::Lane;

const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;
const RESOURCE_GROUP: i8 = 32;
/// Where a value comes from: set on the topic itself, on the group itself.
const SOURCES_SET: [i8; 2] = [1, 8];

/// A config as the broker applies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Value; `None` if it is secret.
    pub value: Option<String>,
    /// True if set on the topic or group itself, false if it is a default.
    pub is_set: bool,
}

/// A change of one config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// Set it to this value.
    Set(String),
    /// Go back to the broker's default.
    Unset,
}

impl Client {
    /// All configs of a topic by name, or only those named.
    pub async fn describe_topic_configs(
        &self,
        topic: &str,
        names: Option<&[&str]>,
        timeout: Duration,
    ) -> Result<BTreeMap<String, ConfigEntry>> {
        self.describe_configs(RESOURCE_TOPIC, topic, names, timeout).await
    }

    /// All configs of a group by name, or only those named. A group that does not exist has the defaults.
    pub async fn describe_group_configs(
        &self,
        group: &str,
        names: Option<&[&str]>,
        timeout: Duration,
    ) -> Result<BTreeMap<String, ConfigEntry>> {
        self.describe_configs(RESOURCE_GROUP, group, names, timeout).await
    }

    /// All configs of a broker by name, or only those named, as that broker applies them; names that it does not know are left
    /// out. Needs DescribeConfigs on the cluster. `is_set` is false: a broker's file and its defaults look alike.
    pub async fn describe_broker_configs(
        &self,
        broker: i32,
        names: Option<&[&str]>,
        timeout: Duration,
    ) -> Result<BTreeMap<String, ConfigEntry>> {
        let deadline = Deadline::after(timeout);
        let connection = self.connection(broker, Lane::Admin, deadline).await?;
        let request = describe_request(RESOURCE_BROKER, &broker.to_string(), names);
        described(connection.call(&request, Duration::ZERO, deadline).await?)
    }

    async fn describe_configs(
        &self,
        resource_type: i8,
        name: &str,
        names: Option<&[&str]>,
        timeout: Duration,
    ) -> Result<BTreeMap<String, ConfigEntry>> {
        let request = describe_request(resource_type, name, names);
        described(self.call_any(&request, Lane::Admin, Deadline::after(timeout)).await?)
    }

    /// Changes the configs named and leaves the others alone.
    pub async fn incremental_alter_configs(
        &self,
        topic: &str,
        changes: &BTreeMap<String, ConfigChange>,
        validate_only: bool,
        timeout: Duration,
    ) -> Result<()> {
        self.alter_configs(RESOURCE_TOPIC, topic, changes, validate_only, timeout).await
    }

    /// Changes a group's configs (`consumer.session.timeout.ms`, `consumer.heartbeat.interval.ms`); the group need not
    /// exist yet. Values outside the broker's bounds are `INVALID_CONFIG`.
    pub async fn alter_group_configs(
        &self,
        group: &str,
        changes: &BTreeMap<String, ConfigChange>,
        timeout: Duration,
    ) -> Result<()> {
        self.alter_configs(RESOURCE_GROUP, group, changes, false, timeout).await
    }

    async fn alter_configs(
        &self,
        resource_type: i8,
        name: &str,
        changes: &BTreeMap<String, ConfigChange>,
        validate_only: bool,
        timeout: Duration,
    ) -> Result<()> {
        let change = |(name, change): (&String, &ConfigChange)| {
            let (config_operation, value) = match change {
                ConfigChange::Set(value) => (0, Some(text(value.as_str()))),
                ConfigChange::Unset => (1, None),
            };
            incremental_alter_configs_request::AlterableConfig {
                name: text(name.as_str()),
                config_operation,
                value,
                ..Default::default()
            }
        };
        let request = IncrementalAlterConfigsRequestData {
            resources: vec![incremental_alter_configs_request::AlterConfigsResource {
                resource_type,
                resource_name: text(name),
                configs: changes.iter().map(change).collect(),
                ..Default::default()
            }],
            validate_only,
            ..Default::default()
        };
        let response = self
            .call_controller(
                &request,
                |answer| answer.responses.iter().map(|resource| resource.error_code).collect(),
                Deadline::after(timeout),
            )
            .await?;
        let answer = response.responses.into_iter().next();
        let answer = answer.ok_or_else(|| Error::Protocol("answer lacks the resource".to_owned()))?;
        Ok(KafkaError::check(answer.error_code, message(answer.error_message))?)
    }
}

fn describe_request(resource_type: i8, name: &str, names: Option<&[&str]>) -> DescribeConfigsRequestData {
    DescribeConfigsRequestData {
        resources: vec![describe_configs_request::DescribeConfigsResource {
            resource_type,
            resource_name: text(name),
            configuration_keys: names.map(|names| names.iter().map(|name| text(*name)).collect()),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn described(response: DescribeConfigsResponseData) -> Result<BTreeMap<String, ConfigEntry>> {
    let answer = response.results.into_iter().next();
    let answer = answer.ok_or_else(|| Error::Protocol("answer lacks the resource".to_owned()))?;
    KafkaError::check(answer.error_code, message(answer.error_message))?;
    let entry = |config: crate::codec::DescribedConfig| {
        let is_set = SOURCES_SET.contains(&config.config_source);
        (config.name.to_string(), ConfigEntry { value: message(config.value), is_set })
    };
    Ok(answer.configs.into_iter().map(entry).collect())
}
