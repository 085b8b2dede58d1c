//! What the accept loop wraps around a process's service: each request names its host once, knows its connection, is counted
//! until the last byte of its answer, and has a body with a time limit, whose rest is read on; and the last answer of an HTTP/1.1
//! connection says that it is.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use super::body::RequestBody;
use super::host;
use super::info::{ConnHandle, ConnInfo};
use super::io::InFlight;
use super::unread::{Drains, Rest};
use crate::body::{BoxBody, BoxError, boxed};

/// A process's service on one connection.
pub(super) struct Wrapped<S> {
    inner: S,
    info: ConnInfo,
    drains: Arc<Drains>,
    shutdown: CancellationToken,
}

impl<S> Wrapped<S> {
    pub(super) fn new(inner: S, info: ConnInfo, drains: Drains, shutdown: CancellationToken) -> Self {
        Self { inner, info, drains: Arc::new(drains), shutdown }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Wrapped<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = self.drains.state.begin();
        let http1 = request.version() < Version::HTTP_2;
        let expects = http1 && request.headers().contains_key(header::EXPECT);
        let rest = Rest::new(self.drains.clone(), expects);
        let of_body = rest.clone();
        let mut request = request.map(|body| RequestBody::new(body, of_body, self.drains.edge.body_idle_timeout));
        request.extensions_mut().insert(self.info.clone());
        request.extensions_mut().insert(ConnHandle(self.drains.state.clone()));
        let (service, shutdown) = (self.inner.clone(), self.shutdown.clone());
        Box::pin(async move {
            let mut response = match host::check(&request) {
                Ok(()) => service.oneshot(request).await?.map(boxed),
                Err(error) => {
                    let response = host::refuse(request.headers(), &error);
                    drop(request);
                    response
                }
            };
            let keep = rest.answer();
            if http1 && (!keep || shutdown.is_cancelled()) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| Counted { body, _in_flight: in_flight }))
        })
    }
}

/// An answer's body; its request is in flight until it is dropped.
pub(super) struct Counted {
    body: BoxBody,
    _in_flight: InFlight,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
