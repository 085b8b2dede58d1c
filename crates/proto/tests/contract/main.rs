//! What the contracts promise: routes, transcoding, JSON, dispatch, forwarding, and the rules the protos themselves keep.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod dispatching;
mod fake;
mod forwarding;
mod json;
mod lint;
mod openapi;
mod routing;
mod transcoding;
