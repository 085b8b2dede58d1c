//! Listeners with edges: HTTP/1.1 and HTTP/2 on one port, with or without TLS, and a bound on everything a peer may do.
//!
//! Ready-made servers set no time for headers or handshakes, so the accept loop is our own. In order, a connection meets:
//! the cap on connections, the time for the TLS handshake, the time for the first byte, the time for a request's head,
//! HTTP/2's limits, the time between two reads of a body ([`RequestBody`]), the time a blocked write may last, and the time it
//! may idle. Each is a field of [`Edge`].
//!
//! Draining ([`serve`]) resets no client that behaves: what waits in the backlog is accepted first, HTTP/2 gets GOAWAY,
//! HTTP/1.1 gets one more answer with `connection: close`, and a socket is closed only after the peer closed or a second
//! has passed, because unread bytes would turn the close into a reset.

mod accept;
mod body;
mod drive;
mod edge;
mod info;
mod io;
mod service;
mod sniff;

pub use accept::{ServeReport, bind, serve};
pub use body::{BodyTimeout, RequestBody};
pub use edge::Edge;
pub use info::{Alpn, ConnInfo};
