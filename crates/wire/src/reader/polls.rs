//! What one broker is asked and what it knows: cursors, the fetch session, and whether the long poll is under way.
//! Without I/O.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::cursors::{Cursors, Key, Marks, Outcome, Position, Seat};
use super::session::Session;
use crate::codec::FetchRequestData;
use crate::error::{Error, Result};
use crate::fetch::Fetched;
use crate::types::Isolation;

/// The polls of one broker.
#[derive(Default)]
pub(super) struct Polls {
    cursors: Cursors,
    session: Session,
    /// The long poll is under way: new waiters need the short one.
    polling: bool,
}

/// Who must poll for a new waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nobody: the long poll under way sees a record at its offset.
    Nothing,
    /// The long poll, which is not under way.
    Long,
    /// The short poll, because the long one cannot be changed any more.
    Short,
}

impl Polls {
    pub(super) fn is_empty(&self) -> bool {
        self.cursors.is_empty()
    }

    pub(super) fn marks(&self, key: Key) -> Option<Marks> {
        self.cursors.marks(key)
    }

    /// True if the long poll under way would see a record at this offset.
    pub(super) fn polls_at(&self, key: Key, offset: i64) -> bool {
        self.cursors.offset(key) == Some(offset) && self.is_told(key, offset)
    }

    fn is_told(&self, key: Key, offset: i64) -> bool {
        self.polling && self.session.offset(key) == Some(offset)
    }

    /// Adds a waiter.
    pub(super) fn join(
        &mut self,
        key: Key,
        offset: i64,
        max_bytes: u32,
        epoch: i32,
        marks: Option<Marks>,
    ) -> (Seat, oneshot::Receiver<Result<Outcome>>, Needs) {
        let (seat, turn) = self.cursors.join(key, offset, max_bytes, epoch, marks);
        let is_told = self.cursors.offset(key).is_some_and(|offset| self.is_told(key, offset));
        let needs = match (is_told, self.polling) {
            (true, _) => Needs::Nothing,
            (false, false) => Needs::Long,
            (false, true) => Needs::Short,
        };
        (seat, turn, needs)
    }

    /// A waiter goes away, served or not.
    pub(super) fn leave(&mut self, seat: Seat) {
        self.cursors.leave(seat, Instant::now());
    }

    /// The next long poll, which is under way from now on; `None` if there is nothing to poll for.
    pub(super) fn begin(&mut self, isolation: Isolation, wait: Duration) -> Option<FetchRequestData> {
        self.cursors.expire(Instant::now());
        if self.cursors.is_empty() {
            return None;
        }
        let changes = if self.session.is_new() { self.cursors.take_all() } else { self.cursors.take_changed() };
        self.polling = true;
        Some(self.session.request(changes, isolation, wait))
    }

    /// The long poll under way has ended; the broker gave the session this id.
    pub(super) fn ended(&mut self, session_id: i32) {
        self.polling = false;
        self.session.advance(session_id);
    }

    /// The long poll under way has ended because the broker forgot the session.
    pub(super) fn forgotten(&mut self) {
        self.polling = false;
        self.session.reset();
    }

    /// The long poll under way has failed: everybody hears it.
    pub(super) fn failed(&mut self, error: &Error) {
        self.forgotten();
        self.cursors.fail_all(error);
    }

    /// The offset at which the long poll last asked for a partition.
    pub(super) fn asked(&self, key: Key) -> Option<i64> {
        self.session.offset(key)
    }

    /// Positions that somebody waits at and the long poll under way does not cover.
    pub(super) fn uncovered(&self) -> Vec<(Key, Position)> {
        if !self.polling {
            // The next one will.
            return Vec::new();
        }
        self.cursors.changed().filter(|(key, position)| !self.is_told(*key, position.offset)).collect()
    }

    /// Hands out what the broker said about a partition that was asked for at `asked`.
    pub(super) fn answer(&mut self, key: Key, asked: i64, answer: Result<Fetched>) {
        self.cursors.answer(key, asked, answer, Instant::now());
    }
}

#[cfg(test)]
#[path = "polls_tests.rs"]
mod tests;
