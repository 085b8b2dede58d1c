//! Up to which offset of `sluice.control` this gateway has applied everything and can serve it.
//!
//! Records enter the tables in order, but a topic that came into service also has to be servable, which takes a moment and
//! must not hold back the records behind it. So an offset may be *held*: the applied offset stays below the lowest held one
//! and moves on, without gaps, when holds are dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use sluice_types::Revision;

/// The applied offset; clones are the same.
#[derive(Clone)]
pub struct Applied(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    revision: watch::Sender<Option<Revision>>,
}

#[derive(Default)]
struct Inner {
    topic_id: [u8; 16],
    /// Grows when the log turns out to be another one: holds of the old one then mean nothing.
    epoch: u64,
    /// Everything below is in the tables.
    next: i64,
    /// Held offsets and how many hold each.
    held: BTreeMap<i64, u32>,
    /// See [`Applied::awaits_complete`].
    awaits_complete: Option<String>,
}

/// Keeps the applied offset below one offset until it is dropped.
pub struct Hold {
    shared: Arc<Shared>,
    epoch: u64,
    offset: i64,
}

impl Default for Applied {
    fn default() -> Self {
        Self(Arc::new(Shared { inner: Mutex::default(), revision: watch::Sender::new(None) }))
    }
}

impl Applied {
    /// Starts over with another log.
    pub fn reset(&self, topic_id: [u8; 16]) {
        self.start_over(topic_id, None);
    }

    /// Starts over with the same log. `awaits_complete` names the wait for it to be complete again, if it lost something.
    pub fn read_again(&self, awaits_complete: Option<String>) {
        self.start_over(self.topic_id(), awaits_complete);
    }

    fn start_over(&self, topic_id: [u8; 16], awaits_complete: Option<String>) {
        let mut inner = self.0.inner.lock();
        let epoch = inner.epoch + 1;
        *inner = Inner { topic_id, epoch, awaits_complete, ..Inner::default() };
        self.0.revision.send_replace(None);
    }

    /// The log was complete again.
    pub fn complete(&self) {
        self.0.inner.lock().awaits_complete = None;
    }

    /// The wait for the log to be complete again, which heartbeats tell to the control plane; `None` if there is none.
    pub fn awaits_complete(&self) -> Option<String> {
        self.0.inner.lock().awaits_complete.clone()
    }

    /// All records below `next` are in the tables.
    pub fn reached(&self, next: i64) {
        let mut inner = self.0.inner.lock();
        inner.next = inner.next.max(next);
        self.0.publish(&inner);
    }

    /// Keeps the applied offset below `offset` until the hold is dropped. Must come before `reached` passes it.
    pub fn hold(&self, offset: i64) -> Hold {
        let mut inner = self.0.inner.lock();
        *inner.held.entry(offset).or_default() += 1;
        Hold { shared: Arc::clone(&self.0), epoch: inner.epoch, offset }
    }

    /// The revision applied; `None` before the first.
    pub fn revision(&self) -> Option<Revision> {
        *self.0.revision.borrow()
    }

    /// The id of the log being followed; zeros before one is known.
    pub fn topic_id(&self) -> [u8; 16] {
        self.0.inner.lock().topic_id
    }

    /// Tells when the revision moves.
    pub fn subscribe(&self) -> watch::Receiver<Option<Revision>> {
        self.0.revision.subscribe()
    }

    /// Waits until `wanted` is applied; false if it is not by then. A revision of another log is not waited for: it cannot
    /// be compared.
    pub async fn wait_for(&self, wanted: Revision, timeout: Duration) -> bool {
        let reached = |applied: &Option<Revision>| {
            applied.is_some_and(|applied| applied.topic_id != wanted.topic_id || applied.offset >= wanted.offset)
        };
        let mut changes = self.subscribe();
        tokio::time::timeout(timeout, changes.wait_for(reached)).await.is_ok_and(|seen| seen.is_ok())
    }
}

impl Shared {
    fn publish(&self, inner: &Inner) {
        let below = inner.held.keys().next().map_or(inner.next, |held| inner.next.min(*held));
        if below <= 0 {
            return;
        }
        let revision = Revision { topic_id: inner.topic_id, offset: below - 1 };
        self.revision.send_if_modified(|current| {
            let moved = current.is_none_or(|c| c.topic_id != revision.topic_id || c.offset < revision.offset);
            if moved {
                *current = Some(revision);
            }
            moved
        });
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = self.shared.inner.lock();
        if inner.epoch != self.epoch {
            return;
        }
        if let Some(count) = inner.held.get_mut(&self.offset) {
            *count -= 1;
            if *count == 0 {
                inner.held.remove(&self.offset);
            }
        }
        self.shared.publish(&inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [7; 16];

    fn offset(applied: &Applied) -> Option<i64> {
        applied.revision().map(|revision| revision.offset)
    }

    #[test]
    fn the_offset_moves_without_gaps_while_topics_become_servable() {
        let applied = Applied::default();
        applied.reset(ID);
        assert_eq!(offset(&applied), None);
        let (second, first) = (applied.hold(4), applied.hold(2));
        applied.reached(10);
        assert_eq!(offset(&applied), Some(1));
        drop(second);
        assert_eq!(offset(&applied), Some(1), "2 is still held");
        drop(first);
        assert_eq!(offset(&applied), Some(9));
        applied.reached(5);
        assert_eq!(offset(&applied), Some(9), "it never goes back");
    }

    #[test]
    fn a_hold_of_an_old_log_means_nothing_for_the_new_one() {
        let applied = Applied::default();
        applied.reset(ID);
        let old = applied.hold(3);
        applied.reset([8; 16]);
        let new = applied.hold(3);
        applied.reached(9);
        drop(old);
        assert_eq!(applied.revision(), Some(Revision { topic_id: [8; 16], offset: 2 }));
        drop(new);
        assert_eq!(offset(&applied), Some(8));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_the_revision_comes_or_cannot_be_compared() {
        let applied = Applied::default();
        applied.reset(ID);
        applied.reached(1);
        let wait = Duration::from_secs(2);
        assert!(applied.wait_for(Revision { topic_id: [1; 16], offset: 99 }, wait).await);
        assert!(!applied.wait_for(Revision { topic_id: ID, offset: 1 }, wait).await);
        let waiter = tokio::spawn({
            let applied = applied.clone();
            async move { applied.wait_for(Revision { topic_id: ID, offset: 1 }, wait).await }
        });
        applied.reached(2);
        assert!(waiter.await.expect("no panic"));
    }
}
