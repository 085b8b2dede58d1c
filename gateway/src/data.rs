//! The data path: publish, read by position, look at partitions.
//!
//! One implementation serves gRPC and HTTP. A handler resolves the topic first (through [`DataCall::topic`], the only way to a
//! physical name), then checks every field, then takes the tenant's limits, and only then speaks to Kafka; a refused call has
//! written nothing. It stops waiting a little before the answer must leave (`answer_by`), and says what it knows.

pub(crate) mod encode;
pub(crate) mod failure;
mod fetch;
mod http_calls;
mod json;
mod listing;
mod produce;
pub(crate) mod records;
mod second_path;

pub(crate) use http_calls::{JSON, PROTOBUF, accepts_protobuf, respond};
pub use second_path::WirePath;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Request, Response, Status};

use sluice_edge::deadline::{MARGIN, kept};
use sluice_kafka::{KafkaSink, ProduceSink, Sasl, SinkConfig, SinkMetrics};
use sluice_proto::stream::v1::stream_service_server::StreamService;
use sluice_proto::stream::v1::{
    FetchRequest, FetchResponse, GetTopicMetadataRequest, ListOffsetsRequest, ListOffsetsResponse, ProduceRequest,
    ProduceResponse, TopicMetadata,
};
use sluice_runtime::{ComponentStatus, Health, statuses};
use sluice_types::error::Error;
use sluice_types::physical::PhysicalTopic;
use sluice_wire::{Client, Reader};

use crate::access::DataCall;
use crate::data::fetch::{Answer, Form};
use crate::metering::Meter;
use crate::ports::{Body, BoxFuture, DataParts, DataPath, DataTools, HttpCall, SomeFailed, TopicReadiness};

/// Bound of one look whether a topic can be served.
const READY_WITHIN: Duration = Duration::from_millis(1_500);
const READY_PAUSE: Duration = Duration::from_millis(20);
/// Kept of the time to shut down for the last usage window.
const LAST_WINDOW: Duration = Duration::from_secs(2);
/// The component that says whether the producers are of use; the gateway is ready only if they are.
const PRODUCERS: &str = "producers";
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// The data path of a gateway.
pub struct Data {
    sink: Arc<dyn ProduceSink>,
    wire: Client,
    reader: Reader,
    meter: Meter,
    /// Where the next call's keyless records go.
    rotation: std::sync::atomic::AtomicU32,
}

impl Data {
    /// Reads the secrets and starts producers and metering; waits for no broker.
    pub async fn build(parts: DataParts) -> Result<Arc<Self>, Box<dyn std::error::Error + Send + Sync>> {
        let mut config = SinkConfig::new(&parts.kafka.bootstrap);
        config.client_id.clone_from(&parts.gateway_id);
        config.sasl = Some(Sasl {
            ca_pem: tokio::fs::read_to_string(&parts.kafka.ca).await?,
            username: parts.kafka.username.clone(),
            password: parts.kafka.password()?,
        });
        let metrics = SinkMetrics::default();
        parts.metrics.register("produce", |registry| metrics.register(registry));
        let sink: Arc<dyn ProduceSink> =
            Arc::new(KafkaSink::start(config, metrics, Arc::new(WirePath::new(parts.wire.clone())))?);
        let source = format!("{}/{}", parts.gateway_id, parts.boot_id);
        let meter = Meter::start(source, parts.wire.clone(), &parts.tasks, &parts.metrics);
        // Such a gateway is of no use for producing although others are.
        parts.health.require(PRODUCERS);
        let watch = watch_health(Arc::clone(&sink), parts.health, parts.tasks.shutdown());
        parts.tasks.spawn("produce-health", watch);
        Ok(Arc::new(Self {
            sink,
            reader: Reader::new(parts.wire.clone()),
            wire: parts.wire,
            meter,
            rotation: std::sync::atomic::AtomicU32::new(0),
        }))
    }
}

async fn watch_health(sink: Arc<dyn ProduceSink>, health: Health, shutdown: tokio_util::sync::CancellationToken) {
    let mut ticks = tokio::time::interval(HEALTH_EVERY);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let status = match sink.is_available() {
            true => ComponentStatus::ok("brokers answer"),
            false => ComponentStatus::failing("no broker answers; records wait until their callers' deadlines"),
        };
        health.set_component("produce", status);
        let status = match sink.is_useless() {
            false => ComponentStatus::ok("none is without progress while the cluster serves"),
            true => ComponentStatus::failing("one makes no progress although the cluster serves; it is being replaced"),
        };
        health.set_component(PRODUCERS, status);
    }
}

/// Until when a handler may wait for others and still say itself what became of it.
pub(crate) fn answer_by(call: &DataCall) -> Instant {
    let deadline = call.context.deadline;
    deadline - kept(time_left(deadline), MARGIN)
}

/// Time left until then.
pub(crate) fn time_left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

impl Data {
    /// See [`failure::in_time`].
    fn in_time(&self, error: Error, until: Instant) -> Error {
        failure::in_time(error, until, self.sink.is_available())
    }
}

/// Runs a handler for gRPC.
async fn grpc<Req, Resp, F>(
    request: Request<Req>,
    handler: impl FnOnce(Arc<DataCall>, Req) -> F,
) -> Result<Response<Resp>, Status>
where
    F: Future<Output = Result<Resp, Error>>,
{
    let (_, extensions, message) = request.into_parts();
    let call = DataCall::of(&extensions).map_err(|error| statuses::to_tonic(&error, ""))?;
    let id = Arc::clone(&call.context.request_id);
    handler(call, message).await.map(Response::new).map_err(|error| {
        failure::log(&error);
        statuses::to_tonic(&error, &id)
    })
}

#[tonic::async_trait]
impl StreamService for Data {
    async fn produce(&self, request: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        grpc(request, |call, message| async move { self.produce_records(&call, message).await }).await
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        let fetched =
            grpc(request, |call, message| async move { self.fetch_records(&call, message, Form::Message).await });
        let mut fetched = fetched.await?;
        let parcel = fetched.get_mut().parcel.take();
        let mut response = fetched.map(Answer::into_message);
        parcel.map(|parcel| response.extensions_mut().insert(parcel));
        Ok(response)
    }

    async fn get_topic_metadata(
        &self,
        request: Request<GetTopicMetadataRequest>,
    ) -> Result<Response<TopicMetadata>, Status> {
        grpc(request, |call, message| async move { self.topic_metadata(&call, message).await }).await
    }

    async fn list_offsets(
        &self,
        request: Request<ListOffsetsRequest>,
    ) -> Result<Response<ListOffsetsResponse>, Status> {
        let mut response = grpc(request, |call, message| async move { self.offsets(&call, message).await }).await?;
        if !response.get_ref().failures.is_empty() {
            response.extensions_mut().insert(SomeFailed);
        }
        Ok(response)
    }
}

impl TopicReadiness for Data {
    fn ready<'a>(&'a self, name: &'a PhysicalTopic, partitions: i32) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let until = Instant::now() + READY_WITHIN;
            let (producer, reader) = tokio::join!(
                self.sink.ensure_topic(name.as_str(), partitions, until),
                self.reader_ready(name, partitions, until),
            );
            producer && reader
        })
    }

    fn forget(&self, name: &PhysicalTopic) {
        self.sink.forget(name.as_str());
    }
}

impl Data {
    /// Waits until fresh metadata shows a leader of each partition; it stays cached for reading.
    async fn reader_ready(&self, name: &PhysicalTopic, partitions: i32, until: Instant) -> bool {
        let wanted = usize::try_from(partitions).unwrap_or(usize::MAX);
        while !time_left(until).is_zero() {
            if let Ok(metadata) = self.wire.metadata(&[name.as_str()], time_left(until)).await
                && let Some(topic) = metadata.topics.first()
                && topic.partitions.values().filter(|partition| partition.leader.is_some()).count() >= wanted
            {
                return true;
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
        false
    }
}

impl DataPath for Data {
    fn http_produce(&self, call: HttpCall) -> BoxFuture<'_, Result<http::Response<Body>, Error>> {
        Box::pin(self.produce_over_http(call))
    }

    fn http_fetch(&self, call: HttpCall) -> BoxFuture<'_, Result<http::Response<Body>, Error>> {
        Box::pin(self.fetch_over_http(call))
    }

    fn tools(&self) -> DataTools {
        DataTools {
            sink: Arc::clone(&self.sink),
            wire: self.wire.clone(),
            reader: self.reader.clone(),
            meter: self.meter.clone(),
        }
    }

    fn shutdown(&self, deadline: Instant) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let flush_by = deadline.checked_sub(LAST_WINDOW).unwrap_or(deadline);
            if !self.sink.flush(flush_by).await {
                tracing::warn!("records were still on their way at the end; their callers have been answered");
            }
            self.meter.close(deadline).await;
        })
    }
}

#[cfg(test)]
mod tests;
