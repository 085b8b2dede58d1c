//! Forwards tenants' admin and billing calls to the process that owns them.
//!
//! [`Forward`] implements every such service trait; what a call carries (the signed caller token, deadline, request id) and
//! what may come back is decided by a [`ForwardContext`]. The message is encoded once more for the context, so that a token
//! can be bound to it: maps are ordered, so the encoding is the one that goes out.
//!
//! ```no_run
//! # use sluice_proto::forward::*;
//! # use sluice_proto::admin::v1::topic_service_server::TopicServiceServer;
//! # use tonic::{metadata::MetadataMap, transport::Channel, Status};
//! struct ToControlPlane(Channel);
//!
//! #[tonic::async_trait]
//! impl ForwardContext for ToControlPlane {
//!     type Service = Channel;
//!
//!     async fn prepare(&self, call: ForwardCall<'_>) -> Result<Prepared<Channel>, Status> {
//!         let mut metadata = MetadataMap::new();
//!         let token = format!("{} bytes of {}", call.message.len(), call.rpc.path); // sign it
//!         metadata.insert("sluice-caller", token.parse().map_err(|_| Status::internal("token"))?);
//!         Ok(Prepared { service: self.0.clone(), metadata, timeout: std::time::Duration::from_secs(5) })
//!     }
//!
//!     fn on_response(&self, _: &'static sluice_proto::Rpc, metadata: &mut MetadataMap) {
//!         metadata.remove("sluice-internal");
//!     }
//!
//!     fn on_error(&self, _: &'static sluice_proto::Rpc, status: Status) -> Status {
//!         status
//!     }
//! }
//!
//! # let channel = Channel::from_static("http://127.0.0.1:1").connect_lazy();
//! let service = TopicServiceServer::new(Forward::new(ToControlPlane(channel)));
//! ```

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status};

use crate::access::{ApiRequest, Rpc};
use crate::dispatch::fill_request_id;

/// What can carry a call: `tonic::transport::Channel`, or layers around it.
pub trait ForwardService: GrpcService<Body, ResponseBody = Body, Future: Send, Error: Send> + Send + 'static {}

impl<T> ForwardService for T where T: GrpcService<Body, ResponseBody = Body, Future: Send, Error: Send> + Send + 'static {}

/// A call to be forwarded.
#[derive(Debug)]
pub struct ForwardCall<'a> {
    /// The RPC.
    pub rpc: &'static Rpc,
    /// See [`ApiRequest::resource_name`].
    pub resource: Option<&'a str>,
    /// The encoded request message, as it goes out (after `idempotency-key` was filled in).
    pub message: &'a [u8],
    /// What the client sent. Nothing of it goes out unless [`Prepared`] says so.
    pub metadata: &'a MetadataMap,
    /// What the layers before have put there.
    pub extensions: &'a Extensions,
}

/// How a call goes out.
#[derive(Debug)]
pub struct Prepared<S> {
    /// The channel.
    pub service: S,
    /// All that the other side gets besides the message; `grpc-timeout` is added.
    pub metadata: MetadataMap,
    /// Over: DEADLINE_EXCEEDED.
    pub timeout: Duration,
}

/// Decides what goes out and what comes back.
#[tonic::async_trait]
pub trait ForwardContext: Send + Sync + 'static {
    /// The channel.
    type Service: ForwardService;

    /// Prepares a call, or refuses it.
    async fn prepare(&self, call: ForwardCall<'_>) -> Result<Prepared<Self::Service>, Status>;

    /// Filters the metadata of a good answer.
    fn on_response(&self, rpc: &'static Rpc, metadata: &mut MetadataMap);

    /// Makes an error fit for the client: transport errors hold addresses. Also gets those of the timeout.
    fn on_error(&self, rpc: &'static Rpc, status: Status) -> Status;
}

/// The service traits of tenants' admin and billing RPCs, forwarded.
#[derive(Debug)]
pub struct Forward<C>(Arc<C>);

impl<C> Clone for Forward<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: ForwardContext> Forward<C> {
    /// Forwards as `context` says.
    pub fn new(context: C) -> Self {
        Self(Arc::new(context))
    }

    /// The context.
    pub fn context(&self) -> &C {
        &self.0
    }

    pub(crate) async fn call<Req, Resp>(&self, request: Request<Req>) -> Result<Response<Resp>, Status>
    where
        Req: ApiRequest,
        Resp: Message + Default + Send + Sync + 'static,
    {
        let rpc = Req::rpc();
        let (metadata, extensions, mut message) = request.into_parts();
        fill_request_id(&mut message, &metadata).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let encoded = message.encode_to_vec();
        let resource = message.resource_name();
        let call = ForwardCall { rpc, resource, message: &encoded, metadata: &metadata, extensions: &extensions };
        let prepared = self.0.prepare(call).await?;
        let mut out = Request::new(message);
        *out.metadata_mut() = prepared.metadata;
        out.set_timeout(prepared.timeout);
        let answer = async {
            let mut client = Grpc::new(prepared.service);
            client.ready().await.map_err(|e| {
                let cause: Box<dyn std::error::Error + Send + Sync> = e.into();
                Status::unavailable(cause.to_string())
            })?;
            let codec = tonic_prost::ProstCodec::<Req, Resp>::default();
            client.unary(out, PathAndQuery::from_static(rpc.path), codec).await
        };
        let answer = tokio::time::timeout(prepared.timeout, answer).await;
        match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(mut response) => {
                self.0.on_response(rpc, response.metadata_mut());
                Ok(response)
            }
            Err(status) => Err(self.0.on_error(rpc, status)),
        }
    }
}
