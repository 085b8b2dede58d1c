//! What is too much is refused at once, before it costs anything.
//!
//! Two counts of calls in flight: of the process, and per peer address, so that one peer cannot take all places. An IPv6
//! peer is its /64: whoever has one address there has them all. And a count of long calls per connection, below what HTTP/2
//! lets it have: consumers that wait leave room on their connection for the calls that settle what they got.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use dashmap::DashMap;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;

use sluice_runtime::server::{ConnHandle, LongCall, source_of};
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

use crate::{Answer, Body, Inner, Middleware, Next, Request, call_of};

const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Long calls of one connection: of its 1,000 HTTP/2 streams, these leave 100 for others.
pub const LONG_CALLS_PER_CONNECTION: usize = 900;

/// The layer.
pub struct Admit {
    max: usize,
    max_per_peer: usize,
    running: Arc<AtomicUsize>,
    /// Peers with calls in flight, so never more entries than calls.
    peers: Arc<DashMap<IpAddr, usize>>,
}

/// A place; given back when dropped.
#[derive(Debug)]
struct Place {
    peer: IpAddr,
    running: Arc<AtomicUsize>,
    peers: Arc<DashMap<IpAddr, usize>>,
}

impl Admit {
    /// At most `max` calls at a time, and `max_per_peer` of one peer.
    pub fn new(max: usize, max_per_peer: usize) -> Self {
        Self { max, max_per_peer, running: Arc::default(), peers: Arc::default() }
    }

    fn enter(&self, peer: IpAddr) -> Result<Place, Error> {
        let peer = source_of(peer);
        let place = Place { peer, running: Arc::clone(&self.running), peers: Arc::clone(&self.peers) };
        let running = self.running.fetch_add(1, Ordering::Relaxed);
        let of_peer = {
            let mut count = self.peers.entry(peer).or_insert(0);
            *count += 1;
            *count
        };
        // Dropping `place` gives both counts back.
        if running >= self.max {
            return Err(Error::unavailable(
                Reason::Overloaded,
                "this server has as many calls as it can take; try again",
            )
            .with_retry_after(RETRY_AFTER));
        }
        if of_peer > self.max_per_peer {
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                Reason::Overloaded,
                format!("{} calls of this address are in flight, the limit; use fewer at a time", self.max_per_peer),
            )
            .with_retry_after(RETRY_AFTER));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        if let dashmap::Entry::Occupied(mut entry) = self.peers.entry(self.peer) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

impl Middleware for Admit {
    const NAME: &'static str = "admit";

    async fn handle<S: Inner>(&self, request: Request, next: Next<'_, S>) -> Answer {
        let call = call_of(&request)?;
        let _place = self.enter(call.peer)?;
        let connection = request.extensions().get::<ConnHandle>().filter(|_| call.target.is_long());
        let Some(connection) = connection else { return next.run(request).await };
        let long = long_call(connection)?;
        let answer = next.run(request).await?;
        Ok(answer.map(|inner| Body::new(Long { inner, _call: long })))
    }
}

/// Counts a call that may go on for long among those of its connection, until the guard is dropped.
///
/// # Errors
/// OVERLOADED, if [`LONG_CALLS_PER_CONNECTION`] are on their way.
pub fn long_call(connection: &ConnHandle) -> Result<LongCall, Error> {
    connection.long_call(LONG_CALLS_PER_CONNECTION).ok_or_else(too_many_long)
}

fn too_many_long() -> Error {
    Error::new(
        ErrorKind::ResourceExhausted,
        Reason::Overloaded,
        format!(
            "{LONG_CALLS_PER_CONNECTION} streams and calls that wait are open on this connection, the limit; open another connection"
        ),
    )
    .with_retry_after(RETRY_AFTER)
}

/// The answer to a long call, which goes on until its body ends.
struct Long {
    inner: Body,
    _call: LongCall,
}

impl http_body::Body for Long {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_cannot_take_all_places() {
        let admit = Admit::new(3, 2);
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        let first = admit.enter(ip("2001:db8::1")).expect("a place");
        let _second = admit.enter(ip("2001:db8::2")).expect("a place");
        assert_eq!(admit.enter(ip("2001:db8::3")).expect_err("its own limit").kind, ErrorKind::ResourceExhausted);
        let _other = admit.enter(ip("192.0.2.1")).expect("a place");
        assert_eq!(admit.enter(ip("192.0.2.2")).expect_err("all taken").kind, ErrorKind::Unavailable);
        drop(first);
        assert!(admit.enter(ip("2001:db8::3")).is_ok());
        assert!(admit.enter(ip("::ffff:192.0.2.1")).is_ok(), "the same as 192.0.2.1");
    }
}
