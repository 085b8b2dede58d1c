//! How calls and jobs wake one another. Losing a wake costs a poll interval, never a change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sluice_types::OperationUid;
use tokio::sync::watch;

/// Wakes, by cause.
pub(crate) struct Wakes {
    /// Something is in the outbox.
    pub(crate) outbox: Wake,
    /// The relay published something.
    pub(crate) published: Wake,
    /// An intent changed.
    pub(crate) intent: Wake,
    /// An operation ended.
    pub(crate) operation: OperationWake,
}

/// A counter that can be waited on; whoever subscribed before a wake sees it.
pub(crate) struct Wake(watch::Sender<u64>);

impl Wakes {
    pub(crate) fn new() -> Self {
        Self { outbox: Wake::new(), published: Wake::new(), intent: Wake::new(), operation: OperationWake::default() }
    }
}

impl Wake {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Wakes all that wait.
    pub(crate) fn wake(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Take this before looking at what one waits for.
    pub(crate) fn subscribe(&self) -> WakeReceiver {
        WakeReceiver(self.0.subscribe())
    }
}

/// One who waits.
pub(crate) struct WakeReceiver(watch::Receiver<u64>);

impl WakeReceiver {
    /// Until woken, at most so long.
    pub(crate) async fn sleep(&mut self, at_most: Duration) {
        // The sender lives as long as the plane; an error would only make this return early.
        let _ = tokio::time::timeout(at_most, self.0.changed()).await;
    }
}

/// A wake for each operation, so that the end of one does not make those look who wait for others. Holds those that are
/// waited for.
#[derive(Clone, Default)]
pub(crate) struct OperationWake(Arc<Mutex<HashMap<OperationUid, Wake>>>);

impl OperationWake {
    /// Wakes those that wait for this one.
    pub(crate) fn wake(&self, operation: OperationUid) {
        if let Some(wake) = self.0.lock().get(&operation) {
            wake.wake();
        }
    }

    /// Wakes all: any of them may have ended unheard.
    pub(crate) fn wake_all(&self) {
        self.0.lock().values().for_each(Wake::wake);
    }

    /// Take this before looking at the operation.
    pub(crate) fn subscribe(&self, operation: OperationUid) -> OperationWakeReceiver {
        let receiver = self.0.lock().entry(operation).or_insert_with(Wake::new).subscribe();
        OperationWakeReceiver { receiver, operation, wakes: self.clone() }
    }
}

/// One who waits for an operation.
pub(crate) struct OperationWakeReceiver {
    receiver: WakeReceiver,
    operation: OperationUid,
    wakes: OperationWake,
}

impl OperationWakeReceiver {
    /// Until woken, at most so long.
    pub(crate) async fn sleep(&mut self, at_most: Duration) {
        self.receiver.sleep(at_most).await;
    }
}

impl Drop for OperationWakeReceiver {
    fn drop(&mut self) {
        let mut wakes = self.wakes.0.lock();
        // Our own receiver still counts.
        if wakes.get(&self.operation).is_some_and(|wake| wake.0.receiver_count() <= 1) {
            wakes.remove(&self.operation);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_end_of_an_operation_wakes_those_that_wait_for_it_and_no_others() {
        let wakes = OperationWake::default();
        let (this, other) = (OperationUid::random(), OperationUid::random());
        let (mut first, mut second, mut stranger) =
            (wakes.subscribe(this), wakes.subscribe(this), wakes.subscribe(other));
        wakes.wake(this);
        let begun = Instant::now();
        first.sleep(LONG).await;
        second.sleep(LONG).await;
        assert!(begun.elapsed() < LONG);
        let begun = Instant::now();
        stranger.sleep(SHORT).await;
        assert!(begun.elapsed() >= SHORT, "another's end is no reason to look");
        wakes.wake_all();
        let begun = Instant::now();
        stranger.sleep(LONG).await;
        assert!(begun.elapsed() < LONG);
        drop((first, second, stranger));
        assert!(wakes.0.lock().is_empty());
    }
}
