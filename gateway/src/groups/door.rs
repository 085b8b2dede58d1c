//! The door: the gateway that a consumer is connected to.
//!
//! The layers have authenticated and limited a call. The door resolves the group (through [`DataCall::group`], which needs the
//! RPC's permission on the group and `records.consume` on each of its topics), checks every field, finds the dispatcher, and on
//! the way back encodes, counts and charges what is delivered. No state of a consumer lives here beside its open stream, so any
//! gateway serves any call.

mod admission;
mod credit;
mod dead_letters;
mod delivery;
pub mod dispatching;
mod fields;
#[cfg(test)]
mod forms;
mod http;
mod metrics;
mod outlet;
mod pull;
mod resolve;
mod session;
mod settle;
mod sse;
mod status;
mod stream_access;
mod streams;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use sluice_proto::stream::v1::consumer_service_server::ConsumerService;
use sluice_proto::stream::v1::{
    AckRequest, AckResponse, ConsumeRequest, ConsumeResponse, ExtendLeaseRequest, ExtendLeaseResponse,
    GetGroupStatusRequest, GroupStatus, ListDeadLettersRequest, ListDeadLettersResponse, NackRequest, NackResponse,
    PartitionFailure, PullRequest, PullResponse, RedriveDeadLettersRequest, RedriveDeadLettersResponse,
    ResetOffsetsRequest, ResetOffsetsResponse, SettleOutcome, SettleResult, SubscribeRequest, SubscribeResponse,
};
use sluice_runtime::{TaskSet, statuses};
use sluice_types::error::Error;

use crate::access::DataCall;
use crate::clusters::Clusters;
use crate::data::{SomeFailed, failure};
use crate::groups::ack_id::AckIds;
use crate::groups::door::admission::Admission;
use crate::groups::door::dispatching::Dispatching;
use crate::groups::door::pull::{Form, Pulled};
use crate::groups::model::Settle;
use crate::layers::audit::AuditSink;
use crate::metering::Meter;
use crate::transport::Progress;

pub use self::admission::StreamLimits;
pub use self::metrics::DoorMetrics;
pub use self::resolve::MakeGroups;
pub use self::streams::{Answers, MESSAGE_BYTES_MAX};

/// What the door works with.
pub struct DoorParts {
    /// This gateway.
    pub gateway_id: Arc<str>,
    /// The way to dispatchers.
    pub dispatching: Dispatching,
    /// Makes and reads ack ids.
    pub ack_ids: AckIds,
    /// Where topics lie.
    pub clusters: Clusters,
    /// Counts usage.
    pub meter: Meter,
    /// Makes groups on first use.
    pub maker: Arc<dyn MakeGroups>,
    /// Where denials go that no layer sees.
    pub audit: Arc<dyn AuditSink>,
    /// Figures.
    pub metrics: DoorMetrics,
    /// Streams at a time.
    pub streams: StreamLimits,
    /// Runs the streams.
    pub tasks: TaskSet,
}

/// The door; clones are the same.
#[derive(Clone)]
pub struct Door(Arc<Shared>);

/// What all calls share.
pub(crate) struct Shared {
    gateway_id: Arc<str>,
    dispatching: Dispatching,
    ack_ids: AckIds,
    clusters: Clusters,
    meter: Meter,
    maker: Arc<dyn MakeGroups>,
    audit: Arc<dyn AuditSink>,
    metrics: DoorMetrics,
    admission: Admission,
    tasks: TaskSet,
    /// Cancelled when this gateway drains.
    closing: CancellationToken,
}

impl Door {
    /// A door.
    pub fn new(parts: DoorParts) -> Self {
        Self(Arc::new(Shared {
            gateway_id: parts.gateway_id,
            dispatching: parts.dispatching,
            ack_ids: parts.ack_ids,
            clusters: parts.clusters,
            meter: parts.meter,
            maker: parts.maker,
            audit: parts.audit,
            metrics: parts.metrics,
            admission: Admission::new(parts.streams),
            tasks: parts.tasks,
            closing: CancellationToken::new(),
        }))
    }

    /// This gateway drains: streams say so and end, long polls return.
    pub fn close(&self) {
        self.0.closing.cancel();
    }
}

/// Runs a handler for gRPC.
async fn handle<Req, Resp, F>(
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

/// An answer whose stream knows how far the transport has taken it.
fn following<T>(response: Response<(T, Progress)>) -> Response<T> {
    let mut taken = None;
    let mut response = response.map(|(stream, progress)| {
        taken = Some(progress);
        stream
    });
    taken.map(|progress| response.extensions_mut().insert(progress));
    response
}

/// Marks an answer whose results are not all OK.
fn marked<T>(mut response: Response<T>, results: impl FnOnce(&T) -> &[SettleResult]) -> Response<T> {
    if results(response.get_ref()).iter().any(|result| result.outcome() != SettleOutcome::Ok) {
        response.extensions_mut().insert(SomeFailed);
    }
    response
}

/// Marks an answer that lacks some partitions.
fn partly<T>(mut response: Response<T>, failures: impl FnOnce(&T) -> &[PartitionFailure]) -> Response<T> {
    if !failures(response.get_ref()).is_empty() {
        response.extensions_mut().insert(SomeFailed);
    }
    response
}

#[tonic::async_trait]
impl ConsumerService for Door {
    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<PullResponse>, Status> {
        let pulled = handle(request, |call, message| async move { self.0.pull(&call, message, Form::Message).await });
        let mut pulled = pulled.await?;
        let parcel = pulled.get_mut().parcel.take();
        let mut response = pulled.map(Pulled::into_message);
        parcel.map(|parcel| response.extensions_mut().insert(parcel));
        Ok(response)
    }

    async fn ack(&self, request: Request<AckRequest>) -> Result<Response<AckResponse>, Status> {
        let answer = handle(request, |call, message| async move {
            let settle = || Ok(Settle::Acknowledge);
            let results = self.0.settle(&call, &message.group, &message.ack_ids, settle).await?;
            Ok(AckResponse { results })
        });
        Ok(marked(answer.await?, |answer| &answer.results))
    }

    async fn nack(&self, request: Request<NackRequest>) -> Result<Response<NackResponse>, Status> {
        let answer = handle(request, |call, message| async move {
            let settle = || settle::refuse(message.delay, &message.reason, message.release);
            let results = self.0.settle(&call, &message.group, &message.ack_ids, settle).await?;
            Ok(NackResponse { results })
        });
        Ok(marked(answer.await?, |answer| &answer.results))
    }

    async fn extend_lease(
        &self,
        request: Request<ExtendLeaseRequest>,
    ) -> Result<Response<ExtendLeaseResponse>, Status> {
        let answer = handle(request, |call, message| async move {
            let settle = || settle::extend(message.ack_deadline);
            let results = self.0.settle(&call, &message.group, &message.ack_ids, settle).await?;
            Ok(ExtendLeaseResponse { results })
        });
        Ok(marked(answer.await?, |answer| &answer.results))
    }

    type ConsumeStream = Answers<ConsumeResponse>;

    async fn consume(
        &self,
        request: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        handle(request, |call, messages| async move { self.0.consume(call, messages) }).await.map(following)
    }

    type SubscribeStream = Answers<SubscribeResponse>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        handle(request, |call, message| async move {
            let outgoing = self.0.subscribe(&call, &message).await?;
            let progress = outgoing.progress();
            Ok((streams::grpc(outgoing, Arc::clone(&call.context.request_id), streams::subscribe_response), progress))
        })
        .await
        .map(following)
    }

    async fn get_group_status(&self, request: Request<GetGroupStatusRequest>) -> Result<Response<GroupStatus>, Status> {
        handle(request, |call, message| async move { self.0.status(&call, message).await }).await
    }

    async fn reset_offsets(
        &self,
        request: Request<ResetOffsetsRequest>,
    ) -> Result<Response<ResetOffsetsResponse>, Status> {
        handle(request, |call, message| async move { self.0.reset(&call, message).await }).await
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let listed = handle(request, |call, message| async move { self.0.list_dead_letters(&call, message).await });
        let mut parcel = None;
        let mut response = listed.await?.map(|(page, of_page)| {
            parcel = of_page;
            page
        });
        parcel.map(|parcel| response.extensions_mut().insert(parcel));
        Ok(partly(response, |page| &page.failures))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<RedriveDeadLettersRequest>,
    ) -> Result<Response<RedriveDeadLettersResponse>, Status> {
        let done = handle(request, |call, message| async move { self.0.redrive_dead_letters(&call, message).await });
        Ok(partly(done.await?, |done| &done.failures))
    }
}
