//! Puts the layers together, and around them what the listeners need: a service that never fails.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use tower::{Service, ServiceBuilder};

use sluice_runtime::body::{BoxBody, BoxError, boxed};
use sluice_runtime::server::RequestBody;
use sluice_runtime::statuses;
use sluice_types::api_key::HashKey;

use crate::auth::{Failures, KeyLookup};
use crate::layers::admit::Admit;
use crate::layers::audit::{Audit, AuditSink};
use crate::layers::authenticate::Authenticate;
use crate::layers::authorize::Authorize;
use crate::layers::body_limit::BodyLimit;
use crate::layers::browsers::{Asked, Origins};
use crate::layers::call::Protocol;
use crate::layers::catch_panic::CatchPanic;
use crate::layers::deadline::Deadlines;
use crate::layers::identify::Identify;
use crate::layers::observe::Observe;
use crate::layers::quota::Quota;
use crate::layers::rescue::Rescue;
use crate::layers::tenant::Tenant;
use crate::layers::{Inner, Middleware, Request};
use crate::metrics::CallMetrics;
use crate::ports::Body;
use crate::quota::ProcessBytes;
use crate::view::View;
use crate::view::applied::Applied;
use crate::view::freshness::Freshness;

/// What the layers work with.
pub struct StackParts {
    /// The view.
    pub view: Arc<View>,
    /// What is applied of it.
    pub applied: Applied,
    /// Whether it may be old.
    pub freshness: Freshness,
    /// Key of the secrets' hashes.
    pub hash_key: HashKey,
    /// Who is asked for unknown keys.
    pub lookup: KeyLookup,
    /// Counts failed authentications.
    pub failures: Failures,
    /// Where denials go.
    pub audit: Arc<dyn AuditSink>,
    /// Where calls are counted.
    pub metrics: CallMetrics,
    /// Calls at a time.
    pub calls_max: usize,
    /// Calls at a time of one peer.
    pub calls_per_peer_max: usize,
    /// Bytes of a body.
    pub body_bytes_max: u64,
    /// Bytes of all bodies at a time.
    pub in_flight_bytes_max: u64,
}

/// The layers around `handler`, outermost first.
pub fn stack(parts: StackParts, handler: impl Inner) -> impl Inner {
    ServiceBuilder::new()
        .layer(Identify.layer())
        .layer(Observe { metrics: parts.metrics }.layer())
        .layer(Rescue.layer())
        .layer(CatchPanic.layer())
        .layer(Admit::new(parts.calls_max, parts.calls_per_peer_max).layer())
        .layer(Deadlines.layer())
        .layer(BodyLimit { max: parts.body_bytes_max }.layer())
        .layer(
            Authenticate {
                view: Arc::clone(&parts.view),
                freshness: parts.freshness,
                hash_key: parts.hash_key.clone(),
                lookup: parts.lookup,
                failures: parts.failures,
            }
            .layer(),
        )
        .layer(Tenant { view: Arc::clone(&parts.view), applied: parts.applied, hash_key: parts.hash_key }.layer())
        .layer(Quota { process: ProcessBytes::new(parts.in_flight_bytes_max) }.layer())
        .layer(Audit { sink: parts.audit }.layer())
        .layer(Authorize { view: parts.view }.layer())
        .service(handler)
}

/// A stack as a listener takes it: any body in, no error out.
#[derive(Clone)]
pub struct Edge<S> {
    /// The layers around the handler.
    pub stack: S,
    /// Whose pages may call.
    pub origins: Origins,
}

/// A request body that may be allowed to be silent.
pub trait Patient: Sized {
    /// Lets the client send nothing for as long as it likes.
    fn patient(self) -> Self;
}

impl Patient for RequestBody {
    fn patient(self) -> Self {
        self.allow_idle()
    }
}

impl Patient for Full<Bytes> {
    /// It is here already.
    fn patient(self) -> Self {
        self
    }
}

impl<S, B> Service<http::Request<B>> for Edge<S>
where
    S: Inner,
    B: http_body::Body<Data = Bytes> + Patient + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<BoxBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let protocol = Protocol::of(request.headers());
        let asked = Asked::of(&self.origins, &mut request);
        if let Some(response) = asked.options(&request) {
            return Box::pin(async move { Ok(response) });
        }
        // On a stream of requests silence is no fault.
        let rpc = sluice_proto::rpc_by_path(request.uri().path()).filter(|_| protocol == Protocol::Grpc);
        let streams = rpc.is_some_and(|rpc| rpc.client_streaming);
        let request: Request = request.map(|body| Body::new(if streams { body.patient() } else { body }));
        let call = self.stack.call(request);
        Box::pin(async move {
            let response = match call.await {
                Ok(response) => response.map(boxed),
                // Only what fails above the rescue layer comes here, which is nothing we know of.
                Err(error) => {
                    tracing::error!(%error, "call failed outside of its layers");
                    match protocol {
                        Protocol::Grpc => statuses::to_grpc_response(&error, ""),
                        Protocol::Http => statuses::to_http(&error, ""),
                    }
                }
            };
            Ok(asked.finish(response))
        })
    }
}

#[cfg(test)]
thread_local! {
    static PASSED: std::cell::RefCell<Vec<&'static str>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Notes the layers that a call passes, for the test of their order.
#[cfg(test)]
pub(crate) fn record(name: &'static str) {
    PASSED.with_borrow_mut(|passed| passed.push(name));
}

#[cfg(test)]
mod tests;
