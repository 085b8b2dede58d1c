//! The one response body type that listeners, HTTP handlers and gRPC services share.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A response body whose concrete type is forgotten.
pub type BoxBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// Forgets a body's type.
pub fn boxed<B>(body: B) -> BoxBody
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A body that is known whole.
pub fn full(bytes: impl Into<Bytes>) -> BoxBody {
    boxed(Full::new(bytes.into()))
}

/// No body.
pub fn empty() -> BoxBody {
    boxed(Empty::new())
}
