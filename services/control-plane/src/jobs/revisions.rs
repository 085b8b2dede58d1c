//! Where changes were published, as far as this process knows: the control log's id, and the offsets of recent changes.
//!
//! Only a short cut: what is not here is read from the outbox.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use sluice_types::Revision;
use sluice_wire::TopicId;
use tokio::sync::watch;

/// Changes remembered.
const RECENT_MAX: usize = 10_000;

/// Where changes were published.
pub(crate) struct Revisions {
    log: watch::Sender<Option<TopicId>>,
    recent: RwLock<BTreeMap<i64, i64>>,
}

impl Revisions {
    pub(crate) fn new() -> Self {
        Self { log: watch::Sender::new(None), recent: RwLock::default() }
    }

    /// The life of `sluice.control` that is published to, once known.
    pub(crate) fn log_id(&self) -> Option<TopicId> {
        *self.log.borrow()
    }

    /// Waits until the log is known.
    pub(crate) async fn log_ready(&self) -> TopicId {
        let mut known = self.log.subscribe();
        loop {
            if let Some(id) = *known.borrow_and_update() {
                return id;
            }
            if known.changed().await.is_err() {
                // Cannot happen while `self` lives; waiting is the harmless answer.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The log is this one. Another one than before makes remembered offsets void.
    pub(crate) fn set_log(&self, id: TopicId) {
        let before = self.log.send_replace(Some(id));
        if before != Some(id) {
            self.recent.write().clear();
        }
    }

    /// Remembers publications.
    pub(crate) fn record(&self, ids: &[i64], offsets: &[i64]) {
        let mut recent = self.recent.write();
        recent.extend(ids.iter().copied().zip(offsets.iter().copied()));
        while recent.len() > RECENT_MAX {
            recent.pop_first();
        }
    }

    /// The offset of a change, if it is remembered.
    pub(crate) fn offset(&self, id: i64) -> Option<i64> {
        self.recent.read().get(&id).copied()
    }

    /// An offset as a revision; `None` while the log is not known.
    pub(crate) fn revision(&self, offset: i64) -> Option<Revision> {
        self.log_id().map(|id| Revision { topic_id: id.0, offset })
    }
}
