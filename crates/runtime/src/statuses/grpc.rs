//! Errors as `tonic::Status` with google.rpc details, and back.

use std::collections::HashMap;
use std::error::Error as StdError;

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use sluice_types::{Error, ErrorKind, Reason};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::detail::{Answer, whole_seconds};
use super::{DOMAIN, REQUEST_ID, RETRY_AFTER, RETRY_AFTER_MS};

/// An error as a gRPC status, with its details and the same headers as over HTTP as metadata.
pub fn to_tonic(error: &Error, request_id: &str) -> Status {
    let answer = Answer::new(error, request_id);
    let mut details = ErrorDetails::new();
    let metadata: HashMap<String, String> =
        answer.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    details.set_error_info(answer.reason.as_str(), DOMAIN, metadata);
    if let Some(field) = answer.field {
        details.add_bad_request_violation(field, answer.message);
    }
    if let Some(after) = answer.retry_after {
        details.set_retry_info(Some(after));
    }
    if let Some(limit) = answer.quota {
        details.add_quota_failure_violation(limit, answer.message);
    }
    details.set_request_info(answer.request_id, "");
    let headers = MetadataMap::from_headers(headers(&answer));
    Status::with_error_details_and_metadata(Code::from_i32(answer.kind.grpc_code()), answer.message, details, headers)
}

/// The same as a whole response, for layers outside of a gRPC service.
pub fn to_grpc_response(error: &Error, request_id: &str) -> http::Response<crate::BoxBody> {
    to_tonic(error, request_id).into_http::<tonic::body::Body>().map(crate::body::boxed)
}

pub(super) fn headers(answer: &Answer<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(after) = answer.retry_after {
        headers.insert(HeaderName::from_static(RETRY_AFTER), whole_seconds(after).into());
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        headers.insert(HeaderName::from_static(RETRY_AFTER_MS), millis.into());
    }
    if let Ok(id) = HeaderValue::from_str(answer.request_id) {
        headers.insert(HeaderName::from_static(REQUEST_ID), id);
    }
    headers
}

/// The error behind a status of the control plane; see [`from_tonic_for`].
pub fn from_tonic(status: &Status) -> Error {
    from_tonic_for(status, Reason::ControlPlaneUnavailable)
}

/// The error behind a status, for forwarding: kind, reason, message, field, retry and metadata as they were. A status that
/// none of our processes made (connection refused, lost, timed out) says nothing of its inside: it becomes UNAVAILABLE
/// with the given reason, DEADLINE_EXCEEDED or INTERNAL, with the status as source for our log. That we could not verify one
/// another is UNAVAILABLE, too.
pub fn from_tonic_for(status: &Status, unavailable: Reason) -> Error {
    let details = status.get_error_details();
    let reason = details
        .error_info()
        .filter(|info| info.domain == DOMAIN)
        .and_then(|info| Reason::ALL.iter().copied().find(|reason| reason.as_str() == info.reason));
    let Some(reason) = reason else { return foreign(status, unavailable) };
    // Between our processes it is UNAUTHENTICATED; to a client that would say that its own credential is bad.
    let kind = if reason == Reason::CallerUnverified { ErrorKind::Unavailable } else { kind(status.code()) };
    let mut error = Error::new(kind, reason, status.message());
    error.field =
        details.bad_request().and_then(|bad| bad.field_violations.first()).map(|violation| violation.field.clone());
    error.retry_after = details.retry_info().and_then(|retry| retry.retry_delay);
    if let Some(info) = details.error_info() {
        error.metadata =
            info.metadata.iter().filter_map(|(key, value)| Some((interned(key)?, value.clone()))).collect();
        error.metadata.sort_unstable();
    }
    error
}

fn foreign(status: &Status, unavailable: Reason) -> Error {
    let kind = match status.code() {
        Code::Unknown | Code::Internal | Code::Cancelled if is_timeout(status) => ErrorKind::DeadlineExceeded,
        Code::Unknown | Code::Internal | Code::Cancelled if is_transport(status) => ErrorKind::Unavailable,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::Cancelled => ErrorKind::Cancelled,
        Code::Unimplemented => ErrorKind::Unimplemented,
        _ => ErrorKind::Internal,
    };
    let error = match kind {
        ErrorKind::Unavailable => Error::unavailable(unavailable, "temporarily unavailable; try again"),
        ErrorKind::DeadlineExceeded => {
            Error::new(kind, Reason::DeadlineExceeded, "time was over before an answer came")
        }
        ErrorKind::Cancelled => Error::new(kind, Reason::DeadlineExceeded, "the call was cancelled"),
        ErrorKind::Unimplemented => Error::new(kind, Reason::RouteNotFound, "not served here"),
        _ => return Error::internal(status.clone()),
    };
    error.with_source(status.clone())
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next = status.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

fn is_timeout(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::TimeoutExpired>())
}

fn is_transport(status: &Status) -> bool {
    causes(status).any(|cause| {
        cause.is::<tonic::transport::Error>()
            || cause.is::<tonic::ConnectError>()
            || cause.is::<hyper::Error>()
            || cause.is::<std::io::Error>()
    })
}

fn kind(code: Code) -> ErrorKind {
    match code {
        Code::Cancelled => ErrorKind::Cancelled,
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::Aborted => ErrorKind::Aborted,
        Code::OutOfRange => ErrorKind::OutOfRange,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => ErrorKind::Internal,
    }
}

/// Keys of metadata are static in [`Error`]; those that come in over the wire are kept once, and only so many.
fn interned(key: &str) -> Option<&'static str> {
    const KEYS_MAX: usize = 256;
    const KEY_LEN_MAX: usize = 64;
    static KEYS: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut keys = KEYS.lock();
    if let Some(known) = keys.iter().find(|known| **known == key) {
        return Some(known);
    }
    if keys.len() >= KEYS_MAX || key.len() > KEY_LEN_MAX {
        return None;
    }
    let kept: &'static str = Box::leak(key.into());
    keys.push(kept);
    Some(kept)
}
