//! Who may have a connection: a count of all, a count per source, and who has to go when a count is full.
//!
//! A source is an IPv4 address or an IPv6 /64. A source at its own limit replaces its own connections, never another's; a full
//! listener takes the place of whoever has the least claim, in this order: a connection that never authenticated and has no
//! request, one that never authenticated and has had the same request for [`STRANGER_REQUEST`], one that has no request. A
//! connection that authenticated and has a request, or takes the rest of an answer, is never taken. Within an order, who has been quiet the longest goes first.
//! So a place of one's own cannot be taken by those who only connect.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::io::ConnState;

/// How long a connection that never authenticated may have one request, when places are scarce.
const STRANGER_REQUEST: Duration = Duration::from_secs(10);
/// A connection that authenticated is not idle right after its last answer.
const BETWEEN_REQUESTS: Duration = Duration::from_secs(1);
/// Of a full count, one part in so many is freed at a time: looking for them costs a walk over all.
const FREED_PART: usize = 64;
/// Sockets that were told to go and have not yet, at most, beside twice such a part.
const GOING_MAX: usize = 16;

/// The addresses that count as one source.
pub fn source_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let s = v6.segments();
            IpAddr::from([s[0], s[1], s[2], s[3], 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

/// The places of a listener.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    per_source: usize,
    evicted: Counter,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    /// Sockets, also those that were told to go and have not yet.
    open: usize,
    held: HashMap<u64, (IpAddr, Arc<ConnState>)>,
    sources: HashMap<IpAddr, usize>,
}

/// A connection's place; given back when the last holder drops it.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    places: Arc<Places>,
    pub(super) state: Arc<ConnState>,
}

/// Why a connection ought to go before others: the lower the sooner.
type Claim = (u8, Instant);

impl Places {
    /// `evicted` counts connections that have to go.
    pub(super) fn new(max: usize, per_source: usize, evicted: Counter) -> Arc<Self> {
        Arc::new(Self { max, per_source, evicted, inner: Mutex::default() })
    }

    /// A place for a new connection, if need be another's.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Arc<Place>> {
        let source = source_of(peer);
        let mut inner = self.inner.lock();
        // Those who were told to go have not gone yet: nobody else need go for a newcomer that cannot stay.
        if inner.open >= self.max + 2 * part(self.max) + GOING_MAX {
            return None;
        }
        let of_source = inner.sources.get(&source).copied().unwrap_or(0);
        if of_source >= self.per_source && !self.evict(&mut inner, Some(source), part(self.per_source)) {
            return None;
        }
        if inner.held.len() >= self.max && !self.evict(&mut inner, None, part(self.max)) {
            return None;
        }
        let (id, state) = (inner.next, ConnState::new());
        inner.next += 1;
        inner.open += 1;
        *inner.sources.entry(source).or_default() += 1;
        inner.held.insert(id, (source, Arc::clone(&state)));
        Some(Arc::new(Place { id, places: Arc::clone(self), state }))
    }

    /// Connections that had to go.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.get()
    }

    fn evict(&self, inner: &mut Inner, source: Option<IpAddr>, count: usize) -> bool {
        let evicted = inner.evict(source, count);
        self.evicted.inc_by(evicted);
        evicted > 0
    }
}

impl Inner {
    /// Tells up to `count` connections with the least claim to go; gives how many. They all have the same order.
    fn evict(&mut self, source: Option<IpAddr>, count: usize) -> u64 {
        let now = Instant::now();
        let of_source = self.held.iter().filter(|(_, (from, _))| source.is_none_or(|source| source == *from));
        let mut found: Vec<(Claim, u64)> =
            of_source.filter_map(|(id, (_, state))| Some((claim(state, now)?, *id))).collect();
        let Some(order) = found.iter().map(|((order, _), _)| *order).min() else { return 0 };
        found.retain(|((found, _), _)| *found == order);
        let count = count.min(found.len());
        if count < found.len() {
            found.select_nth_unstable(count);
        }
        let mut evicted = 0;
        for (_, id) in &found[..count] {
            if let Some(state) = self.remove(*id) {
                state.evict.cancel();
                evicted += 1;
            }
        }
        evicted
    }

    fn remove(&mut self, id: u64) -> Option<Arc<ConnState>> {
        let (source, state) = self.held.remove(&id)?;
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
        Some(state)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.places.inner.lock();
        inner.open -= 1;
        inner.remove(self.id);
    }
}

fn part(max: usize) -> usize {
    (max / FREED_PART).max(1)
}

fn claim(state: &ConnState, now: Instant) -> Option<Claim> {
    let (since, quiet) = (state.since(), now.saturating_duration_since(state.since()));
    match (state.is_trusted(), state.is_busy()) {
        (false, false) => Some((0, since)),
        (false, true) => (quiet >= STRANGER_REQUEST).then_some((1, since)),
        (true, false) => (quiet >= BETWEEN_REQUESTS).then_some((2, since)),
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn places(max: usize, per_source: usize) -> Arc<Places> {
        Places::new(max, per_source, Counter::default())
    }

    fn gone(place: &Place) -> bool {
        place.state.evict.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_at_its_limit_replaces_its_own_and_nobody_elses() {
        let places = places(10, 2);
        let other = places.enter(B).expect("a place");
        tokio::time::advance(Duration::from_secs(1)).await;
        let first = places.enter(A).expect("a place");
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = places.enter(A).expect("a place");
        let third = places.enter(A).expect("the place of the first");
        assert_eq!([&other, &first, &second, &third].map(|place| gone(place)), [false, true, false, false]);
        let _busy = [&second, &third].map(|place| {
            place.state.trust();
            place.state.begin()
        });
        assert!(places.enter(A).is_none(), "all of this source are at work");
        assert!(places.enter(B).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_listener_frees_the_place_with_the_least_claim() {
        let places = places(4, 4);
        let old: [_; 4] = std::array::from_fn(|_| places.enter(A).expect("a place"));
        let [idle, working, _stranger, long] = &old;
        for place in [idle, working] {
            place.state.trust();
        }
        let _requests = [working.state.begin(), long.state.begin()];
        tokio::time::advance(STRANGER_REQUEST).await;
        let mut newcomers = Vec::new();
        // No place is free until who had it has gone, so each newcomer comes after one of the old has.
        for gone_then in [[false, false, true, false], [false, false, true, true], [true, false, true, true]] {
            let newcomer = places.enter(B).expect("a place");
            newcomer.state.trust();
            newcomers.push((newcomer.state.begin(), newcomer));
            assert_eq!(old.each_ref().map(|place| gone(place)), gone_then);
        }
        assert!(places.enter(B).is_none(), "all are at work");
        assert_eq!(places.evicted(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_the_rest_of_an_answer_is_at_work() {
        let places = places(1, 4);
        let slow = places.enter(A).expect("a place");
        slow.state.trust();
        drop(slow.state.begin());
        slow.state.sending(true);
        tokio::time::advance(BETWEEN_REQUESTS * 60).await;
        assert!(places.enter(B).is_none(), "its answer has not all gone");
        slow.state.sending(false);
        assert!(places.enter(B).is_none(), "it was at work just now");
        tokio::time::advance(BETWEEN_REQUESTS).await;
        assert!(places.enter(B).is_some() && gone(&slow));
    }

    #[tokio::test(start_paused = true)]
    async fn sockets_that_go_slowly_bound_how_many_more_come() {
        let places = places(4, 4);
        let old: Vec<_> = (0..100).map_while(|_| places.enter(A)).collect();
        assert_eq!(old.len(), 4 + 2 + GOING_MAX, "each newcomer sends one away, which has not gone yet");
        assert_eq!(old.iter().filter(|place| !gone(place)).count(), 4, "and no more of them stay than have a place");
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_source() {
        let ip = |text: &str| source_of(text.parse().expect("address"));
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::2"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_eq!(ip("::ffff:192.0.2.1"), ip("192.0.2.1"));
    }
}
