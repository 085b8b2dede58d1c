//! The request path: every call goes through these layers, outermost first. The order is the design; [`ORDER`] writes it
//! down and a test holds the stack to it.
//!
//! | # | layer | why here |
//! |---|---|---|
//! | 1 | [`identify`] | everything after it logs and answers with the request id, route and trace |
//! | 2 | [`observe`] | sees every answer, also those of the layers below |
//! | 3 | [`rescue`] | the one place where an error becomes an answer |
//! | 4 | [`catch_panic`] | a panic is an error like others |
//! | 5 | [`admit`] | what is too much is refused before it costs anything |
//! | 6 | [`deadline`] | all that waits, waits within it |
//! | 7 | [`body_limit`] | no layer or handler can read more |
//! | 8 | [`authenticate`] | who calls |
//! | 9 | [`tenant`] | for whom, with which limits, on which revision |
//! | 10 | [`quota`] | before the body is read |
//! | 11 | [`audit`] | sees what authorization and handlers deny |
//! | 12 | [`authorize`] | may they |
//!
//! Around them all, [`stack::Edge`] answers what HTTP asks beside the calls ([`browsers`]).
//!
//! Layers below `rescue` fail with [`Error`]; above it nothing fails.

pub mod admit;
pub mod audit;
pub mod authenticate;
pub mod authorize;
pub mod body_limit;
pub mod browsers;
pub mod call;
pub mod catch_panic;
pub mod deadline;
pub mod identify;
pub mod observe;
pub mod quota;
pub mod rescue;
pub mod stack;
pub mod tenant;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::Service;

use sluice_types::error::Error;

use crate::layers::call::Call;
use crate::ports::Body;

/// A request on its way in.
pub type Request = http::Request<Body>;
/// An answer on its way out.
pub type Response = http::Response<Body>;
/// What a layer gives.
pub type Answer = Result<Response, Error>;

/// The layers by name, outermost first.
pub const ORDER: &[&str] = &[
    identify::Identify::NAME,
    observe::Observe::NAME,
    rescue::Rescue::NAME,
    catch_panic::CatchPanic::NAME,
    admit::Admit::NAME,
    deadline::Deadlines::NAME,
    body_limit::BodyLimit::NAME,
    authenticate::Authenticate::NAME,
    tenant::Tenant::NAME,
    quota::Quota::NAME,
    audit::Audit::NAME,
    authorize::Authorize::NAME,
];

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
    /// Its name in [`ORDER`].
    const NAME: &'static str;

    /// Handles a call; [`Next::run`] goes on inwards.
    fn handle<S: Inner>(&self, request: Request, next: Next<'_, S>) -> impl Future<Output = Answer> + Send;

    /// As a tower layer.
    fn layer(self) -> Use<Self> {
        Use(Arc::new(self))
    }
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

/// A [`Middleware`] as `tower::Layer`.
pub struct Use<M>(Arc<M>);

impl<M, S> tower::Layer<S> for Use<M> {
    type Service = Wrapped<M, S>;

    fn layer(&self, inner: S) -> Wrapped<M, S> {
        Wrapped(Arc::new((Arc::clone(&self.0), inner)))
    }
}

/// A [`Middleware`] around a service.
pub struct Wrapped<M, S>(Arc<(Arc<M>, S)>);

impl<M, S> Clone for Wrapped<M, S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Middleware, S: Inner> Service<Request> for Wrapped<M, S> {
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let both = Arc::clone(&self.0);
        #[cfg(test)]
        stack::record(M::NAME);
        Box::pin(async move { both.0.handle(request, Next(&both.1)).await })
    }
}

/// The call that [`identify`] put into the request.
pub(crate) fn call_of(request: &Request) -> Result<Arc<Call>, Error> {
    request
        .extensions()
        .get::<Arc<Call>>()
        .cloned()
        .ok_or_else(|| Error::internal("a request came past the outermost layer"))
}
