//! What is known of a connection. The accept loop puts it into the extensions of every request.

use std::net::SocketAddr;
use std::sync::Arc;

use super::io::{ConnState, LongCall};
use crate::tls::PeerIdentity;

/// The protocol agreed on during the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http11,
}

/// A connection; cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnInfo {
    /// The other end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Who the peer proved to be by its certificate; always there on internal listeners.
    pub client: Option<Arc<PeerIdentity>>,
    /// What ALPN chose, if TLS was spoken and anything was chosen.
    pub alpn: Option<Alpn>,
    /// Whether TLS is spoken.
    pub tls: bool,
}

/// What the layers above a listener tell it of a connection, and keep there. In the extensions of every request.
#[derive(Debug, Clone)]
pub struct ConnHandle(pub(super) Arc<ConnState>);

impl Default for ConnHandle {
    /// Of no connection, for tests and for requests that a process makes to itself.
    fn default() -> Self {
        Self(ConnState::new())
    }
}

impl ConnHandle {
    /// A call on this connection carried a good credential: it may idle longer, and keeps its place when others want one.
    pub fn trust(&self) {
        self.0.trust();
    }

    /// Counts a call that may go on for long; `None` when `max` of them do.
    pub fn long_call(&self, max: usize) -> Option<LongCall> {
        self.0.long_call(max)
    }
}
