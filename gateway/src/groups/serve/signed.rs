//! Caller tokens of unary calls and of streams.
//!
//! Of a unary call the whole body is verified before the handler sees it; of a stream the first message is, by the handler.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, Version};
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tower::{Layer, Service};

use sluice_proto::internal::gateway::v1::AttachRequest;
use sluice_proto::rpcs;
use sluice_runtime::body::BoxError;
use sluice_runtime::internal::{CALLER_KEY, CallerLayer, CallerService, CallerVerifier, TokenError};
use sluice_runtime::server::ConnInfo;
use sluice_runtime::statuses;
use sluice_types::OpContext;
use sluice_types::error::Error;

use crate::transport::watched;

/// A service whose unary calls are verified.
#[derive(Clone)]
pub struct Signed<S> {
    unary: CallerService<S>,
    streams: S,
}

impl<S: Clone> Signed<S> {
    pub(super) fn new(service: S, verifier: CallerVerifier) -> Self {
        Self { unary: CallerLayer::new(verifier).layer(service.clone()), streams: service }
    }
}

impl<S: NamedService> NamedService for Signed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Signed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // tonic's servers are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path() == rpcs::DISPATCH_SERVICE_ATTACH.path {
            Box::pin(self.streams.call(request.map(Body::new)))
        } else {
            let answer = self.unary.call(request);
            Box::pin(async move { answer.await.map(|response| watched(response, Version::HTTP_2)) })
        }
    }
}

/// The caller of a stream, from its first message.
pub(super) fn verify(
    verifier: &CallerVerifier,
    metadata: &MetadataMap,
    extensions: &tonic::Extensions,
    first: &AttachRequest,
) -> Result<OpContext, Status> {
    let verified = || {
        let peer = extensions.get::<ConnInfo>().and_then(|connection| connection.client.as_ref());
        let peer: &Arc<_> = peer.ok_or(TokenError::Signature)?;
        let token = metadata.get(CALLER_KEY).ok_or(TokenError::Missing)?;
        let token = token.to_str().map_err(|_| TokenError::Malformed)?;
        let path = rpcs::DISPATCH_SERVICE_ATTACH.path;
        verifier.verify(peer, path, &first.encode_to_vec(), token, SystemTime::now())
    };
    verified().map(sluice_runtime::internal::CallerClaims::into_context).map_err(|error: TokenError| {
        tracing::warn!(%error, "stream of another gateway refused");
        statuses::to_tonic(&Error::from(error), "")
    })
}
