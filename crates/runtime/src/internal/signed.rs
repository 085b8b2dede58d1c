//! The sending side of caller tokens: a channel that signs every request made with [`call_as`].
//!
//! The request's bytes are collected before they are sent and the token is made from those very bytes. Unary requests
//! only; a request without claims is sent without a token, for calls a process makes for itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use sluice_types::limits::BODY_BYTES_MAX;
use sluice_types::{Error, OpContext};
use tonic::body::Body;
use tower::Service;

use super::caller::CallerClaims;
use super::layer::{FRAME_HEADER_BYTES, message_of};
use super::token::{CALLER_KEY, CallerSigner};
use crate::body::BoxError;
use crate::statuses::REQUEST_ID;

/// A request made for the caller of `context`: carries its claims, deadline, request id and trace.
///
/// # Errors
/// The caller is not a tenant's API key.
pub fn call_as<T>(context: &OpContext, message: T) -> Result<tonic::Request<T>, Error> {
    let claims = CallerClaims::from_context(context)?;
    let mut request = tonic::Request::new(message);
    request.set_timeout(context.remaining());
    if let Ok(id) = claims.request_id.parse() {
        request.metadata_mut().insert(REQUEST_ID, id);
    }
    if let Some(traceparent) = claims.traceparent.as_ref().and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert("traceparent", traceparent);
    }
    request.extensions_mut().insert(claims);
    Ok(request)
}

/// A channel that adds the caller's token to requests that carry [`CallerClaims`].
#[derive(Debug, Clone)]
pub struct SignedChannel<S = tonic::transport::Channel> {
    inner: S,
    signer: CallerSigner,
    audience: Arc<str>,
}

impl<S> SignedChannel<S> {
    /// For calls to a server of the role `audience`.
    pub fn new(inner: S, signer: CallerSigner, audience: &str) -> Self {
        Self { inner, signer, audience: audience.into() }
    }
}

impl<S> Service<Request<Body>> for SignedChannel<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The instance that was ready makes the call; a clone waits for its own turn.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let Some(claims) = request.extensions_mut().remove::<CallerClaims>() else {
            let call = inner.call(request);
            return Box::pin(async move { call.await.map_err(Into::into) });
        };
        let (signer, audience) = (self.signer.clone(), self.audience.clone());
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            let frame: Bytes = Limited::new(body, BODY_BYTES_MAX + FRAME_HEADER_BYTES).collect().await?.to_bytes();
            let message = message_of(&frame).ok_or("a forwarded request must be one uncompressed message")?;
            let token = signer.sign(&audience, head.uri.path(), message, &claims);
            head.headers.insert(CALLER_KEY, HeaderValue::try_from(token)?);
            inner.call(Request::from_parts(head, Body::new(Full::new(frame)))).await.map_err(Into::into)
        })
    }
}
