//! How often a peer may fail to authenticate: then it gets RESOURCE_EXHAUSTED instead of an answer about its key.
//!
//! A good key always passes, also from an address that fails a lot (many clients share one). Entries go after a minute
//! without a failure, and there are at most [`PEERS_MAX`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;

use sluice_runtime::server::source_of;
use sluice_types::error::Error;
use sluice_types::gcra::{Decision, Gcra, Rate};
use sluice_types::{ErrorKind, Reason};

const PEERS_MAX: u64 = 100_000;
const IDLE: Duration = Duration::from_secs(60);

/// Failures by peer.
pub struct Failures {
    rate: Rate,
    epoch: Instant,
    peers: Cache<IpAddr, Arc<Gcra>>,
}

impl Failures {
    /// At most this many a second from one peer, and `burst` at once.
    pub fn new(per_second: u64, burst: u64) -> Self {
        let peers = Cache::builder().max_capacity(PEERS_MAX).time_to_idle(IDLE).build();
        Self { rate: Rate { units_per_second: per_second, burst_units: burst }, epoch: Instant::now(), peers }
    }

    /// Counts a failure; gives what to answer instead of `error` when there were too many.
    pub fn count(&self, peer: IpAddr, error: Error) -> Error {
        let limiter = self.peers.get_with(source_of(peer), Arc::default);
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        match limiter.request(self.rate, 1, now) {
            Decision::Accepted { .. } => error,
            Decision::Refused { retry_after } => Error::new(
                ErrorKind::ResourceExhausted,
                Reason::AuthenticationRateLimited,
                "too many calls without a valid credential from this address",
            )
            .with_retry_after(retry_after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_fails_too_often_is_told_to_wait_and_others_are_not() {
        let failures = Failures::new(1, 3);
        let error = || Error::new(ErrorKind::Unauthenticated, Reason::CredentialInvalid, "no");
        let (bad, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..3 {
            assert_eq!(failures.count(bad, error()).kind, ErrorKind::Unauthenticated);
        }
        let refused = failures.count(bad, error());
        assert_eq!(refused.reason, Reason::AuthenticationRateLimited);
        assert!(refused.retry_after.is_some_and(|wait| wait <= Duration::from_secs(1)));
        assert_eq!(failures.count(other, error()).kind, ErrorKind::Unauthenticated);
    }
}
