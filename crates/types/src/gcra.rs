//! The arithmetic of a rate limit: GCRA over abstract units, clock passed in.
//!
//! The generic cell rate algorithm (ITU-T I.371) keeps one number, the theoretical arrival time `tat`: when the units
//! accepted so far are paid for at the sustained rate. A request of `n` units is accepted while `tat` is at most `burst`
//! ahead of now; then `tat` moves on by `n / rate`. A request larger than the burst is accepted when nothing is owed and
//! goes into debt, so that it is slow, not impossible. One atomic word, lock-free.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NANOS: u128 = 1_000_000_000;

/// A sustained rate with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units a second, at least 1.
    pub units_per_second: u64,
    /// Units that may come at once on top.
    pub burst_units: u64,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on; `remaining` units could follow at once.
    Accepted {
        /// Units that could follow at once.
        remaining: u64,
    },
    /// Come back after this time; then the same request is accepted if nobody else was.
    Refused {
        /// The exact time to wait.
        retry_after: Duration,
    },
}

/// One limiter. Times are nanoseconds of any monotonic clock that the caller always uses.
#[derive(Debug, Default)]
pub struct Gcra {
    tat_nanos: AtomicU64,
}

impl Gcra {
    /// A limiter that owes nothing.
    pub const fn new() -> Self {
        Self { tat_nanos: AtomicU64::new(0) }
    }

    /// Asks for `units` at `now_nanos`.
    pub fn request(&self, rate: Rate, units: u64, now_nanos: u64) -> Decision {
        let cost = nanos_for(units, rate);
        let burst = nanos_for(rate.burst_units, rate);
        let mut tat = self.tat_nanos.load(Ordering::Relaxed);
        loop {
            let start = tat.max(now_nanos);
            let next = start.saturating_add(cost);
            // What may be owed afterwards: the burst, or this request alone if it is larger.
            let allowed = now_nanos.saturating_add(burst.max(cost));
            if next > allowed {
                return Decision::Refused { retry_after: Duration::from_nanos(next - allowed) };
            }
            match self.tat_nanos.compare_exchange_weak(tat, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let left = now_nanos.saturating_add(burst).saturating_sub(next);
                    return Decision::Accepted { remaining: units_in(left, rate) };
                }
                Err(current) => tat = current,
            }
        }
    }

    /// Books units that were used already, e.g. bytes of an answer; later requests pay for them.
    pub fn charge(&self, rate: Rate, units: u64, now_nanos: u64) {
        let cost = nanos_for(units, rate);
        let _ = self
            .tat_nanos
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tat| Some(tat.max(now_nanos).saturating_add(cost)));
    }

    /// Gives back units that were taken and not used.
    pub fn refund(&self, rate: Rate, units: u64) {
        let cost = nanos_for(units, rate);
        let _ = self.tat_nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tat| Some(tat.saturating_sub(cost)));
    }
}

fn nanos_for(units: u64, rate: Rate) -> u64 {
    let nanos = (u128::from(units) * NANOS).div_ceil(u128::from(rate.units_per_second.max(1)));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

fn units_in(nanos: u64, rate: Rate) -> u64 {
    u64::try_from(u128::from(nanos) * u128::from(rate.units_per_second.max(1)) / NANOS).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { units_per_second: 1000, burst_units: 100 };
    const MS: u64 = 1_000_000;

    #[test]
    fn the_burst_is_free_and_the_rest_is_paid_by_time() {
        let limiter = Gcra::new();
        assert_eq!(limiter.request(RATE, 100, 0), Decision::Accepted { remaining: 0 });
        assert_eq!(limiter.request(RATE, 1, 0), Decision::Refused { retry_after: Duration::from_millis(1) });
        assert_eq!(limiter.request(RATE, 1, MS), Decision::Accepted { remaining: 0 });
    }

    #[test]
    fn obeying_retry_after_is_enough() {
        let limiter = Gcra::new();
        let mut now = 0;
        for _ in 0..1000 {
            if let Decision::Refused { retry_after } = limiter.request(RATE, 37, now) {
                now += retry_after.as_nanos() as u64;
                assert!(matches!(limiter.request(RATE, 37, now), Decision::Accepted { .. }));
            }
        }
    }

    #[test]
    fn a_request_above_the_burst_goes_into_debt() {
        let limiter = Gcra::new();
        assert!(matches!(limiter.request(RATE, 500, 0), Decision::Accepted { .. }));
        assert_eq!(limiter.request(RATE, 100, 0), Decision::Refused { retry_after: Duration::from_millis(500) });
    }

    #[test]
    fn over_ten_seconds_no_more_than_rate_and_burst_passes() {
        let limiter = Gcra::new();
        let mut accepted = 0;
        for step in 0..100_000u64 {
            if matches!(limiter.request(RATE, 7, step * MS / 10), Decision::Accepted { .. }) {
                accepted += 7;
            }
        }
        assert!((9_990..=10_100).contains(&accepted), "{accepted}");
    }
}
