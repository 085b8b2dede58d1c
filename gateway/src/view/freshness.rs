//! Whether the view may be old because this process was stopped, and a short wait for it to catch up if so.
//!
//! A process that was stopped (SIGSTOP, a paused machine) wakes up with a view of long ago and would serve revoked keys and
//! deleted topics. A tick that is overdue gives it away: then calls wait, at most 2 s, for a fetch of `sluice.control` that
//! was sent after the awakening. A gateway that runs and cannot reach Kafka serves on from memory; after 5 s it is flagged.
//! Before the view was loaded once, nothing is served: names would be NOT_FOUND that are only not known yet.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use sluice_types::Reason;
use sluice_types::error::Error;

/// How often a running process ticks.
const TICK: Duration = Duration::from_millis(200);
/// A tick overdue by this much: the process was stopped.
const STOPPED_AFTER: Duration = Duration::from_secs(1);
/// A view younger than this is served without waiting, even after a stop.
const AGE_MAX: Duration = Duration::from_secs(2);
/// How long calls wait for the view to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);
/// Without a successful fetch for this long (of running time) the gateway counts as cut off.
pub const CUT_OFF_AFTER: Duration = Duration::from_secs(5);

/// How old the view is; clones are the same.
#[derive(Clone)]
pub struct Freshness(Arc<Shared>);

struct Shared {
    /// The view was loaded once.
    servable: watch::Sender<bool>,
    /// When the fetch was sent whose answer the tables hold.
    as_of: watch::Sender<Option<Instant>>,
    ticks: Mutex<Ticks>,
}

struct Ticks {
    last: Instant,
    /// When the latest stop was noticed.
    woke: Option<Instant>,
}

impl Default for Freshness {
    fn default() -> Self {
        Self(Arc::new(Shared {
            servable: watch::Sender::new(false),
            as_of: watch::Sender::new(None),
            ticks: Mutex::new(Ticks { last: Instant::now(), woke: None }),
        }))
    }
}

impl Freshness {
    /// Ticks until the end of the process; run as a task.
    pub async fn tick(self) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.0.notice();
        }
    }

    /// The tables hold all that the log had when a fetch was sent at `asked`.
    pub fn seen(&self, asked: Instant) {
        self.0.as_of.send_if_modified(|as_of| {
            let newer = as_of.is_none_or(|as_of| as_of < asked);
            if newer {
                *as_of = Some(asked);
            }
            newer
        });
    }

    /// The view is loaded.
    pub fn set_servable(&self) {
        self.0.servable.send_if_modified(|servable| !std::mem::replace(servable, true));
    }

    /// Waits until the view is loaded.
    pub async fn servable(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.servable.subscribe().wait_for(|servable| *servable).await;
    }

    /// Age of what the tables hold; `None` before the first fetch.
    pub fn age(&self) -> Option<Duration> {
        self.0.as_of.borrow().map(|as_of| as_of.elapsed())
    }

    /// Returns at once, save after a stop of the process: then when the view has caught up, or after 2 s. UNAVAILABLE while
    /// the view is not loaded, after at most `patience`.
    pub async fn ensure(&self, patience: Duration) -> Result<(), Error> {
        let wait = CATCH_UP_MAX.min(patience);
        if !*self.0.servable.borrow() && tokio::time::timeout(wait, self.servable()).await.is_err() {
            return Err(Error::unavailable(Reason::RevisionBehind, "this gateway is starting; try again"));
        }
        let Some(woke) = self.0.notice() else { return Ok(()) };
        let fresh = |as_of: &Option<Instant>| as_of.is_none_or(|as_of| as_of >= woke);
        let mut changes = self.0.as_of.subscribe();
        // Over time: cut off, and an old view is better than none.
        let _ = tokio::time::timeout_at(woke + CATCH_UP_MAX, changes.wait_for(fresh)).await;
        Ok(())
    }
}

impl Shared {
    /// Ticks; gives the time of an awakening that the view has not caught up with yet.
    fn notice(&self) -> Option<Instant> {
        let now = Instant::now();
        let as_of = *self.as_of.borrow();
        let mut ticks = self.ticks.lock();
        let stopped = now.duration_since(ticks.last) > STOPPED_AFTER;
        ticks.last = now;
        if stopped && as_of.is_some_and(|as_of| now.duration_since(as_of) > AGE_MAX) {
            ticks.woke = Some(now);
        }
        let over = |woke: Instant| now.duration_since(woke) > CATCH_UP_MAX || as_of.is_none_or(|as_of| as_of >= woke);
        if ticks.woke.is_some_and(over) {
            ticks.woke = None;
        }
        ticks.woke
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded() -> Freshness {
        let freshness = Freshness::default();
        freshness.set_servable();
        freshness
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_served_before_the_view_was_loaded() {
        let freshness = Freshness::default();
        assert_eq!(
            freshness.ensure(CATCH_UP_MAX).await.expect_err("starting").kind,
            sluice_types::ErrorKind::Unavailable
        );
        let before = Instant::now();
        assert!(freshness.ensure(Duration::from_millis(300)).await.is_err());
        assert!(before.elapsed() < Duration::from_millis(310), "its caller would not have waited longer");
        freshness.set_servable();
        freshness.ensure(CATCH_UP_MAX).await.expect("loaded");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_ran_all_the_time_never_waits() {
        let freshness = loaded();
        let ticking = tokio::spawn(freshness.clone().tick());
        freshness.seen(Instant::now());
        tokio::time::sleep(Duration::from_secs(60)).await;
        let before = Instant::now();
        freshness.ensure(CATCH_UP_MAX).await.expect("servable");
        assert_eq!(before.elapsed(), Duration::ZERO, "Kafka is away, the process was not");
        ticking.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_stop_calls_wait_for_a_fetch_sent_after_it() {
        let freshness = loaded();
        freshness.seen(Instant::now());
        // Nobody ticks: as if stopped.
        tokio::time::advance(Duration::from_secs(20)).await;
        let before = Instant::now();
        let call = tokio::spawn({
            let freshness = freshness.clone();
            async move { freshness.ensure(CATCH_UP_MAX).await.expect("servable") }
        });
        tokio::task::yield_now().await;
        freshness.seen(before - Duration::from_secs(19));
        tokio::task::yield_now().await;
        assert!(!call.is_finished(), "an answer from before the stop proves nothing");
        freshness.seen(Instant::now());
        call.await.expect("no panic");
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_bounded() {
        let freshness = loaded();
        freshness.seen(Instant::now());
        tokio::time::advance(Duration::from_secs(20)).await;
        let before = Instant::now();
        freshness.0.notice();
        let ticking = tokio::spawn(freshness.clone().tick());
        let tolerance = Duration::from_millis(5);
        freshness.ensure(CATCH_UP_MAX).await.expect("servable");
        assert!((CATCH_UP_MAX..CATCH_UP_MAX + tolerance).contains(&before.elapsed()), "{:?}", before.elapsed());
        freshness.ensure(CATCH_UP_MAX).await.expect("servable");
        assert!(before.elapsed() < CATCH_UP_MAX + tolerance, "and does not begin again");
        ticking.abort();
    }
}
