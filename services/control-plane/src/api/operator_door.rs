//! The operator's listener: one port for gRPC and HTTP/JSON, one bearer token, compared in constant time.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use secrecy::{ExposeSecret as _, SecretString};
use sluice_proto::dispatch::{HttpCall, HttpError, HttpReply, dispatch_tenants_service_http};
use sluice_proto::{Audience, OPENAPI_OPERATOR, RouteError, match_route, query_pairs};
use sluice_runtime::body::{boxed, full};
use sluice_runtime::server::{ConnInfo, RequestBody};
use sluice_runtime::statuses::{REQUEST_ID, from_tonic, to_grpc_response, to_http};
use sluice_runtime::{BoxBody, BoxError};
use sluice_types::{Error, ErrorKind, Reason, Uid};
use tonic::metadata::MetadataMap;
use tower::{Service, ServiceExt as _};

use super::operator::{Operator, OperatorCall};

const BODY_BYTES_MAX: usize = 1 << 20;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const TIMEOUT_MS: &str = "x-request-timeout-ms";
const REQUEST_ID_LEN_MAX: usize = 128;

/// The service of the listener.
#[derive(Clone)]
pub(crate) struct OperatorDoor {
    grpc: axum::Router,
    http: Operator,
    /// Hash of the token: comparing hashes tells nothing of the token, not even its length.
    token: Arc<blake3::Hash>,
}

impl OperatorDoor {
    /// `grpc` serves the gRPC half.
    pub(crate) fn new(grpc: axum::Router, http: Operator, token: &SecretString) -> Self {
        Self { grpc, http, token: Arc::new(blake3::hash(token.expose_secret().as_bytes())) }
    }

    async fn serve(mut self, request: Request<RequestBody>) -> Response<BoxBody> {
        let call = operator_call(&request);
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if let Err(error) = self.check(request.headers()) {
            return match is_grpc {
                true => to_grpc_response(&error, &call.request_id),
                false => to_http(&error, &call.request_id),
            };
        }
        let (mut head, body) = request.into_parts();
        head.extensions.insert(call.clone());
        if is_grpc {
            let request = Request::from_parts(head, body);
            return match self.grpc.as_service().oneshot(request).await {
                Ok(response) => response.map(boxed),
                Err(never) => match never {},
            };
        }
        let mut response =
            self.serve_http(&head, body, &call).await.unwrap_or_else(|error| to_http(&error, &call.request_id));
        if let Ok(id) = HeaderValue::from_str(&call.request_id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Error> {
        let Some(sent) = headers.get(header::AUTHORIZATION) else {
            return Err(Error::new(
                ErrorKind::Unauthenticated,
                Reason::CredentialMissing,
                "send the operator's token as \"authorization: Bearer <token>\"",
            ));
        };
        let token = sent.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        // blake3's equality is constant-time.
        match token {
            Some(token) if blake3::hash(token.trim().as_bytes()) == *self.token => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Unauthenticated,
                Reason::CredentialInvalid,
                "the operator's token is not valid",
            )),
        }
    }

    async fn serve_http(
        &self,
        head: &http::request::Parts,
        body: RequestBody,
        call: &OperatorCall,
    ) -> Result<Response<BoxBody>, Error> {
        if head.uri.path() == "/openapi.json" {
            return Ok(json(StatusCode::OK, Bytes::from_static(OPENAPI_OPERATOR.as_bytes())));
        }
        let route = match match_route(Audience::Operator, &head.method, head.uri.path()) {
            Ok(route) => route,
            Err(RouteError::Malformed { field }) => return Err(Error::invalid(field, "is not percent-encoded UTF-8")),
            Err(RouteError::NotFound) => return Err(no_route()),
            Err(RouteError::MethodNotAllowed { allow }) => return Ok(wrong_method(&allow, &call.request_id)),
        };
        let query = query_pairs(head.uri.query().unwrap_or_default())
            .map_err(|error| Error::invalid(error.field, error.reason))?;
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(body_error)?.to_bytes();
        let mut extensions = tonic::Extensions::new();
        extensions.insert(call.clone());
        let metadata = MetadataMap::from_headers(head.headers.clone());
        let call = HttpCall { route, metadata, extensions, query, body };
        match dispatch_tenants_service_http(&self.http, call).await {
            Ok(HttpReply { body, metadata, .. }) => {
                let mut response = json(StatusCode::OK, body);
                response.headers_mut().extend(metadata.into_headers());
                Ok(response)
            }
            Err(HttpError::Request(error)) => Err(Error::invalid(error.field, error.reason)),
            Err(HttpError::Status(status)) => Err(from_tonic(&status)),
        }
    }
}

impl Service<Request<RequestBody>> for OperatorDoor {
    type Response = Response<BoxBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let door = self.clone();
        Box::pin(async move { Ok(door.serve(request).await) })
    }
}

/// Request id and deadline of a call.
fn operator_call<B>(request: &Request<B>) -> OperatorCall {
    let headers = request.headers();
    let sent = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let sent = sent.filter(|id| (1..=REQUEST_ID_LEN_MAX).contains(&id.len()));
    let request_id = sent.map_or_else(|| Uid::random().to_string(), str::to_owned).into();
    let timeout = headers
        .get(TIMEOUT_MS)
        .and_then(|ms| ms.to_str().ok()?.parse().ok().map(Duration::from_millis))
        .or_else(|| grpc_timeout(headers.get("grpc-timeout")?.to_str().ok()?));
    let deadline = Instant::now() + timeout.unwrap_or(TIMEOUT_DEFAULT).min(TIMEOUT_MAX);
    let peer = request.extensions().get::<ConnInfo>().map(|connection| connection.peer.ip());
    OperatorCall { request_id, deadline, peer }
}

/// `grpc-timeout`: up to eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

fn json(status: StatusCode, body: Bytes) -> Response<BoxBody> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn no_route() -> Error {
    Error::new(ErrorKind::NotFound, Reason::RouteNotFound, "no such path; /openapi.json lists them")
}

fn wrong_method(allow: &str, request_id: &str) -> Response<BoxBody> {
    let error = Error::new(ErrorKind::Unimplemented, Reason::RouteNotFound, format!("this path takes {allow}"));
    let mut response = to_http(&error, request_id);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn body_error(error: BoxError) -> Error {
    if error.is::<http_body_util::LengthLimitError>() {
        return Error::new(
            ErrorKind::InvalidArgument,
            Reason::TooLarge,
            format!("body: is larger than {BODY_BYTES_MAX} bytes, the limit"),
        );
    }
    Error::new(ErrorKind::InvalidArgument, Reason::MalformedBody, "body: could not be read").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_or_refused() {
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(grpc_timeout("123456789S"), None);
        assert_eq!(grpc_timeout(""), None);
    }
}
