//! The layers that every listener has, in their order.

use crate::admit::Admit;
use crate::authenticate::{Authenticate, Credentials};
use crate::body_limit::BodyLimit;
use crate::catch_panic::CatchPanic;
use crate::deadline::Deadlines;
use crate::identify::Identify;
use crate::metrics::CallMetrics;
use crate::observe::Observe;
use crate::rescue::Rescue;
use crate::{Inner, Middleware, Stack};

/// The common layers by name, outermost first: the order of every listener begins so.
pub const ORDER: [&str; 8] = [
    Identify::NAME,
    Observe::NAME,
    Rescue::NAME,
    CatchPanic::NAME,
    Admit::NAME,
    Deadlines::NAME,
    BodyLimit::NAME,
    Authenticate::NAME,
];

/// What the common layers work with.
pub struct CommonParts {
    /// The listener's name in the access log.
    pub listener: &'static str,
    /// Where calls are counted.
    pub metrics: CallMetrics,
    /// Calls at a time.
    pub calls_max: usize,
    /// Calls at a time of one peer.
    pub calls_per_peer_max: usize,
    /// Bytes of a body.
    pub body_bytes_max: u64,
    /// What callers show.
    pub credentials: Credentials,
}

/// The common layers around `inner`.
pub fn common<S: Inner>(parts: CommonParts, inner: Stack<S>) -> Stack<impl Inner> {
    inner
        .within(Authenticate(parts.credentials))
        .within(BodyLimit { max: parts.body_bytes_max })
        .within(Deadlines)
        .within(Admit::new(parts.calls_max, parts.calls_per_peer_max))
        .within(CatchPanic)
        .within(Rescue)
        .within(Observe { listener: parts.listener, metrics: parts.metrics })
        .within(Identify)
}
