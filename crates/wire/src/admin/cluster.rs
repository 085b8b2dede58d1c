//! The cluster itself: who is in it, and what it speaks.

use std::time::Duration;

use super::acls::AclOperation;
use super::message;
use crate::client::Client;
use crate::codec::DescribeClusterRequestData;
use crate::deadline::Deadline;
use crate::error::{Error, KafkaError, Result};
use crate::metadata::Broker;
use crate::pool::Lane;

/// Answer to [`Client::describe_cluster`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Id of the cluster.
    pub cluster_id: String,
    /// Node to send controller requests to, if there is one.
    pub controller_id: Option<i32>,
    /// Live brokers.
    pub brokers: Vec<Broker>,
}

impl Client {
    /// Asks a broker for the cluster's members.
    pub async fn describe_cluster(&self, timeout: Duration) -> Result<ClusterDescription> {
        let request = DescribeClusterRequestData { endpoint_type: 1, ..Default::default() };
        let response = self.call_any(&request, Lane::Control, Deadline::after(timeout)).await?;
        KafkaError::check(response.error_code, message(response.error_message))?;
        let brokers = response.brokers.into_iter().map(|broker| {
            let port = u16::try_from(broker.port)
                .map_err(|_| Error::Protocol(format!("broker {} with port {}", broker.broker_id, broker.port)))?;
            Ok(Broker { id: broker.broker_id, host: broker.host.to_string(), port, rack: message(broker.rack) })
        });
        Ok(ClusterDescription {
            cluster_id: response.cluster_id.to_string(),
            controller_id: Some(response.controller_id).filter(|&id| id >= 0),
            brokers: brokers.collect::<Result<_>>()?,
        })
    }

    /// What our principal may do on the cluster as a whole.
    pub async fn cluster_operations(&self, timeout: Duration) -> Result<Vec<AclOperation>> {
        let request = DescribeClusterRequestData {
            endpoint_type: 1,
            include_cluster_authorized_operations: true,
            ..Default::default()
        };
        let response = self.call_any(&request, Lane::Control, Deadline::after(timeout)).await?;
        KafkaError::check(response.error_code, message(response.error_message))?;
        Ok(AclOperation::from_bits(response.cluster_authorized_operations))
    }

    /// Versions that one broker speaks: `(api key, lowest, highest)`, by key.
    pub async fn api_versions(&self, broker: i32, timeout: Duration) -> Result<Vec<(i16, i16, i16)>> {
        let connection = self.connection(broker, Lane::Control, Deadline::after(timeout)).await?;
        Ok(connection.versions().list())
    }
}
