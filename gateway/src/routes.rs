//! The innermost service: from an authorized request to the handler, for both protocols onto the same service traits.
//!
//! What is served, and by whom, is the list in [`Router::new`]: data calls by the data path and the groups' door, what the server
//! is by [`crate::server_info`], admin and usage calls by [`Forward`]. Everything else is the table of [`sluice_edge::routes`]. The
//! hot HTTP routes have handlers by hand. Errors come out as [`Error`] or as gRPC statuses with our details, never as a library
//! made them.

mod http_call;
pub mod query;

use std::sync::Arc;

use tonic_health::server::HealthReporter;

use sluice_edge::call::Target;
use sluice_edge::routes::{Routes, RoutesError};
use sluice_edge::standard::Standard;
use sluice_edge::{Answer, Handler, Request, call_of};
use sluice_proto::Audience;
use sluice_proto::forward::{Forward, ForwardContext};
use sluice_proto::serve::{
    serve_consumer_service, serve_group_service, serve_namespace_service, serve_operation_service,
    serve_server_service, serve_service_account_service, serve_stream_service, serve_tenant_service,
    serve_topic_service, serve_usage_service,
};
use sluice_types::limits::ADMIN_BODY_BYTES_MAX;

use crate::data::Data;
use crate::forward::with_request_id;
use crate::groups::door::{Door, MESSAGE_BYTES_MAX};
use crate::server_info::ServerInfos;
use crate::transport::watched;

/// What the gateway serves.
pub struct Router {
    data: Arc<Data>,
    door: Door,
    routes: Routes,
    body_bytes_max: u64,
}

impl Router {
    /// Refuses to be built if an RPC of tenants lacks an authorization or a service. The reporter tells gRPC health what to say.
    pub fn new(
        data: Arc<Data>,
        door: Door,
        control: Forward<impl ForwardContext>,
        usage: Forward<impl ForwardContext>,
        info: ServerInfos,
        body_bytes_max: u64,
    ) -> Result<(Self, HealthReporter), RoutesError> {
        let limit = usize::try_from(body_bytes_max).unwrap_or(usize::MAX);
        let small = limit.min(ADMIN_BODY_BYTES_MAX);
        let control = Arc::new(control);
        let services = vec![
            serve_stream_service(Arc::clone(&data), limit),
            serve_consumer_service(Arc::new(door.clone()), MESSAGE_BYTES_MAX.min(limit)),
            serve_tenant_service(Arc::clone(&control), small),
            serve_namespace_service(Arc::clone(&control), small),
            serve_topic_service(Arc::clone(&control), small),
            serve_group_service(Arc::clone(&control), small),
            serve_service_account_service(Arc::clone(&control), small),
            serve_operation_service(control, small),
            serve_usage_service(Arc::new(usage), small),
            serve_server_service(Arc::new(info), small),
        ];
        let (standard, reporter) = Standard::new(Audience::Tenant)?;
        let routes = Routes::new(Audience::Tenant, services, standard, body_bytes_max)?;
        Ok((Self { data, door, routes, body_bytes_max }, reporter))
    }
}

impl Handler for Router {
    async fn answer(&self, request: Request) -> Answer {
        let call = call_of(&request)?;
        let (id, version) = (Arc::clone(&call.request_id), request.version());
        let answer = match &call.target {
            Target::Grpc(rpc) => with_request_id(id, self.routes.grpc(rpc, request)).await,
            Target::Http(route) => with_request_id(id, self.http(route.clone(), request)).await,
            _ => self.routes.other(&call, request).await,
        };
        answer.map(|response| watched(response, version))
    }
}
