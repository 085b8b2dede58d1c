//! Who waits where: the state behind one broker's tail polls, without I/O.
//!
//! One cursor per partition, because a fetch cannot carry two positions of one partition. It polls at the lowest
//! offset that somebody waits at. A cursor whose waiters were served stays for a moment at the offset after the
//! records, where its readers are about to come back.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::batch::header::BatchHeader;
use crate::error::{Error, Result};
use crate::fetch::Fetched;
use crate::types::TopicId;

/// How long a cursor without waiters is still polled for.
const LINGER: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) topic_id: TopicId,
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
    offset: i64,
    max_bytes: u32,
    reply: oneshot::Sender<Result<Outcome>>,
}

struct Cursor {
    position: Position,
    marks: Option<Marks>,
    waiters: Vec<Waiter>,
    /// Offset at which the long poll under way asks for this partition.
    covered: Option<i64>,
    idle_since: Option<Instant>,
}

#[derive(Default)]
pub(super) struct Cursors(HashMap<Key, Cursor>);

impl Cursors {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if the long poll under way would see a record at this offset.
    pub(super) fn polls_at(&self, key: Key, offset: i64) -> bool {
        self.0.get(&key).is_some_and(|cursor| cursor.covered == Some(offset) && cursor.position.offset == offset)
    }

    pub(super) fn marks(&self, key: Key) -> Option<Marks> {
        self.0.get(&key).and_then(|cursor| cursor.marks)
    }

    /// Adds a waiter. True if no long poll under way covers it.
    pub(super) fn join(
        &mut self,
        key: Key,
        offset: i64,
        max_bytes: u32,
        epoch: i32,
        marks: Option<Marks>,
    ) -> (oneshot::Receiver<Result<Outcome>>, bool) {
        let (reply, turn) = oneshot::channel();
        let cursor = self.0.entry(key).or_insert_with(|| Cursor {
            position: Position { offset, max_bytes, epoch },
            marks,
            waiters: Vec::new(),
            covered: None,
            idle_since: None,
        });
        cursor.position.epoch = cursor.position.epoch.max(epoch);
        cursor.marks = marks.or(cursor.marks);
        cursor.waiters.push(Waiter { offset, max_bytes, reply });
        cursor.settle();
        (turn, cursor.covered != Some(cursor.position.offset))
    }

    /// Every position for the long poll, which from now on covers them. Forgets whom nobody waits for any more.
    pub(super) fn take_all(&mut self, now: Instant) -> Vec<(Key, Position)> {
        self.0.retain(|_, cursor| {
            cursor.settle();
            cursor.idle_since.is_none_or(|since| now.saturating_duration_since(since) < LINGER)
        });
        let positions = self.0.iter_mut().map(|(&key, cursor)| {
            cursor.covered = Some(cursor.position.offset);
            (key, cursor.position)
        });
        positions.collect()
    }

    /// Positions that somebody waits at and the long poll under way does not cover.
    pub(super) fn uncovered(&mut self) -> Vec<(Key, Position)> {
        let open = self.0.iter_mut().filter_map(|(&key, cursor)| {
            cursor.settle();
            let covered = cursor.covered == Some(cursor.position.offset);
            (!covered && !cursor.waiters.is_empty()).then_some((key, cursor.position))
        });
        open.collect()
    }

    /// Hands out what the broker said about a partition that was asked for at `asked_offset`.
    pub(super) fn answer(&mut self, key: Key, asked_offset: i64, answer: Result<Fetched>) {
        let Some(cursor) = self.0.get_mut(&key) else { return };
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
            self.0.remove(&key);
            return;
        }
        cursor.position.offset = next_offset;
        for waiter in std::mem::take(&mut cursor.waiters) {
            if waiter.offset == asked_offset {
                let _gone = waiter.reply.send(Ok(Outcome::Data(fetched.clone())));
            } else if waiter.offset < next_offset {
                let _gone = waiter.reply.send(Ok(Outcome::Behind));
            } else {
                cursor.waiters.push(waiter);
            }
        }
        cursor.settle();
    }

    fn fail(&mut self, key: Key, error: &Error) {
        for waiter in self.0.remove(&key).into_iter().flat_map(|cursor| cursor.waiters) {
            let _gone = waiter.reply.send(Err(error.clone()));
        }
    }

    /// The connection failed: everybody hears it and asks again, perhaps elsewhere.
    pub(super) fn fail_all(&mut self, error: &Error) {
        for waiter in self.0.drain().flat_map(|(_, cursor)| cursor.waiters) {
            let _gone = waiter.reply.send(Err(error.clone()));
        }
    }

    /// The long poll ended: nothing is covered until the next begins.
    pub(super) fn uncover(&mut self) {
        for cursor in self.0.values_mut() {
            cursor.covered = None;
        }
    }
}

impl Cursor {
    /// Drops waiters that went away and puts the position where the lowest of the others waits.
    fn settle(&mut self) {
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
        match self.waiters.iter().map(|waiter| waiter.offset).min() {
            Some(offset) => {
                let at_offset = self.waiters.iter().filter(|waiter| waiter.offset == offset);
                self.position.max_bytes = at_offset.map(|waiter| waiter.max_bytes).min().unwrap_or(1);
                self.position.offset = offset;
                self.idle_since = None;
            }
            None => drop(self.idle_since.get_or_insert_with(Instant::now)),
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
