//! A stack as a listener takes it: any body in, no error out. Finds where a call goes, once, for all that follows.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use tower::Service;

use sluice_proto::Audience;
use sluice_runtime::body::{BoxBody, BoxError, boxed};
use sluice_runtime::server::RequestBody;
use sluice_runtime::statuses;

use crate::browsers::{Asked, Origins};
use crate::call::Protocol;
use crate::{Body, Inner, Request};

/// A listener's service.
#[derive(Clone)]
pub struct EdgeService<S> {
    /// The layers around the handler.
    pub stack: S,
    /// Whose calls are served.
    pub audience: Audience,
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

impl<S, B> Service<http::Request<B>> for EdgeService<S>
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
        let (asked, target) = Asked::of(&self.origins, self.audience, &mut request);
        if let Some(response) = asked.options(self.audience, &request) {
            return Box::pin(async move { Ok(response) });
        }
        // On a stream of requests silence is no fault.
        let streams = target.is_request_stream();
        request.extensions_mut().insert(target);
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
