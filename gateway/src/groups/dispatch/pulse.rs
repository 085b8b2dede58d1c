//! Notices that this process stood still (was stopped, or starved): what it believes of a time before that may be over.
//!
//! A gateway that is silent for two seconds may be replaced. One that wakes after that must hear from Kafka before it hands
//! anything out, however lately it was confirmed by the clock.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_millis(250);
/// Longer than a busy machine delays a tick, shorter than the silence after which somebody is replaced.
const STILL: Duration = Duration::from_millis(1_500);

/// The pulse of the process.
pub(super) struct Pulse(Mutex<State>);

struct State {
    last: Instant,
    woke: Instant,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { last: now, woke: now }))
    }

    /// Since when it has run without standing still.
    pub(super) fn awake_since(&self, now: Instant) -> Instant {
        let mut state = self.0.lock();
        if now.saturating_duration_since(state.last) > STILL {
            tracing::warn!(still = ?now.saturating_duration_since(state.last), "the process stood still");
            state.woke = now;
        }
        state.last = state.last.max(now);
        state.woke
    }

    /// Beats for ever.
    pub(super) async fn run(pulse: Arc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            pulse.awake_since(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_looks_first_after_a_stop_sees_it_and_it_stays_seen() {
        let start = Instant::now();
        let pulse = Pulse::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(pulse.awake_since(at(1_000)), start);
        assert_eq!(pulse.awake_since(at(2_400)), start);
        assert_eq!(pulse.awake_since(at(5_000)), at(5_000));
        assert_eq!(pulse.awake_since(at(5_100)), at(5_000));
        assert_eq!(pulse.awake_since(at(5_050)), at(5_000));
    }
}
