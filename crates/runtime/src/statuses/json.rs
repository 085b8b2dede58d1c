//! Errors as HTTP responses: `{"error": {code, message, status, details}}`, details in protobuf's canonical JSON.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use sluice_types::{Error, ErrorKind};

use super::DOMAIN;
use super::detail::Answer;
use super::grpc::headers;
use crate::body::{BoxBody, full};

/// An error as an HTTP response. `Retry-After` is in whole seconds, rounded up; `retry-after-ms` is exact.
pub fn to_http(error: &Error, request_id: &str) -> Response<BoxBody> {
    let answer = Answer::new(error, request_id);
    let mut response = Response::new(full(json_of(&answer).to_string()));
    *response.status_mut() =
        StatusCode::from_u16(answer.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let own = response.headers_mut();
    own.extend(headers(&answer));
    own.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if answer.kind == ErrorKind::Unauthenticated {
        own.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The body of [`to_http`].
pub fn to_json(error: &Error, request_id: &str) -> Value {
    json_of(&Answer::new(error, request_id))
}

fn json_of(answer: &Answer<'_>) -> Value {
    let metadata: Map<String, Value> =
        answer.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
    let mut info = json!({ "reason": answer.reason.as_str(), "domain": DOMAIN });
    if !metadata.is_empty() {
        info["metadata"] = metadata.into();
    }
    let mut details = vec![typed("ErrorInfo", info)];
    if let Some(field) = answer.field {
        let violation = json!({ "field": field, "description": answer.message });
        details.push(typed("BadRequest", json!({ "fieldViolations": [violation] })));
    }
    if let Some(after) = answer.retry_after {
        let delay = match after.subsec_millis() {
            0 => format!("{}s", after.as_secs()),
            millis => format!("{}.{millis:03}s", after.as_secs()),
        };
        details.push(typed("RetryInfo", json!({ "retryDelay": delay })));
    }
    if let Some(limit) = answer.quota {
        let violation = json!({ "subject": limit, "description": answer.message });
        details.push(typed("QuotaFailure", json!({ "violations": [violation] })));
    }
    details.push(typed("RequestInfo", json!({ "requestId": answer.request_id })));
    json!({ "error": {
        "code": answer.kind.http_status(),
        "message": answer.message,
        "status": answer.kind.as_str(),
        "details": details,
    } })
}

fn typed(name: &str, fields: Value) -> Value {
    let mut detail = json!({ "@type": format!("type.googleapis.com/google.rpc.{name}") });
    if let (Value::Object(detail), Value::Object(fields)) = (&mut detail, fields) {
        detail.extend(fields);
    }
    detail
}
