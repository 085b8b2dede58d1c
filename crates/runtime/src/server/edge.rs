//! What a peer may do on a listener, in counts, bytes and time.

use std::time::Duration;

/// Limits of a listener. The defaults are those of a public one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Connections at a time; more are closed at once.
    pub max_connections: usize,
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
            handshake_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            drain_idle: Duration::from_secs(1),
            max_header_bytes: 16 << 10,
            max_headers: 100,
            h2_max_streams: 100,
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
        Self { max_connections: 1_000, h2_max_streams: 1_000, h2_stream_window_bytes: 1 << 20, ..Self::default() }
    }

    /// For operators' listeners.
    pub fn admin() -> Self {
        Self { max_connections: 64, drain_idle: Duration::ZERO, ..Self::default() }
    }
}
