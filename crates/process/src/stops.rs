//! The orderly end of a role: an ordered list of steps, each with a name and a time.
//!
//! A step that runs over is given up and named in the log, and the next one has its turn: a shutdown takes no longer than the sum
//! of the times.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use sluice_runtime::TaskSet;

use crate::listener::Serving;

/// What aborted tasks and cut connections get to let go; a listener waits twice 2 s for those that it cut.
const LETTING_GO: Duration = Duration::from_secs(5);

/// The steps, in their order.
#[derive(Default)]
#[must_use]
pub struct Stops(Vec<Step>);

struct Step {
    name: &'static str,
    limit: Duration,
    work: BoxFuture<'static, ()>,
}

impl Stops {
    /// No steps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Then this, within this time. The work begins when its turn comes.
    pub fn then(
        mut self,
        name: &'static str,
        limit: Duration,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.0.push(Step { name, limit, work: work.boxed() });
        self
    }

    /// Then this, which waits for nothing.
    pub fn at_once(self, name: &'static str, work: impl FnOnce() + Send + 'static) -> Self {
        self.then(name, Duration::ZERO, async move { work() })
    }

    /// Then wait until a listener that was told to close has finished its calls, which takes no longer than its drain.
    pub fn listener(self, serving: Serving) -> Self {
        let limit = serving.drain().saturating_add(LETTING_GO);
        self.then(serving.name(), limit, serving.closed())
    }

    /// Then tell the tasks to stop, unless they know, and wait for them; what runs past the time is aborted and named.
    pub fn tasks(self, tasks: &TaskSet, limit: Duration) -> Self {
        let tasks = tasks.clone();
        self.then("tasks", limit.saturating_add(LETTING_GO), async move {
            tasks.shutdown().cancel();
            let _ = tasks.drain(limit).await;
        })
    }

    /// Does them all.
    pub(crate) async fn run(self) {
        let began = Instant::now();
        for Step { name, limit, work } in self.0 {
            // Work that waits for nothing is done before the time is looked at.
            if tokio::time::timeout(limit, work).await.is_err() {
                tracing::error!(step = name, ?limit, "a step of the shutdown did not end in time");
            }
        }
        tracing::info!(took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), "drained");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn steps_are_done_in_their_order_and_one_that_hangs_does_not_keep_the_next_from_its_turn() {
        let done: Arc<Mutex<Vec<&str>>> = Arc::default();
        let note = |what: &'static str| {
            let done = Arc::clone(&done);
            move || done.lock().push(what)
        };
        let (slow, last) = (note("slow"), note("last"));
        let stops = Stops::new()
            .at_once("first", note("first"))
            .then("slow", Duration::from_secs(60), async move {
                tokio::task::yield_now().await;
                slow();
            })
            .then("hangs", Duration::from_millis(20), std::future::pending())
            .at_once("last", last);
        assert!(done.lock().is_empty(), "nothing begins before its turn");
        stops.run().await;
        assert_eq!(*done.lock(), ["first", "slow", "last"]);
    }

    #[tokio::test]
    async fn tasks_are_told_at_their_turn_and_those_that_do_not_listen_are_aborted() {
        let tasks = TaskSet::new("test", CancellationToken::new());
        let stop = tasks.shutdown();
        tasks.spawn_critical("listens", async move { stop.cancelled().await });
        tasks.spawn("deaf", std::future::pending::<()>());
        let stops = Stops::new().tasks(&tasks, Duration::from_millis(20));
        assert!(!tasks.shutdown().is_cancelled());
        stops.run().await;
        assert!(tasks.shutdown().is_cancelled());
        assert_eq!(tasks.failure(), None, "an orderly end");
    }
}
