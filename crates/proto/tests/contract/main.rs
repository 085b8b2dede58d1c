//! What the contracts promise: routes, transcoding, JSON, dispatch, forwarding, and the rules the protos themselves keep.

mod dispatching;
mod fake;
mod forwarding;
mod json;
mod lint;
mod routing;
mod transcoding;
