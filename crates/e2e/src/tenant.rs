//! A tenant at work: typed calls over gRPC to any gateway.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use sluice_proto::admin::v1::namespace_service_client::NamespaceServiceClient;
use sluice_proto::admin::v1::service_account_service_client::ServiceAccountServiceClient;
use sluice_proto::admin::v1::topic_service_client::TopicServiceClient;
use sluice_proto::admin::v1::{
    ApiKey, CreateApiKeyRequest, CreateNamespaceRequest, CreateServiceAccountRequest, CreateTopicRequest,
    DeleteTopicRequest, GetNamespaceRequest, GetTopicRequest, Namespace, OperationMetadata, RevokeApiKeyRequest, Role,
    RoleGrant, ServiceAccount, Topic, UpdateTopicRequest,
};
use sluice_proto::billing::v1::usage_service_client::UsageServiceClient;
use sluice_proto::billing::v1::{GetUsageRequest, TopicUsage};
use sluice_proto::google::longrunning::{Operation, operation};
use sluice_proto::stream::v1::fetch_request::Start;
use sluice_proto::stream::v1::list_offsets_request::At;
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, Outcome, ProduceRecord, ProduceRequest,
    ProduceResponse, RecordResult, produce_record,
};
use sluice_proto::wkt::FieldMask;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

/// A tenant made for a test, with its owner's key.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its id.
    pub id: String,
    /// Its uid.
    pub uid: String,
    /// The owner's key.
    pub key: String,
}

/// Calls of one principal through one gateway.
#[derive(Clone)]
pub struct Api {
    /// The connection.
    pub channel: Channel,
    authorization: MetadataValue<Ascii>,
    /// Deadline of each call.
    pub timeout: Duration,
    /// Sent as `sluice-revision`.
    pub revision: Option<String>,
}

impl Api {
    /// Through the gateway at `address` (host:port), connecting when first used.
    ///
    /// # Errors
    /// If the address or key cannot be used in a request at all.
    pub fn new(address: &str, key: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(Duration::from_secs(5));
        Ok(Self {
            channel: endpoint.connect_lazy(),
            authorization: format!("Bearer {key}").parse()?,
            timeout: Duration::from_secs(20),
            revision: None,
        })
    }

    /// A request with credential and deadline.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        if let Some(Ok(revision)) = self.revision.as_ref().map(|text| text.parse()) {
            request.metadata_mut().insert("sluice-revision", revision);
        }
        request
    }

    /// Creates a namespace and waits for it.
    ///
    /// # Errors
    /// As answered.
    pub async fn create_namespace(&self, id: &str) -> Result<Namespace> {
        let request = CreateNamespaceRequest {
            namespace_id: id.into(),
            namespace: Some(Namespace::default()),
            ..Default::default()
        };
        let answer = NamespaceServiceClient::new(self.channel.clone()).create_namespace(self.request(request)).await?;
        finished(answer.into_inner())
    }

    /// Creates a topic; the operation must be done when the call returns.
    ///
    /// # Errors
    /// As answered, or if the operation is not done.
    pub async fn create_topic(&self, namespace: &str, id: &str, partitions: i32) -> Result<Topic> {
        finished(self.create_topic_call(namespace, id, partitions).await?.into_inner())
    }

    /// The bare call.
    ///
    /// # Errors
    /// As answered.
    pub async fn create_topic_call(
        &self,
        namespace: &str,
        id: &str,
        partitions: i32,
    ) -> Result<Response<Operation>, Status> {
        let request = CreateTopicRequest {
            parent: format!("namespaces/{namespace}"),
            topic_id: id.into(),
            topic: Some(Topic { partition_count: Some(partitions), ..Default::default() }),
            ..Default::default()
        };
        TopicServiceClient::new(self.channel.clone()).create_topic(self.request(request)).await
    }

    /// Adds partitions.
    ///
    /// # Errors
    /// As answered, or if the operation is not done.
    pub async fn set_partitions(&self, topic: &str, partitions: i32) -> Result<Topic> {
        finished(self.set_partitions_call(topic, partitions).await?.into_inner())
    }

    /// The bare call.
    ///
    /// # Errors
    /// As answered.
    pub async fn set_partitions_call(&self, topic: &str, partitions: i32) -> Result<Response<Operation>, Status> {
        let request = UpdateTopicRequest {
            topic: Some(Topic { name: topic.into(), partition_count: Some(partitions), ..Default::default() }),
            update_mask: Some(FieldMask { paths: vec!["partition_count".into()] }),
            ..Default::default()
        };
        TopicServiceClient::new(self.channel.clone()).update_topic(self.request(request)).await
    }

    /// A topic.
    ///
    /// # Errors
    /// As answered.
    pub async fn get_topic(&self, topic: &str) -> Result<Topic> {
        let request = GetTopicRequest { name: topic.into() };
        Ok(TopicServiceClient::new(self.channel.clone()).get_topic(self.request(request)).await?.into_inner())
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// As answered.
    pub async fn delete_topic(&self, topic: &str) -> Result<Operation> {
        let request = DeleteTopicRequest { name: topic.into(), ..Default::default() };
        let answer = TopicServiceClient::new(self.channel.clone()).delete_topic(self.request(request)).await?;
        Ok(answer.into_inner())
    }

    /// Creates a service account with one grant on a resource pattern.
    ///
    /// # Errors
    /// As answered.
    pub async fn create_account(&self, id: &str, role: Role, resource: &str) -> Result<ServiceAccount> {
        let request = CreateServiceAccountRequest {
            service_account_id: id.into(),
            service_account: Some(ServiceAccount {
                grants: vec![RoleGrant { role: role.into(), resource: resource.into() }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut client = ServiceAccountServiceClient::new(self.channel.clone());
        Ok(client.create_service_account(self.request(request)).await?.into_inner())
    }

    /// Creates a key of an account.
    ///
    /// # Errors
    /// As answered.
    pub async fn create_key(&self, account: &str) -> Result<ApiKey> {
        let request = CreateApiKeyRequest {
            parent: format!("serviceAccounts/{account}"),
            api_key: Some(ApiKey::default()),
            ..Default::default()
        };
        let mut client = ServiceAccountServiceClient::new(self.channel.clone());
        Ok(client.create_api_key(self.request(request)).await?.into_inner())
    }

    /// Revokes a key.
    ///
    /// # Errors
    /// As answered.
    pub async fn revoke_key(&self, name: &str) -> Result<ApiKey> {
        let request = RevokeApiKeyRequest { name: name.into(), ..Default::default() };
        let mut client = ServiceAccountServiceClient::new(self.channel.clone());
        Ok(client.revoke_api_key(self.request(request)).await?.into_inner())
    }

    /// Produces; the call's own status is the error.
    ///
    /// # Errors
    /// As answered.
    pub async fn produce(&self, topic: &str, records: Vec<ProduceRecord>) -> Result<Vec<RecordResult>, Status> {
        let request = ProduceRequest { topic: topic.into(), records };
        let answer = StreamServiceClient::new(self.channel.clone()).produce(self.request(request)).await?;
        let ProduceResponse { results } = answer.into_inner();
        Ok(results)
    }

    /// Produces records that must all be persisted.
    ///
    /// # Errors
    /// If one is not.
    pub async fn produce_all(&self, topic: &str, records: Vec<ProduceRecord>) -> Result<Vec<RecordResult>> {
        let results = self.produce(topic, records).await?;
        match results.iter().find(|result| result.outcome() != Outcome::Persisted) {
            None => Ok(results),
            Some(result) => bail!("a record was not persisted: {result:?}"),
        }
    }

    /// Fetches from an offset.
    ///
    /// # Errors
    /// As answered.
    pub async fn fetch(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        wait: Duration,
    ) -> Result<FetchResponse, Status> {
        let request = FetchRequest {
            topic: topic.into(),
            partition,
            start: Some(Start::Offset(offset)),
            max_bytes: 4 << 20,
            max_records: 10_000,
            wait: Some(wait.into()),
            ..Default::default()
        };
        let mut client = StreamServiceClient::new(self.channel.clone()).max_decoding_message_size(32 << 20);
        Ok(client.fetch(self.request(request)).await?.into_inner())
    }

    /// Where partitions end, or the first records at or after a time; all partitions if none is named.
    ///
    /// # Errors
    /// As answered.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partitions: &[i32],
        at: Option<At>,
    ) -> Result<ListOffsetsResponse, Status> {
        let request = ListOffsetsRequest { topic: topic.into(), partitions: partitions.to_vec(), at };
        let mut client = StreamServiceClient::new(self.channel.clone());
        Ok(client.list_offsets(self.request(request)).await?.into_inner())
    }

    /// Usage of all topics, or of one.
    ///
    /// # Errors
    /// As answered.
    pub async fn usage(&self, topic: &str) -> Result<Vec<TopicUsage>> {
        let mut client = UsageServiceClient::new(self.channel.clone());
        let mut topics = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = GetUsageRequest { topic: topic.into(), page_token, ..Default::default() };
            let answer = client.get_usage(self.request(request)).await?.into_inner();
            topics.extend(answer.topics);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(topics);
            }
        }
    }
}

/// The uid of a namespace.
///
/// # Errors
/// As answered.
pub async fn namespace_uid(api: &Api, id: &str) -> Result<String> {
    let request = GetNamespaceRequest { name: format!("namespaces/{id}") };
    let answer = NamespaceServiceClient::new(api.channel.clone()).get_namespace(api.request(request)).await?;
    Ok(answer.into_inner().uid)
}

/// A record with a key and a value.
pub fn record(key: Option<&[u8]>, value: &[u8]) -> ProduceRecord {
    ProduceRecord {
        key_kind: key.map(|key| produce_record::KeyKind::Key(Bytes::copy_from_slice(key))),
        value_kind: Some(produce_record::ValueKind::Value(Bytes::copy_from_slice(value))),
        ..Default::default()
    }
}

/// What an operation that is done made.
///
/// # Errors
/// If it is not done, or failed.
pub fn finished<T: prost::Message + prost::Name + Default>(operation: Operation) -> Result<T> {
    if !operation.done {
        bail!("the operation is not done: {:?}", metadata(&operation));
    }
    match operation.result {
        Some(operation::Result::Response(any)) => {
            Ok(any.unpack::<T>().context("the operation's response has another type")??)
        }
        other => bail!("the operation failed: {other:?}"),
    }
}

/// An operation's metadata.
pub fn metadata(operation: &Operation) -> OperationMetadata {
    operation.metadata.as_ref().and_then(|any| any.unpack()).and_then(Result::ok).unwrap_or_default()
}
