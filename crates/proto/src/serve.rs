//! Services without their types: what a listener needs of each to serve it over both protocols.
//!
//! For each service of tenants and of the operator there is a generated `serve_…` function that takes an implementation. A
//! listener keeps a table of them by name, so that a new RPC needs no line in any listener.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;

use tonic::body::Body;
use tonic::codegen::Service;

use crate::dispatch::{HttpCall, HttpError, HttpReply};

pub use crate::tables::serve::*;

/// A boxed future.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One service of ours, implemented.
pub trait Served: Send + Sync + 'static {
    /// Its full name, e.g. `sluice.admin.v1.TopicService`.
    fn name(&self) -> &'static str;

    /// Serves a gRPC call, whose path names a method of this service.
    fn grpc(&self, request: http::Request<Body>) -> BoxFuture<http::Response<Body>>;

    /// Serves an HTTP call, whose route is one of this service.
    fn http(&self, call: HttpCall) -> BoxFuture<Result<HttpReply, HttpError>>;
}

/// A tonic server and a dispatcher of the same implementation, as one.
pub(crate) fn pair<G, H>(name: &'static str, grpc: G, http: H) -> Box<dyn Served>
where
    G: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static,
    H: Fn(HttpCall) -> BoxFuture<Result<HttpReply, HttpError>> + Send + Sync + 'static,
{
    Box::new(Pair { name, grpc, http })
}

struct Pair<G, H> {
    name: &'static str,
    grpc: G,
    http: H,
}

impl<G, H> Served for Pair<G, H>
where
    G: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static,
    H: Fn(HttpCall) -> BoxFuture<Result<HttpReply, HttpError>> + Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn grpc(&self, request: http::Request<Body>) -> BoxFuture<http::Response<Body>> {
        // tonic's servers are always ready.
        let call = self.grpc.clone().call(request);
        Box::pin(async move {
            let Ok(response) = call.await;
            response
        })
    }

    fn http(&self, call: HttpCall) -> BoxFuture<Result<HttpReply, HttpError>> {
        (self.http)(call)
    }
}
