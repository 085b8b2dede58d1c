//! Serves HTTP/JSON calls by the same service traits that serve gRPC: one implementation, two protocols.
//!
//! For each service there is a `dispatch_…_http` function: it decodes the request, calls the method with the given metadata
//! and extensions, and encodes the answer. All static: no reflection, no second set of handlers. The answer's JSON is
//! canonical proto3 JSON (`lowerCamelCase`, enum names, 64-bit integers as strings); messages of ours also carry fields that
//! have their default value (`"partition": 0`, `"done": false`), so that clients need not know defaults.

use bytes::Bytes;
use serde::Serialize;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status};

use crate::access::ApiRequest;
use crate::route::RouteMatch;
use crate::transcode::{TranscodeError, decode_request};

pub use crate::tables::dispatch::*;

/// An HTTP call that was routed.
#[derive(Debug)]
pub struct HttpCall {
    /// Where it goes.
    pub route: RouteMatch,
    /// Passed to the method, as are `extensions`. `idempotency-key` fills an empty `request_id` of a mutation.
    pub metadata: MetadataMap,
    /// See `metadata`.
    pub extensions: Extensions,
    /// Decoded names and values, in order.
    pub query: Vec<(String, String)>,
    /// The whole body.
    pub body: Bytes,
}

/// The answer to an [`HttpCall`].
#[derive(Debug)]
pub struct HttpReply {
    /// JSON.
    pub body: Bytes,
    /// What the method set; becomes headers.
    pub metadata: MetadataMap,
    /// What the method set.
    pub extensions: Extensions,
}

/// Why an [`HttpCall`] failed.
#[derive(Debug)]
pub enum HttpError {
    /// The request could not be understood: INVALID_ARGUMENT.
    Request(TranscodeError),
    /// The method's error.
    Status(Status),
}

impl From<TranscodeError> for HttpError {
    fn from(e: TranscodeError) -> Self {
        Self::Request(e)
    }
}

impl From<Status> for HttpError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// The metadata name of HTTP's `Idempotency-Key`.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Fills `request_id` of a mutation from `idempotency-key`; for gRPC handlers too.
///
/// # Errors
/// Both are there and differ, or the key is not ASCII.
pub fn fill_request_id<R: ApiRequest>(request: &mut R, metadata: &MetadataMap) -> Result<(), TranscodeError> {
    let Some(key) = metadata.get(IDEMPOTENCY_KEY).filter(|_| R::rpc().mutation) else { return Ok(()) };
    let Some(id) = request.request_id_mut() else { return Ok(()) };
    let fail = |reason: &str| Err(TranscodeError { field: "request_id".into(), reason: reason.into() });
    match key.to_str() {
        Err(_) => fail("comes from Idempotency-Key, which must be ASCII"),
        Ok(key) if id.is_empty() => {
            key.clone_into(id);
            Ok(())
        }
        Ok(key) if key == id => Ok(()),
        Ok(_) => fail("differs from Idempotency-Key"),
    }
}

/// One unary call.
pub(crate) async fn unary<Req, Resp, F>(
    call: HttpCall,
    method: impl FnOnce(Request<Req>) -> F,
) -> Result<HttpReply, HttpError>
where
    Req: ApiRequest,
    Resp: Serialize,
    F: Future<Output = Result<Response<Resp>, Status>>,
{
    let mut request: Req = decode_request(&call.route, &call.query, &call.body)?;
    drop(call.body);
    fill_request_id(&mut request, &call.metadata)?;
    let (metadata, message, extensions) =
        method(Request::from_parts(call.metadata, call.extensions, request)).await?.into_parts();
    let body = serde_json::to_vec(&message).map_err(|_| Status::internal("the answer has no JSON form"))?;
    Ok(HttpReply { body: body.into(), metadata, extensions })
}

/// The route is not one of this service.
pub(crate) fn not_served(call: &HttpCall) -> HttpError {
    Status::unimplemented(format!("{} is not served here", call.route.rpc.path)).into()
}
