//! A control plane that knows some keys, and tells callers who they are.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tower::Layer;

use sluice_proto::admin::v1::tenant_service_server::{TenantService, TenantServiceServer};
use sluice_proto::admin::v1::{GetTenantRequest, Tenant};
use sluice_proto::internal::control::v1::key_lookup_service_server::{KeyLookupService, KeyLookupServiceServer};
use sluice_proto::internal::control::v1::{ControlRecord, LookupKeyRequest, LookupKeyResponse};
use sluice_runtime::internal::{CallerLayer, CallerVerifier, RequireRole};
use sluice_runtime::server::{Edge, bind, serve};
use sluice_runtime::statuses::to_tonic;
use sluice_runtime::tls::InternalTls;
use sluice_types::error::Error;
use sluice_types::{ErrorKind, OpContext, Reason};

/// A running one.
pub(crate) struct ControlPlane {
    pub(crate) addr: SocketAddr,
    pub(crate) keys: Arc<Mutex<HashMap<String, Vec<ControlRecord>>>>,
    stop: CancellationToken,
    done: tokio::task::JoinHandle<sluice_runtime::server::ServeReport>,
}

struct Keys(Arc<Mutex<HashMap<String, Vec<ControlRecord>>>>);

#[tonic::async_trait]
impl KeyLookupService for Keys {
    async fn lookup_key(&self, request: Request<LookupKeyRequest>) -> Result<Response<LookupKeyResponse>, Status> {
        let id = request.into_inner().key_id;
        match self.0.lock().get(&id) {
            Some(records) => Ok(Response::new(LookupKeyResponse { records: records.clone() })),
            None => Err(to_tonic(&Error::not_found(&id), "")),
        }
    }
}

struct Tenants;

#[tonic::async_trait]
impl TenantService for Tenants {
    async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Result<Response<Tenant>, Status> {
        let context = request.extensions().get::<OpContext>().expect("the layer put it there");
        if context.tenant.id().as_str() == "refused" {
            let error = Error::new(ErrorKind::FailedPrecondition, Reason::ResourceState, "as the test wants")
                .with_metadata("limit", "7");
            return Err(to_tonic(&error, &context.request_id));
        }
        let mut response = Response::new(Tenant { tenant: context.tenant.id().to_string(), ..Default::default() });
        response.metadata_mut().insert("sluice-revision", format!("{}-99999", "0".repeat(32)).parse().expect("ascii"));
        response.metadata_mut().insert("sluice-secret", "inside".parse().expect("ascii"));
        Ok(response)
    }
}

impl ControlPlane {
    pub(crate) async fn start(tls: &InternalTls) -> Self {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("bind");
        let addr = listener.local_addr().expect("address");
        let keys: Arc<Mutex<HashMap<_, _>>> = Arc::default();
        let lookup = RequireRole::new(&["gateway"]).layer(KeyLookupServiceServer::new(Keys(Arc::clone(&keys))));
        let tenants = CallerLayer::new(CallerVerifier::new("control-plane")).layer(TenantServiceServer::new(Tenants));
        let routes = Routes::new(lookup).add_service(tenants).prepare();
        let stop = CancellationToken::new();
        let server_tls = tls.server_tls().expect("TLS");
        let make = move |_: &_| routes.clone();
        let serving = serve(listener, Some(server_tls), Edge::internal(), make, stop.clone(), Duration::from_secs(1));
        Self { addr, keys, stop, done: tokio::spawn(serving) }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.done.await.expect("ends");
    }
}
