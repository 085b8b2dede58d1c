//! Where the frame and the data path meet: what each needs of the other, and nothing else. Calls come through [`crate::access`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use sluice_kafka::ProduceSink;
use sluice_runtime::config::KafkaConfig;
use sluice_runtime::{Health, Metrics, TaskSet};
use sluice_types::error::Error;
use sluice_types::physical::PhysicalTopic;

use crate::access::DataCall;
use crate::metering::Meter;

pub use sluice_edge::Body;

/// A boxed future, for object-safe ports.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// In the extensions of an answer of which some parts failed: over HTTP its status is 207.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SomeFailed;

/// Whether a topic can be served: asked before a revision counts as applied.
pub trait TopicReadiness: Send + Sync + 'static {
    /// Waits until the leaders of all `partitions` are known to the producer and to the reading side; false if that could
    /// not be seen. The caller bounds the wait (1.5 s) by dropping the future.
    fn ready<'a>(&'a self, name: &'a PhysicalTopic, partitions: i32) -> BoxFuture<'a, bool>;
    /// The topic is gone for good: drop what is cached about it.
    fn forget(&self, name: &PhysicalTopic);
}

/// What the frame drives of the data path beside the RPCs of `StreamService`.
pub trait DataPath: TopicReadiness {
    /// `POST …/records`: JSON, or a raw record, or protobuf, by content type.
    fn http_produce(&self, call: HttpCall) -> BoxFuture<'_, Result<http::Response<Body>, Error>>;
    /// `GET …/records`.
    fn http_fetch(&self, call: HttpCall) -> BoxFuture<'_, Result<http::Response<Body>, Error>>;
    /// What consumer groups use of it.
    fn tools(&self) -> DataTools;
    /// Called when no call is in flight any more: flush the producers, then close the usage windows (`last = true`).
    /// Returns by `deadline`.
    fn shutdown(&self, deadline: Instant) -> BoxFuture<'_, ()>;
}

/// What the data path lends to consumer groups; clones are the same.
#[derive(Clone)]
pub struct DataTools {
    /// Appends records.
    pub sink: Arc<dyn ProduceSink>,
    /// Our Kafka client.
    pub wire: sluice_wire::Client,
    /// Reads records for many.
    pub reader: sluice_wire::Reader,
    /// Counts usage.
    pub meter: Meter,
}

/// What the data path is built from.
pub struct DataParts {
    /// `{gateway id}`, stable over restarts.
    pub gateway_id: String,
    /// This start of it.
    pub boot_id: String,
    /// The cluster.
    pub kafka: KafkaConfig,
    /// Our Kafka client, shared with the rest of the gateway.
    pub wire: sluice_wire::Client,
    /// Where the data path says how it fares.
    pub health: Health,
    /// Where its figures go.
    pub metrics: Metrics,
    /// Its tasks; their token is cancelled after [`DataPath::shutdown`].
    pub tasks: TaskSet,
}

/// An HTTP call on a hot route: the body is whole, inflated and within the body limit.
pub struct HttpCall {
    /// Method, URI with query, headers, extensions.
    pub parts: http::request::Parts,
    /// The path's variable `topic`, percent-decoded, e.g. `namespaces/prod/topics/orders`; its grammar is not checked yet.
    pub topic: String,
    /// The body.
    pub body: Bytes,
    /// The authenticated call.
    pub call: Arc<DataCall>,
}
