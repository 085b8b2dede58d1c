//! The edge of a listener: the layers that every call passes, whoever calls, and the routes behind them. The tenants' listener and
//! the operator's build their stacks of it.
//!
//! Promises: every call has a request id, a deadline, a bound on its body, and one line in the access log; an error becomes an
//! answer in one place, in the caller's protocol; a panic ends one call; no handler is reached without a credential where one is
//! needed, and who fails to show one too often is told to wait. It relies on [`sluice_runtime::server`] for the bounds of
//! connections, and on the process for what a credential is worth ([`authenticate::Authenticator`]).
//!
//! A stack names its layers outermost first ([`Stack`]); [`common`] begins each of them:
//!
//! | layer | why here |
//! |---|---|
//! | [`identify`] | everything after it logs and answers with the request id, route and trace |
//! | [`observe`] | sees every answer, also those of the layers below |
//! | [`rescue`] | the one place where an error becomes an answer |
//! | [`catch_panic`] | a panic is an error like others |
//! | [`admit`] | what is too much is refused before it costs anything |
//! | [`deadline`] | all that waits, waits within it |
//! | [`body_limit`] | no layer or handler can read more |
//! | [`authenticate`] | who calls |
//!
//! Around them all, [`service::EdgeService`] answers what HTTP asks beside the calls ([`browsers`]). Layers below `rescue` fail with
//! [`Error`]; above it nothing fails.

pub mod admit;
pub mod authenticate;
pub mod body_limit;
pub mod browsers;
pub mod call;
pub mod catch_panic;
pub mod common;
pub mod deadline;
pub mod failures;
pub mod identify;
pub mod metrics;
pub mod observe;
pub mod openapi;
pub mod query;
pub mod replies;
pub mod rescue;
pub mod routes;
pub mod service;
pub mod stack;
pub mod standard;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::Service;

use sluice_types::error::Error;

use crate::call::Call;

pub use common::{CommonParts, common};
pub use stack::Stack;

/// The body of every answer; of a request too, once the edge has bounded it.
pub type Body = tonic::body::Body;
/// A request on its way in.
pub type Request = http::Request<Body>;
/// An answer on its way out.
pub type Response = http::Response<Body>;
/// What a layer gives.
pub type Answer = Result<Response, Error>;

/// What a layer can be put around: always ready, cheap to clone.
pub trait Inner:
    Service<Request, Response = Response, Error = Error, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Inner for S where
    S: Service<Request, Response = Response, Error = Error, Future: Send> + Clone + Send + Sync + 'static
{
}

/// One layer: a function around the rest of the path.
pub trait Middleware: Sized + Send + Sync + 'static {
    /// Its name in the order of a stack.
    const NAME: &'static str;

    /// Handles a call; [`Next::run`] goes on inwards.
    fn handle<S: Inner>(&self, request: Request, next: Next<'_, S>) -> impl Future<Output = Answer> + Send;
}

/// The rest of the path.
pub struct Next<'a, S>(&'a S);

impl<S: Inner> Next<'_, S> {
    /// Goes on inwards.
    pub async fn run(self, request: Request) -> Answer {
        let mut inner = self.0.clone();
        std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
        inner.call(request).await
    }
}

/// What answers calls.
pub trait Handler: Send + Sync + 'static {
    /// Answers a call.
    fn answer(&self, request: Request) -> impl Future<Output = Answer> + Send;
}

/// A layer around the rest of the path.
impl<M: Middleware, S: Inner> Handler for (M, S) {
    async fn answer(&self, request: Request) -> Answer {
        self.0.handle(request, Next(&self.1)).await
    }
}

/// A [`Handler`] as a service; clones are the same.
pub struct Answering<H>(Arc<H>);

impl<H> Answering<H> {
    /// Of this handler.
    pub fn new(handler: H) -> Self {
        Self(Arc::new(handler))
    }
}

impl<H> Clone for Answering<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: Handler> Service<Request> for Answering<H> {
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let handler = Arc::clone(&self.0);
        Box::pin(async move { handler.answer(request).await })
    }
}

/// The call that [`identify`] put into the request.
///
/// # Errors
/// The request did not come through it.
pub fn call_of(request: &Request) -> Result<Arc<Call>, Error> {
    request
        .extensions()
        .get::<Arc<Call>>()
        .cloned()
        .ok_or_else(|| Error::internal("a request came past the outermost layer"))
}
