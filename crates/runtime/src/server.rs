//! Listeners with edges: HTTP/1.1 and HTTP/2 on one port, with or without TLS, and a bound on everything a peer may do.
//!
//! Ready-made servers set no time for headers or handshakes, so the accept loop is our own. In order, a connection meets:
//! the places of the listener and of its source, the time for the TLS handshake, the time for the first byte, the time for a
//! request's head, HTTP/2's limits, the time between two reads of a body ([`RequestBody`]), the time a blocked write may last,
//! the time it may idle, which is shorter until somebody has authenticated ([`ConnHandle`]), and questions whether the peer is
//! still there. Each is a field of [`Edge`]. When all places are taken, those who only connect make room for those who work.
//!
//! No client that behaves is reset. An answer that does not wait for the request's body is followed by reading what still
//! comes. Draining ([`serve`]) accepts first what waits in the backlog; HTTP/2 gets GOAWAY, HTTP/1.1 gets one more answer with
//! `connection: close`, and a socket is closed only after the peer closed or a second has passed without a byte.

mod accept;
mod body;
mod drive;
mod edge;
mod host;
mod info;
mod io;
mod metrics;
mod places;
mod service;
mod sniff;
mod unread;

pub use accept::{ServeReport, bind, serve, serve_counted};
pub use body::{BodyTimeout, RequestBody};
pub use edge::Edge;
pub use info::{Alpn, ConnHandle, ConnInfo};
pub use io::LongCall;
pub use metrics::ConnMetrics;
pub use places::source_of;
