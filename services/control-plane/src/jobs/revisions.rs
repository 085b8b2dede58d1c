//! Where changes were published, as far as this process knows: the control log's id, and the offsets of recent changes.
//!
//! Only a short cut: what is not here is read from the outbox.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use sluice_types::Revision;
use sluice_wire::KafkaTopicId;
use tokio::sync::watch;

/// Changes remembered.
const RECENT_MAX: usize = 10_000;

/// Where changes were published.
pub(crate) struct Revisions {
    log: watch::Sender<Option<KafkaTopicId>>,
    recent: RwLock<Recent>,
}

#[derive(Default)]
struct Recent {
    /// Offsets, by change.
    offsets: BTreeMap<i64, i64>,
    /// Behind the highest.
    end: i64,
}

impl Revisions {
    pub(crate) fn new() -> Self {
        Self { log: watch::Sender::new(None), recent: RwLock::default() }
    }

    /// The life of `sluice.control` that is published to, once known.
    pub(crate) fn log_id(&self) -> Option<KafkaTopicId> {
        *self.log.borrow()
    }

    /// Waits until the log is known.
    pub(crate) async fn log_ready(&self) -> KafkaTopicId {
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
    pub(crate) fn set_log(&self, id: KafkaTopicId) {
        let before = self.log.send_replace(Some(id));
        if before != Some(id) {
            *self.recent.write() = Recent::default();
        }
    }

    /// Remembers publications. False if they stand where earlier ones stood: the log was cut off, and those are gone. Then
    /// only the new ones are remembered.
    #[must_use]
    pub(crate) fn record(&self, ids: &[i64], offsets: &[i64]) -> bool {
        let mut recent = self.recent.write();
        let goes_on = offsets.iter().min().is_none_or(|first| *first >= recent.end);
        if !goes_on {
            *recent = Recent::default();
        }
        recent.end = offsets.iter().max().map_or(recent.end, |last| last + 1);
        recent.offsets.extend(ids.iter().copied().zip(offsets.iter().copied()));
        while recent.offsets.len() > RECENT_MAX {
            recent.offsets.pop_first();
        }
        goes_on
    }

    /// The offset of a change, if it is remembered.
    pub(crate) fn offset(&self, id: i64) -> Option<i64> {
        self.recent.read().offsets.get(&id).copied()
    }

    /// An offset as a revision; `None` while the log is not known.
    pub(crate) fn revision(&self, offset: i64) -> Option<Revision> {
        self.log_id().map(|id| Revision { topic_id: id.0, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_whose_offsets_come_again_was_cut_off() {
        let revisions = Revisions::new();
        revisions.set_log(KafkaTopicId([7; 16]));
        assert!(revisions.record(&[1, 2], &[10, 11]) && revisions.record(&[3], &[15]), "others write to it, too");
        assert!(!revisions.record(&[4], &[15]));
        assert_eq!((revisions.offset(2), revisions.offset(4)), (None, Some(15)));
        assert!(revisions.record(&[5], &[16]), "it is told once");
        revisions.set_log(KafkaTopicId([8; 16]));
        assert!(revisions.record(&[6], &[0]), "another log begins anew");
    }
}
