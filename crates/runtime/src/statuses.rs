//! The one mapping from [`sluice_types::Error`] to what callers see, in gRPC and in HTTP, and back for forwarded calls.
//!
//! Both answers are made from the same [`detail::Answer`], so they cannot say different things. What happened inside
//! (`source`) is in neither.

mod detail;
mod grpc;
mod json;
#[cfg(test)]
mod tests;

pub use grpc::{from_tonic, from_tonic_for, to_grpc_response, to_tonic};
pub use json::{to_http, to_json};

/// `ErrorInfo.domain`.
pub const DOMAIN: &str = "sluice";
/// Response header and metadata: whole seconds to wait, rounded up.
pub const RETRY_AFTER: &str = "retry-after";
/// Response header and metadata: the same in milliseconds, exact.
pub const RETRY_AFTER_MS: &str = "retry-after-ms";
/// Request and response header and metadata: the id of a request.
pub const REQUEST_ID: &str = "x-request-id";
/// Characters of a request id that is taken over from a caller.
const REQUEST_ID_LEN_MAX: usize = 128;

/// The id of a request: the caller's, if it is 1..128 characters of `A-Za-z0-9._:-`, else a new one.
pub fn request_id(headers: &http::HeaderMap) -> String {
    let sent = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let good = |id: &&str| {
        (1..=REQUEST_ID_LEN_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
    };
    sent.filter(good).map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), str::to_owned)
}
