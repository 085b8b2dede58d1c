//! What is known of a connection. The accept loop puts it into the extensions of every request.

use std::net::SocketAddr;
use std::sync::Arc;

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
