//! The tasks of a process: all named, none forgotten, all waited for at the end.
//!
//! A plain task may end whenever it likes. A critical task may not: its end, by return, error or panic, begins the
//! shutdown of the whole process and is remembered as the reason. [`TaskSet::drain`] says who did not stop in time.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long an aborted task may take to let go.
const ABORT_WAIT: Duration = Duration::from_secs(1);

/// How a task ended: `()` is well, an error is not.
pub trait Outcome: Send + 'static {
    /// The error, for the log.
    fn error(self) -> Option<String>;
}

impl Outcome for () {
    fn error(self) -> Option<String> {
        None
    }
}

impl<E: std::fmt::Display + Send + 'static> Outcome for Result<(), E> {
    fn error(self) -> Option<String> {
        self.err().map(|error| format!("{error:#}"))
    }
}

/// What draining found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainReport {
    /// Tasks that had to be aborted.
    pub late: Vec<&'static str>,
    /// Why the shutdown began, if a critical task began it.
    pub failure: Option<String>,
}

/// A set of named tasks under one shutdown token; clones are the same set.
#[derive(Clone, Debug)]
pub struct TaskSet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    shutdown: CancellationToken,
    tracker: TaskTracker,
    next: AtomicU64,
    running: Mutex<HashMap<u64, (&'static str, AbortHandle)>>,
    failure: Mutex<Option<String>>,
}

impl TaskSet {
    /// An empty set. `shutdown` tells the tasks to stop, and is cancelled when a critical one ends.
    pub fn new(name: &'static str, shutdown: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            name,
            shutdown,
            tracker: TaskTracker::new(),
            next: AtomicU64::new(0),
            running: Mutex::default(),
            failure: Mutex::default(),
        }))
    }

    /// The token that tells tasks to stop.
    pub fn shutdown(&self) -> CancellationToken {
        self.0.shutdown.clone()
    }

    /// Starts a task that may end at any time.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Outcome,
    {
        self.start(name, false, task);
    }

    /// Starts a task whose end before the shutdown shuts the process down.
    pub fn spawn_critical<F>(&self, name: &'static str, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Outcome,
    {
        self.start(name, true, task);
    }

    /// Why the shutdown began, if a critical task began it.
    pub fn failure(&self) -> Option<String> {
        self.0.failure.lock().clone()
    }

    /// Waits for all tasks after the shutdown began; those that run past `timeout` are aborted and named.
    pub async fn drain(self, timeout: Duration) -> DrainReport {
        let inner = &self.0;
        inner.tracker.close();
        let mut late = Vec::new();
        if tokio::time::timeout(timeout, inner.tracker.wait()).await.is_err() {
            for (name, handle) in inner.running.lock().values() {
                late.push(*name);
                handle.abort();
            }
            late.sort_unstable();
            tracing::warn!(set = inner.name, ?late, ?timeout, "tasks did not stop in time and are aborted");
            if tokio::time::timeout(ABORT_WAIT, inner.tracker.wait()).await.is_err() {
                tracing::error!(set = inner.name, "aborted tasks hold on");
            }
        }
        DrainReport { late, failure: self.failure() }
    }

    fn start<F>(&self, name: &'static str, critical: bool, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Outcome,
    {
        let inner = &self.0;
        let id = inner.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { inner: inner.clone(), id, name, critical };
        // Held until the entry is in: the task cannot take itself out before.
        let mut running = inner.running.lock();
        let handle = inner.tracker.spawn(async move {
            let entry = entry;
            let outcome = task.await;
            entry.ended(outcome.error());
        });
        running.insert(id, (name, handle.abort_handle()));
    }
}

/// A running task's place in its set; leaves it on return, panic and abort alike.
struct Entry {
    inner: Arc<Inner>,
    id: u64,
    name: &'static str,
    critical: bool,
}

impl Entry {
    fn ended(&self, error: Option<String>) {
        let (set, task) = (self.inner.name, self.name);
        if let Some(error) = &error {
            tracing::error!(set, task, %error, "task failed");
        }
        if self.critical && !self.inner.shutdown.is_cancelled() {
            let how = error.map_or_else(|| "ended".to_owned(), |error| format!("failed: {error}"));
            self.fail(format!("task {task} of {set} {how}"));
        }
    }

    fn fail(&self, reason: String) {
        tracing::error!(%reason, "shutdown begins");
        self.inner.failure.lock().get_or_insert(reason);
        self.inner.shutdown.cancel();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(set = self.inner.name, task = self.name, "task panicked");
            if self.critical {
                self.fail(format!("task {} of {} panicked", self.name, self.inner.name));
            }
        }
        self.inner.running.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> TaskSet {
        TaskSet::new("test", CancellationToken::new())
    }

    #[tokio::test]
    async fn the_end_of_a_critical_task_shuts_down_with_its_reason() {
        let tasks = set();
        tasks.spawn("plain", async {});
        tasks.spawn_critical("vital", async { Err::<(), _>("no more") });
        tasks.shutdown().cancelled().await;
        let report = tasks.drain(Duration::from_secs(5)).await;
        assert_eq!(report.failure.as_deref(), Some("task vital of test failed: no more"));
        assert!(report.late.is_empty());
    }

    #[tokio::test]
    async fn a_panic_of_a_critical_task_shuts_down() {
        let tasks = set();
        tasks.spawn_critical("vital", async {
            if true {
                panic!("as the test wants")
            }
        });
        tasks.shutdown().cancelled().await;
        assert_eq!(tasks.drain(Duration::from_secs(5)).await.failure.as_deref(), Some("task vital of test panicked"));
    }

    #[tokio::test]
    async fn an_orderly_end_is_no_failure_and_latecomers_are_named() {
        let tasks = set();
        let shutdown = tasks.shutdown();
        tasks.spawn_critical("good", async move { shutdown.cancelled().await });
        tasks.spawn("deaf", std::future::pending::<()>());
        tasks.shutdown().cancel();
        let report = tasks.drain(Duration::from_millis(50)).await;
        assert_eq!(report, DrainReport { late: vec!["deaf"], failure: None });
    }
}
