//! The innermost service: from an authorized request to the handler, for both protocols onto the same service traits.
//!
//! Data calls go to the data path and to the groups' door; what the server is tells [`crate::server_info`]; admin and usage calls to [`Forward`], which implements their traits. gRPC goes by path to
//! tonic's servers, HTTP by the route table to generated dispatchers; the hot HTTP routes have handlers by hand. Errors of
//! either come out as [`Error`] or as gRPC statuses with our details, never as a library made them.

mod check;
mod grpc;
mod http_call;
mod openapi;
pub mod query;
mod reflection;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::Service;

use sluice_proto::OPENAPI;
use sluice_proto::admin::v1::group_service_server::GroupServiceServer;
use sluice_proto::admin::v1::namespace_service_server::NamespaceServiceServer;
use sluice_proto::admin::v1::operation_service_server::OperationServiceServer;
use sluice_proto::admin::v1::service_account_service_server::ServiceAccountServiceServer;
use sluice_proto::admin::v1::tenant_service_server::TenantServiceServer;
use sluice_proto::admin::v1::topic_service_server::TopicServiceServer;
use sluice_proto::billing::v1::usage_service_server::UsageServiceServer;
use sluice_proto::forward::{Forward, ForwardContext};
use sluice_proto::server::v1::server_service_server::ServerServiceServer;
use sluice_proto::stream::v1::consumer_service_server::ConsumerServiceServer;
use sluice_proto::stream::v1::stream_service_server::{StreamService, StreamServiceServer};
use sluice_types::error::Error;
use sluice_types::limits::ADMIN_BODY_BYTES_MAX;

use crate::error::BuildError;
use crate::forward::with_request_id;
use crate::groups::door::{Door, MESSAGE_BYTES_MAX};
use crate::layers::call::Target;
use crate::layers::{Answer, Request, Response, call_of};
use crate::ports::DataPath;
use crate::routes::openapi::Document;
use crate::routes::reflection::Reflection;
use crate::server_info::ServerInfos;
use crate::transport::watched;

pub use check::SERVED;
pub(crate) use grpc::library_error;

/// What the gateway serves; clones are the same.
pub struct Router<D: StreamService, C: ForwardContext>(Arc<Served<D, C>>);

struct Served<D: StreamService, C: ForwardContext> {
    data: Arc<D>,
    stream: StreamServiceServer<D>,
    door: Door,
    consumer: ConsumerServiceServer<Door>,
    /// Without gRPC servers, for HTTP.
    control: Forward<C>,
    usage: Forward<C>,
    tenants: TenantServiceServer<Forward<C>>,
    namespaces: NamespaceServiceServer<Forward<C>>,
    topics: TopicServiceServer<Forward<C>>,
    groups: GroupServiceServer<Forward<C>>,
    accounts: ServiceAccountServiceServer<Forward<C>>,
    operations: OperationServiceServer<Forward<C>>,
    usages: UsageServiceServer<Forward<C>>,
    info: ServerInfos,
    server: ServerServiceServer<ServerInfos>,
    openapi: Document,
    health: HealthServer<HealthService>,
    reflection: Reflection,
    body_bytes_max: u64,
}

impl<D: StreamService, C: ForwardContext> Clone for Router<D, C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: StreamService + DataPath, C: ForwardContext> Router<D, C> {
    /// Refuses to be built if a served RPC lacks an authorization. The reporter tells gRPC health what to say.
    pub fn new(
        data: Arc<D>,
        door: Door,
        control: Forward<C>,
        usage: Forward<C>,
        info: ServerInfos,
        body_bytes_max: u64,
    ) -> Result<(Self, HealthReporter), BuildError> {
        check::authorizations()?;
        let reporter = HealthReporter::new();
        let health = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
        let limit = usize::try_from(body_bytes_max).unwrap_or(usize::MAX);
        let forwarded_limit = limit.min(ADMIN_BODY_BYTES_MAX);
        macro_rules! server {
            ($server:ident, $service:expr) => {
                $server::new($service.clone())
                    .max_decoding_message_size(forwarded_limit)
                    .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            };
        }
        let served = Served {
            stream: StreamServiceServer::from_arc(Arc::clone(&data))
                .max_decoding_message_size(limit)
                .accept_compressed(tonic::codec::CompressionEncoding::Gzip),
            data,
            consumer: ConsumerServiceServer::new(door.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX.min(limit))
                .accept_compressed(tonic::codec::CompressionEncoding::Gzip),
            door,
            tenants: server!(TenantServiceServer, control),
            namespaces: server!(NamespaceServiceServer, control),
            topics: server!(TopicServiceServer, control),
            groups: server!(GroupServiceServer, control),
            accounts: server!(ServiceAccountServiceServer, control),
            operations: server!(OperationServiceServer, control),
            usages: server!(UsageServiceServer, usage),
            server: server!(ServerServiceServer, info),
            info,
            openapi: Document::new(OPENAPI),
            control,
            usage,
            health,
            reflection: Reflection::new()?,
            body_bytes_max,
        };
        Ok((Self(Arc::new(served)), reporter))
    }
}

impl<D: StreamService + DataPath, C: ForwardContext> Service<Request> for Router<D, C> {
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let served = Arc::clone(&self.0);
        Box::pin(async move {
            let call = call_of(&request)?;
            let (id, version) = (Arc::clone(&call.request_id), request.version());
            let answer = match &call.target {
                Target::Grpc(rpc) => with_request_id(id, served.grpc(rpc, request)).await,
                Target::Http(route) => with_request_id(id, served.http(route.clone(), request)).await,
                Target::Open => served.open(request).await,
                Target::Nowhere(error) => Err(crate::layers::call::nowhere(call.protocol, error, request.uri().path())),
                Target::Foreign(format) => Err(crate::layers::call::foreign(format)),
            };
            answer.map(|response| watched(response, version))
        })
    }
}
