//! Quotas of clients: how many bytes a second brokers give to, or take from, who calls itself so.

use std::collections::BTreeMap;
use std::time::Duration;

use super::message;
use crate::client::Client;
use crate::codec::{AlterClientQuotasRequestData, alter_client_quotas_request as wire, text};
use crate::deadline::Deadline;
use crate::error::{KafkaError, Result};

impl Client {
    /// Sets quotas of a client id by their names (`consumer_byte_rate`, `producer_byte_rate`, `request_percentage`), each
    /// broker's alone; `None` removes one.
    pub async fn alter_client_quotas(
        &self,
        client_id: &str,
        quotas: &BTreeMap<String, Option<f64>>,
        timeout: Duration,
    ) -> Result<()> {
        let entity = wire::EntityData {
            entity_type: text("client-id"),
            entity_name: Some(text(client_id)),
            ..Default::default()
        };
        let op = |(key, value): (&String, &Option<f64>)| wire::OpData {
            key: text(key.as_str()),
            value: value.unwrap_or_default(),
            remove: value.is_none(),
            ..Default::default()
        };
        let entry =
            wire::EntryData { entity: vec![entity], ops: quotas.iter().map(op).collect(), ..Default::default() };
        let request = AlterClientQuotasRequestData { entries: vec![entry], ..Default::default() };
        let response = self
            .call_controller(
                &request,
                |answer| answer.entries.iter().map(|entry| entry.error_code).collect(),
                Deadline::after(timeout),
            )
            .await?;
        for entry in response.entries {
            KafkaError::check(entry.error_code, message(entry.error_message))?;
        }
        Ok(())
    }
}
