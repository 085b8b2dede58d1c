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

pub(crate) use http_calls::{HttpCall, JSON, PROTOBUF, accepts_protobuf, respond};

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use tonic::{Request, Response, Status};

use sluice_edge::deadline::{MARGIN, kept};
use sluice_proto::stream::v1::stream_service_server::StreamService;
use sluice_proto::stream::v1::{
    FetchRequest, FetchResponse, GetTopicMetadataRequest, ListOffsetsRequest, ListOffsetsResponse, ProduceRequest,
    ProduceResponse, TopicMetadata,
};
use sluice_runtime::statuses;
use sluice_types::error::Error;

use crate::access::DataCall;
use crate::clusters::{Clusters, Log, unavailable};
use crate::data::fetch::{Answer, Form};
use crate::metering::Meter;
use crate::view::ResolvedTopic;

/// Kept of the time to shut down for the last usage window.
const LAST_WINDOW: Duration = Duration::from_secs(2);

/// In the extensions of an answer of which some parts failed: over HTTP its status is 207.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SomeFailed;

/// The data path of a gateway.
pub struct Data {
    clusters: Clusters,
    meter: Meter,
    /// Where the next call's keyless records go.
    rotation: AtomicU32,
}

impl Data {
    /// Serves the topics of these clusters, and counts what it serves.
    pub fn new(clusters: Clusters, meter: Meter) -> Self {
        Self { clusters, meter, rotation: AtomicU32::new(0) }
    }

    /// Called when no call is in flight any more: flushes the producers, then closes the usage windows (`last = true`). Returns by
    /// `deadline`.
    pub async fn shutdown(&self, deadline: Instant) {
        let flush_by = deadline.checked_sub(LAST_WINDOW).unwrap_or(deadline);
        if !self.clusters.flush(flush_by).await {
            tracing::warn!("records were still on their way at the end; their callers have been answered");
        }
        self.meter.close(deadline).await;
    }
}

impl Data {
    /// The log that a call is about.
    ///
    /// UNAVAILABLE, `CLUSTER_UNAVAILABLE`: its cluster cannot be used; or it does not answer, and what the tenant has in flight would
    /// leave too little for its calls to other clusters.
    fn log(&self, call: &DataCall, topic: &Arc<ResolvedTopic>) -> Result<Log, Error> {
        let log = self.clusters.log(topic)?;
        if self.clusters.are_several() && !log.answers() && call.limiter.is_half_held() {
            return Err(unavailable("the calls that wait for the cluster hold half of the tenant's bytes in flight"));
        }
        Ok(log)
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

#[cfg(test)]
mod tests;
