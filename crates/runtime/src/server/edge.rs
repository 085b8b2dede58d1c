//! What a peer may do on a listener, in counts, bytes and time.

use std::time::Duration;

/// Limits of a listener. The defaults are those of a public one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Connections at a time; who has the least claim to one goes for the next.
    pub max_connections: usize,
    /// Of these, connections of one source: an IPv4 address or an IPv6 /64.
    pub max_connections_per_source: usize,
    /// Time for the TLS handshake.
    pub handshake_timeout: Duration,
    /// Time from then to the first byte.
    pub first_byte_timeout: Duration,
    /// Time for a request's head, from its first byte (HTTP/1.1), and for the preface (HTTP/2).
    pub header_timeout: Duration,
    /// Time between two reads of a request body that somebody waits for.
    pub body_idle_timeout: Duration,
    /// Time a write may be blocked by a peer that does not read.
    pub write_timeout: Duration,
    /// Time a connection may be without a request.
    pub idle_timeout: Duration,
    /// The same for one on which nobody has authenticated yet.
    pub stranger_idle_timeout: Duration,
    /// Silence after which a peer is asked whether it is still there; three questions without an answer end it.
    pub keepalive: Duration,
    /// Bytes of a body that are read and thrown away after an answer that did not wait for them.
    pub unread_bytes_max: u64,
    /// Time between two reads of such a body.
    pub unread_idle: Duration,
    /// Time for all of it.
    pub unread_time: Duration,
    /// While draining, how long an idle HTTP/1.1 connection waits for one more request before it is closed.
    pub drain_idle: Duration,
    /// Bytes of a request's head, in both protocols.
    pub max_header_bytes: u32,
    /// Headers of an HTTP/1.1 request.
    pub max_headers: usize,
    /// HTTP/2 streams at a time on one connection.
    pub h2_max_streams: u32,
    /// HTTP/2 window of a stream.
    pub h2_stream_window_bytes: u32,
    /// HTTP/2 window of a connection.
    pub h2_connection_window_bytes: u32,
    /// HTTP/2: how often to ping.
    pub h2_ping_interval: Duration,
    /// HTTP/2: how long to wait for the answer.
    pub h2_ping_timeout: Duration,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_source: 2_500,
            handshake_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            stranger_idle_timeout: Duration::from_secs(30),
            keepalive: Duration::from_secs(30),
            unread_bytes_max: 64 << 20,
            unread_idle: Duration::from_secs(5),
            unread_time: Duration::from_secs(30),
            drain_idle: Duration::from_secs(1),
            max_header_bytes: 16 << 10,
            max_headers: 100,
            h2_max_streams: 1_000,
            h2_stream_window_bytes: 512 << 10,
            h2_connection_window_bytes: 1 << 20,
            h2_ping_interval: Duration::from_secs(20),
            h2_ping_timeout: Duration::from_secs(10),
        }
    }
}

impl Edge {
    /// For listeners that only our own processes reach: few connections, many streams.
    pub fn internal() -> Self {
        Self {
            max_connections: 1_000,
            max_connections_per_source: 1_000,
            h2_stream_window_bytes: 1 << 20,
            ..Self::default()
        }
    }

    /// For operators' listeners. Scrapers come once a minute and show nothing that would tell them from strangers.
    pub fn admin() -> Self {
        let public = Self::default();
        Self {
            max_connections: 64,
            max_connections_per_source: 64,
            stranger_idle_timeout: public.idle_timeout,
            drain_idle: Duration::ZERO,
            ..public
        }
    }
}
