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
