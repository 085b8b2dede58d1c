//! The one place where an error becomes an answer, in the caller's protocol.
//!
//! What happened inside goes to the log here, once, and into no answer.

use http::{HeaderValue, StatusCode, header};

use sluice_runtime::body::full;
use sluice_runtime::statuses;
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

use crate::call::{ALLOW, Call, Protocol};
use crate::{Answer, Body, Inner, Middleware, Next, Request, Response, call_of};

const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// The layer.
pub struct Rescue;

impl Middleware for Rescue {
    const NAME: &'static str = "rescue";

    async fn handle<S: Inner>(&self, request: Request, next: Next<'_, S>) -> Answer {
        let call = call_of(&request)?;
        match next.run(request).await {
            Ok(response) => Ok(response),
            Err(error) => Ok(rescue(&call, &error)),
        }
    }
}

fn rescue(call: &Call, error: &Error) -> Response {
    call.facts.lock().failure = Some((error.kind, error.reason));
    let source = error.source.as_deref().map(|source| source as &dyn std::error::Error);
    match error.kind {
        ErrorKind::Internal => tracing::error!(%error, source, "call failed"),
        ErrorKind::Unavailable => tracing::debug!(%error, source, "call failed"),
        _ => {}
    }
    match call.protocol {
        Protocol::Grpc => {
            let mut response: Response = statuses::to_tonic(error, &call.request_id).into_http();
            // A client that sent another encoding chooses one of these.
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip"));
            response
        }
        Protocol::Http => match allow_of(error) {
            Some(allow) => method_not_allowed(error, allow, &call.request_id),
            None => statuses::to_http(error, &call.request_id).map(Body::new),
        },
    }
}

fn allow_of(error: &Error) -> Option<&str> {
    let is_it = error.reason == Reason::RouteNotFound;
    let mut pairs = error.metadata.iter().filter(|_| is_it);
    pairs.find(|(key, _)| *key == ALLOW).map(|(_, value)| value.as_str())
}

/// 405, which no gRPC code maps to.
fn method_not_allowed(error: &Error, allow: &str, request_id: &str) -> Response {
    let mut body = statuses::to_json(error, request_id);
    body["error"]["code"] = StatusCode::METHOD_NOT_ALLOWED.as_u16().into();
    let mut response = http::Response::new(Body::new(full(body.to_string())));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}
