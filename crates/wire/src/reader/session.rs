//! Incremental fetch sessions (KIP-227): the broker remembers the positions, requests name only what changed.

use std::collections::HashMap;
use std::time::Duration;

use super::cursors::{Key, Position};
use crate::codec::{FetchRequestData, fetch_request, to_uuid};
use crate::types::{Isolation, KafkaTopicId};

/// Bytes of one tail answer over all partitions.
const ANSWER_BYTES_MAX: i32 = 8 * 1024 * 1024;
/// Bytes of one partition in it.
const PARTITION_BYTES_MAX: u32 = 1024 * 1024;
/// Epoch of a request outside any session.
const NO_SESSION: i32 = -1;

/// What the broker remembers.
#[derive(Default)]
pub(super) struct Session {
    id: i32,
    epoch: i32,
    known: HashMap<Key, Position>,
}

impl Session {
    /// True if the broker remembers nothing: the next request must name everything.
    pub(super) fn is_new(&self) -> bool {
        self.id == 0
    }

    /// The next request of this session. `changes` holds at least what is to be polled elsewhere than before, or no
    /// more; a new session is given everything.
    pub(super) fn request(
        &mut self,
        changes: Vec<(Key, Option<Position>)>,
        isolation: Isolation,
        wait: Duration,
    ) -> FetchRequestData {
        if self.is_new() {
            self.known.clear();
        }
        let (mut changed, mut forgotten) = (Vec::new(), Vec::new());
        for (key, position) in changes {
            match position {
                Some(position) if self.known.insert(key, position) != Some(position) => changed.push((key, position)),
                None if self.known.remove(&key).is_some() => forgotten.push(key),
                _ => {}
            }
        }
        FetchRequestData {
            session_id: self.id,
            session_epoch: self.epoch,
            topics: topics(changed.into_iter()),
            forgotten_topics_data: forget(forgotten.into_iter()),
            ..base(isolation, wait)
        }
    }

    /// The offset at which a partition was last asked for.
    pub(super) fn offset(&self, key: Key) -> Option<i64> {
        self.known.get(&key).map(|position| position.offset)
    }

    /// An answer came: the broker gave this session an id, or none if it has no room.
    pub(super) fn advance(&mut self, id: i32) {
        self.epoch = match (id, self.epoch) {
            (0, _) => 0,
            (_, i32::MAX) => 1,
            (_, epoch) => epoch + 1,
        };
        self.id = id;
    }

    /// Starts anew: the next request names everything.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A request outside any session.
pub(super) fn single_request(wanted: &[(Key, Position)], isolation: Isolation, wait: Duration) -> FetchRequestData {
    FetchRequestData { session_epoch: NO_SESSION, topics: topics(wanted.iter().copied()), ..base(isolation, wait) }
}

fn base(isolation: Isolation, wait: Duration) -> FetchRequestData {
    FetchRequestData {
        max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: 1,
        max_bytes: ANSWER_BYTES_MAX,
        isolation_level: isolation.wire(),
        ..Default::default()
    }
}

fn topics(positions: impl Iterator<Item = (Key, Position)>) -> Vec<fetch_request::FetchTopic> {
    let mut by_topic: HashMap<KafkaTopicId, Vec<fetch_request::FetchPartition>> = HashMap::new();
    for (key, position) in positions {
        by_topic.entry(key.topic_id).or_default().push(fetch_request::FetchPartition {
            partition: key.partition,
            current_leader_epoch: position.epoch,
            fetch_offset: position.offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: position.max_bytes.min(PARTITION_BYTES_MAX) as i32,
            ..Default::default()
        });
    }
    let topic =
        |(id, partitions)| fetch_request::FetchTopic { topic_id: to_uuid(id), partitions, ..Default::default() };
    by_topic.into_iter().map(topic).collect()
}

fn forget(keys: impl Iterator<Item = Key>) -> Vec<fetch_request::ForgottenTopic> {
    let mut by_topic: HashMap<KafkaTopicId, Vec<i32>> = HashMap::new();
    for key in keys {
        by_topic.entry(key.topic_id).or_default().push(key.partition);
    }
    let topic =
        |(id, partitions)| fetch_request::ForgottenTopic { topic_id: to_uuid(id), partitions, ..Default::default() };
    by_topic.into_iter().map(topic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(500);

    fn key(partition: i32) -> Key {
        Key { topic_id: KafkaTopicId([1; 16]), partition }
    }

    fn at(partition: i32, offset: i64) -> (Key, Option<Position>) {
        (key(partition), Some(Position { offset, max_bytes: 100, epoch: 0 }))
    }

    fn named(request: &FetchRequestData) -> Vec<i32> {
        request.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.partition).collect()
    }

    #[test]
    fn a_session_names_only_what_changed() {
        let mut session = Session::default();
        let full = session.request(vec![at(0, 5), at(1, 5)], Isolation::ReadCommitted, WAIT);
        assert_eq!((named(&full).len(), full.session_id, full.session_epoch), (2, 0, 0));
        session.advance(99);
        let changes = vec![at(0, 5), (key(1), None), at(2, 1), (key(3), None)];
        let next = session.request(changes, Isolation::ReadCommitted, WAIT);
        assert_eq!((named(&next), next.session_id, next.session_epoch), (vec![2], 99, 1));
        assert_eq!(next.forgotten_topics_data[0].partitions, [1]);
        session.advance(99);
        let quiet = session.request(Vec::new(), Isolation::ReadCommitted, WAIT);
        assert_eq!((named(&quiet).len(), quiet.session_epoch, session.offset(key(2))), (0, 2, Some(1)));
        session.reset();
        let again = session.request(vec![at(0, 5), at(2, 1)], Isolation::ReadCommitted, WAIT);
        assert_eq!((named(&again).len(), again.session_epoch), (2, 0));
    }

    #[test]
    fn without_room_at_the_broker_every_request_is_full() {
        let mut session = Session::default();
        for _ in 0..2 {
            let request = session.request(vec![at(0, 5)], Isolation::ReadCommitted, WAIT);
            assert_eq!((named(&request), request.session_epoch), (vec![0], 0));
            session.advance(0);
            assert_eq!(session.offset(key(0)), Some(5));
        }
    }
}
