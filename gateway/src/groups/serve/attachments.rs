//! Attachments of doors at other gateways, which may not get all that they are sent.
//!
//! What was sent is known until the door has taken it, and for a while after the attachment is over: a door whose connection broke says
//! how many messages it has taken, and the rest is handed back. A door that says nothing has died: its client may have the records.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::oneshot;

use sluice_types::GroupUid;

use crate::groups::model::LeaseKey;

/// A door notices within seconds that its connection broke, and says so for some seconds more.
const KEPT: Duration = Duration::from_secs(30);

type Key = (GroupUid, String);

/// The attachments by their names; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Attachments(Arc<DashMap<Key, oneshot::Sender<u64>>>);

impl Attachments {
    /// One that begins. Without a name, nobody says what of it did not arrive.
    pub(super) fn begin(&self, group: GroupUid, attachment_id: String) -> Named {
        let key = (group, attachment_id);
        let word = (!key.1.is_empty()).then(|| {
            let (sender, word) = oneshot::channel();
            self.0.insert(key.clone(), sender);
            word
        });
        Named { all: self.clone(), key, word, taken: None }
    }

    /// The attachment is over for its door, which has taken so many messages of it.
    pub(super) fn unheard(&self, group: GroupUid, attachment_id: String, taken: u64) {
        if let Some((_, sender)) = self.0.remove(&(group, attachment_id)) {
            // It has ended meanwhile, with nothing left.
            let _ended = sender.send(taken);
        }
    }
}

/// One attachment; known by its name until this is dropped.
pub(super) struct Named {
    all: Attachments,
    key: Key,
    /// Until it has come.
    word: Option<oneshot::Receiver<u64>>,
    taken: Option<u64>,
}

impl Named {
    /// Waits until the door says that the attachment is over; for ever, if it has no name.
    pub(super) async fn is_over(&mut self) {
        let Some(word) = &mut self.word else { return std::future::pending().await };
        self.taken = word.await.ok();
        self.word = None;
    }

    /// Waits for how many messages the door has taken; absent if it does not say so in time.
    pub(super) async fn taken(mut self) -> Option<u64> {
        if self.word.is_some() {
            let _late = tokio::time::timeout(KEPT, self.is_over()).await;
        }
        self.taken
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.all.0.remove(&self.key);
    }
}

/// What was sent on one attachment and is not known to be taken.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Messages that the door has taken.
    taken: u64,
    /// The leases of each message behind those.
    ahead: VecDeque<Vec<LeaseKey>>,
}

impl Sent {
    pub(super) fn sent(&mut self, leases: Vec<LeaseKey>) {
        self.ahead.push_back(leases);
    }

    /// The door has taken so many more.
    pub(super) fn taken(&mut self, more: usize) {
        let more = more.min(self.ahead.len());
        self.ahead.drain(..more);
        self.taken += more as u64;
    }

    /// Messages that are not known to be taken.
    pub(super) fn ahead(&self) -> usize {
        self.ahead.len()
    }

    pub(super) fn has_leases(&self) -> bool {
        self.ahead.iter().any(|leases| !leases.is_empty())
    }

    /// The leases behind so many messages from the first one on; none, if it is not known how many the door has.
    pub(super) fn behind(mut self, taken: Option<u64>) -> Vec<LeaseKey> {
        let Some(taken) = taken else { return Vec::new() };
        self.taken(usize::try_from(taken.saturating_sub(self.taken)).unwrap_or(usize::MAX));
        self.ahead.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use sluice_types::TopicUid;

    use super::*;

    fn lease(offset: i64) -> LeaseKey {
        LeaseKey { topic: TopicUid::random(), partition: 0, offset, term: 1, attempt: 1 }
    }

    #[test]
    fn only_what_is_behind_the_last_message_taken_goes_back() {
        let leases: Vec<LeaseKey> = (0..4).map(lease).collect();
        let sent = |reported| {
            let mut sent = Sent::default();
            sent.sent(vec![leases[0]]);
            sent.sent(Vec::new());
            sent.sent(vec![leases[1], leases[2]]);
            sent.sent(vec![leases[3]]);
            sent.taken(reported);
            sent
        };
        assert_eq!((sent(1).ahead(), sent(1).has_leases()), (3, true));
        assert_eq!(sent(1).behind(Some(2)), leases[1..]);
        assert_eq!(sent(1).behind(Some(3)), leases[3..]);
        assert_eq!(sent(3).behind(Some(0)), leases[3..], "what was reported was taken");
        assert_eq!(sent(1).behind(Some(9)), []);
        assert_eq!(sent(1).behind(None), [], "a door that died may have passed them on");
        assert_eq!((sent(9).ahead(), sent(4).has_leases()), (0, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_door_may_speak_up_before_the_end_is_noticed_or_within_a_while() {
        let (all, group) = (Attachments::default(), GroupUid::random());
        let mut first = all.begin(group, "first".into());
        all.unheard(GroupUid::random(), "first".into(), 1);
        all.unheard(group, "first".into(), 2);
        first.is_over().await;
        assert_eq!(first.taken().await, Some(2));
        let second = tokio::spawn(all.begin(group, "second".into()).taken());
        tokio::time::sleep(KEPT / 2).await;
        all.unheard(group, "second".into(), 3);
        assert_eq!(second.await.expect("no panic"), Some(3));
        assert_eq!(all.begin(group, "third".into()).taken().await, None);
        assert_eq!(all.begin(group, String::new()).taken().await, None);
        assert!(all.0.is_empty());
    }
}
