//! The receiving side of caller tokens: a layer around internal gRPC services that lets only verified callers in.
//!
//! It reads the whole request (unary only, at most 8 MiB), verifies the token against those bytes and the peer's
//! certificate, and puts [`OpContext`](sluice_types::OpContext) into the request's extensions, from where a handler takes
//! it. Anything else is answered UNAUTHENTICATED and never reaches a handler.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use sluice_types::Error;
use sluice_types::limits::BODY_BYTES_MAX;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Layer, Service};

use super::caller::CallerClaims;
use super::token::{CALLER_KEY, CallerVerifier, TokenError};
use crate::body::BoxError;
use crate::server::ConnInfo;
use crate::statuses::{REQUEST_ID, to_tonic};

/// Before each message: a compression flag and a length.
pub(super) const FRAME_HEADER_BYTES: usize = 5;

/// Wraps services in [`CallerService`].
#[derive(Debug, Clone)]
pub struct CallerLayer(CallerVerifier);

impl CallerLayer {
    /// For the service of the verifier's audience.
    pub fn new(verifier: CallerVerifier) -> Self {
        Self(verifier)
    }
}

impl<S> Layer<S> for CallerLayer {
    type Service = CallerService<S>;

    fn layer(&self, inner: S) -> CallerService<S> {
        CallerService { inner, verifier: self.0.clone() }
    }
}

/// A gRPC service behind caller tokens.
#[derive(Debug, Clone)]
pub struct CallerService<S> {
    inner: S,
    verifier: CallerVerifier,
}

impl<S: NamedService> NamedService for CallerService<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for CallerService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The instance that was ready makes the call; a clone waits for its own turn.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let verifier = self.verifier.clone();
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            match verified(&verifier, &head, body).await {
                Ok((frame, claims)) => {
                    head.extensions.insert(claims.into_context());
                    inner.call(Request::from_parts(head, Body::new(Full::new(frame)))).await
                }
                Err(error) => Ok(refusal(&error, &head.headers)),
            }
        })
    }
}

async fn verified<B>(
    verifier: &CallerVerifier,
    head: &http::request::Parts,
    body: B,
) -> Result<(Bytes, CallerClaims), TokenError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    // Who is not a known peer with a token does not get its body read.
    let peer = head
        .extensions
        .get::<ConnInfo>()
        .and_then(|connection| connection.client.as_ref())
        .ok_or(TokenError::Signature)?;
    let token = head.headers.get(CALLER_KEY).ok_or(TokenError::Missing)?;
    let token = token.to_str().map_err(|_| TokenError::Malformed)?;
    let frame = Limited::new(body, BODY_BYTES_MAX + FRAME_HEADER_BYTES)
        .collect()
        .await
        .map_err(|_| TokenError::Malformed)?
        .to_bytes();
    let message = message_of(&frame).ok_or(TokenError::Malformed)?;
    let claims = verifier.verify(peer, head.uri.path(), message, token, SystemTime::now())?;
    Ok((frame, claims))
}

pub(super) fn refusal(error: &TokenError, headers: &HeaderMap) -> Response<Body> {
    tracing::warn!(%error, "internal call refused");
    let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    to_tonic(&Error::from(error.clone()), request_id).into_http()
}

/// The message of a body that holds exactly one, uncompressed.
pub(super) fn message_of(frame: &[u8]) -> Option<&[u8]> {
    let (header, message) = frame.split_at_checked(FRAME_HEADER_BYTES)?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    (header[0] == 0 && usize::try_from(length) == Ok(message.len())).then_some(message)
}
