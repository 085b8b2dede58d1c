//! Who waits where: the state behind one broker's tail polls, without I/O.
//!
//! One cursor per partition, because a fetch cannot carry two positions of one partition. It polls at the lowest
//! offset that somebody waits at. A cursor whose waiters were served stays for a moment at the offset after the
//! records, where its readers are about to come back. Cursors that changed are listed, so that thousands of idle ones
//! cost nothing however often the broker is polled.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::batch::header::BatchHeader;
use crate::error::{Error, Result};
use crate::fetch::Fetched;
use crate::types::KafkaTopicId;

/// How long a cursor without waiters is still polled for.
const LINGER: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) topic_id: KafkaTopicId,
    pub(super) partition: i32,
}

/// Where a log begins and ends, as of the last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) high_watermark: i64,
    pub(super) last_stable_offset: i64,
    pub(super) log_start_offset: i64,
}

/// What a waiter gets.
#[derive(Debug)]
pub(super) enum Outcome {
    Data(Fetched),
    /// The log has grown past the waiter's offset: read without waiting.
    Behind,
}

/// What to ask the broker for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) offset: i64,
    pub(super) max_bytes: u32,
    pub(super) epoch: i32,
}

struct Waiter {
    max_bytes: u32,
    reply: oneshot::Sender<Result<Outcome>>,
}

/// A waiter's place, to give it up by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    key: Key,
    offset: i64,
    number: u64,
}

struct Cursor {
    position: Position,
    marks: Option<Marks>,
    /// By offset, then in the order of coming.
    waiters: BTreeMap<(i64, u64), Waiter>,
    idle_since: Option<Instant>,
}

/// The cursors of one broker.
#[derive(Default)]
pub(super) struct Cursors {
    all: HashMap<Key, Cursor>,
    /// Those whose position may not be what the broker was told last, and those that are gone.
    changed: HashSet<Key>,
    /// Those without waiters, oldest first. An entry counts only while its cursor says the same.
    idle: VecDeque<(Instant, Key)>,
    next_number: u64,
}

impl Cursors {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Where a partition is to be polled.
    pub(super) fn offset(&self, key: Key) -> Option<i64> {
        self.all.get(&key).map(|cursor| cursor.position.offset)
    }

    pub(super) fn marks(&self, key: Key) -> Option<Marks> {
        self.all.get(&key).and_then(|cursor| cursor.marks)
    }

    /// Adds a waiter.
    pub(super) fn join(
        &mut self,
        key: Key,
        offset: i64,
        max_bytes: u32,
        epoch: i32,
        marks: Option<Marks>,
    ) -> (Seat, oneshot::Receiver<Result<Outcome>>) {
        let (reply, turn) = oneshot::channel();
        let seat = Seat { key, offset, number: self.next_number };
        self.next_number += 1;
        let cursor = self.all.entry(key).or_insert_with(|| Cursor {
            position: Position { offset, max_bytes, epoch },
            marks,
            waiters: BTreeMap::new(),
            idle_since: None,
        });
        let before = (cursor.position, cursor.waiters.is_empty());
        let position = &mut cursor.position;
        if cursor.waiters.is_empty() || offset < position.offset {
            (position.offset, position.max_bytes) = (offset, max_bytes);
        } else if offset == position.offset {
            position.max_bytes = position.max_bytes.min(max_bytes);
        }
        position.epoch = position.epoch.max(epoch);
        cursor.marks = marks.or(cursor.marks);
        cursor.idle_since = None;
        cursor.waiters.insert((offset, seat.number), Waiter { max_bytes, reply });
        if before != (cursor.position, false) {
            self.changed.insert(key);
        }
        (seat, turn)
    }

    /// A waiter goes away, served or not.
    pub(super) fn leave(&mut self, seat: Seat, now: Instant) {
        let Some(cursor) = self.all.get_mut(&seat.key) else { return };
        if cursor.waiters.remove(&(seat.offset, seat.number)).is_some() {
            self.settle(seat.key, now);
        }
    }

    /// Everything to be polled.
    pub(super) fn take_all(&mut self) -> Vec<(Key, Option<Position>)> {
        self.changed.clear();
        self.all.iter().map(|(&key, cursor)| (key, Some(cursor.position))).collect()
    }

    /// What changed since the last time; `None` is not to be polled any more.
    pub(super) fn take_changed(&mut self) -> Vec<(Key, Option<Position>)> {
        let position = |key| (key, self.all.get(&key).map(|cursor| cursor.position));
        self.changed.drain().map(position).collect()
    }

    /// What changed and is waited for.
    pub(super) fn changed(&self) -> impl Iterator<Item = (Key, Position)> {
        let waited_for = |key: &Key| self.all.get(key).filter(|cursor| !cursor.waiters.is_empty());
        self.changed.iter().filter_map(move |key| Some((*key, waited_for(key)?.position)))
    }

    /// Forgets cursors that nobody came back to.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(since, key)) = self.idle.front()
            && now.saturating_duration_since(since) >= LINGER
        {
            self.idle.pop_front();
            if self.all.get(&key).is_some_and(|cursor| cursor.idle_since == Some(since)) {
                self.remove(key);
            }
        }
    }

    /// Hands out what the broker said about a partition that was asked for at `asked_offset`.
    pub(super) fn answer(&mut self, key: Key, asked_offset: i64, answer: Result<Fetched>, now: Instant) {
        let Some(cursor) = self.all.get_mut(&key) else { return };
        let fetched = match answer {
            Ok(fetched) => fetched,
            // About a position nobody waits at any more.
            Err(_) if asked_offset != cursor.position.offset => return,
            Err(error) => return self.fail(key, &error),
        };
        cursor.marks = Some(Marks::of(&fetched));
        let Some(next_offset) = end_of(&fetched.batches) else { return };
        if asked_offset != cursor.position.offset {
            return;
        }
        if cursor.waiters.is_empty() {
            // Nobody came back for it; whoever still does reads it without waiting.
            return drop(self.remove(key));
        }
        cursor.position.offset = next_offset;
        let later = cursor.waiters.split_off(&(next_offset, 0));
        for ((offset, _), waiter) in std::mem::replace(&mut cursor.waiters, later) {
            let outcome = if offset == asked_offset { Outcome::Data(fetched.clone()) } else { Outcome::Behind };
            let _gone = waiter.reply.send(Ok(outcome));
        }
        self.settle(key, now);
        self.changed.insert(key);
    }

    fn fail(&mut self, key: Key, error: &Error) {
        for waiter in self.remove(key).into_iter().flat_map(|cursor| cursor.waiters.into_values()) {
            let _gone = waiter.reply.send(Err(error.clone()));
        }
    }

    /// The connection failed: everybody hears it and asks again, perhaps elsewhere.
    pub(super) fn fail_all(&mut self, error: &Error) {
        self.changed.clear();
        self.idle.clear();
        for waiter in self.all.drain().flat_map(|(_, cursor)| cursor.waiters.into_values()) {
            let _gone = waiter.reply.send(Err(error.clone()));
        }
    }

    fn remove(&mut self, key: Key) -> Option<Cursor> {
        self.changed.insert(key);
        self.all.remove(&key)
    }

    /// Puts the position where the lowest waiter is. Without waiters it stays, for a while.
    fn settle(&mut self, key: Key, now: Instant) {
        let Some(cursor) = self.all.get_mut(&key) else { return };
        match cursor.waiters.first_key_value() {
            Some((&(offset, _), _)) if offset == cursor.position.offset => {}
            Some((&(offset, _), _)) => {
                let at_offset = cursor.waiters.range((offset, 0)..=(offset, u64::MAX));
                cursor.position.max_bytes = at_offset.map(|(_, waiter)| waiter.max_bytes).min().unwrap_or(1);
                cursor.position.offset = offset;
                self.changed.insert(key);
            }
            None => {
                cursor.idle_since = Some(now);
                self.idle.push_back((now, key));
            }
        }
    }
}

/// Offset after the last complete batch; `None` if there is none.
fn end_of(batches: &Bytes) -> Option<i64> {
    let mut rest = &batches[..];
    let mut end = None;
    while let Some(header) = BatchHeader::read(rest).filter(|header| header.size_bytes <= rest.len()) {
        end = Some(header.last_offset().saturating_add(1));
        rest = &rest[header.size_bytes..];
    }
    end
}

#[cfg(test)]
#[path = "cursors_tests.rs"]
mod tests;
