//! What of the window goes into a commit, how it comes back, and how it is shown.

use sluice_types::limits::BACKOFF_MS_MAX;

use super::metadata::{self, Contents, Failed, SPAN_MAX};
use super::slots::State;
use super::{Bounds, Millis, Policy, Window};

/// What to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Everything below is done.
    pub offset: i64,
    /// What is known above: at most 4,096 characters, empty if nothing.
    pub metadata: String,
    /// For [`Window::committed`].
    pub sequence: u64,
}

/// What the metadata of a commit told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// It was read.
    Read {
        /// Records done above the offset.
        acks: usize,
        /// Records with failures.
        attempts: usize,
    },
    /// It was not ours, or of another offset, or broken: all above the offset is delivered (again), as the first attempt.
    Unreadable,
}

/// How a window stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Offsets between the base and the next to be read.
    pub window_offsets: i64,
    /// Records under a lease.
    pub outstanding: i64,
    /// Records that wait after a failure.
    pub delayed: i64,
    /// Records that wait for an earlier one of their key.
    pub blocked: i64,
    /// Offsets above the base that are done.
    pub acked_ahead: i64,
    /// Records that could be delivered now.
    pub ready: i64,
    /// Records whose attempts are over and which are not dead-lettered.
    pub dead: i64,
    /// Bytes of records that are read and not done.
    pub bytes: u64,
    /// The lowest record that was delivered and is not done, with its first delivery by this dispatcher.
    pub oldest_unacked: Option<(i64, Millis)>,
}

impl Window {
    /// The window that a commit left behind. Records it told as done are not offered again; the others are new, and ready as
    /// soon as they are read, whatever lease they were under; one that waited for its next delivery goes on waiting, but never
    /// longer from `now` on than any wait may be. Any metadata is accepted.
    pub fn restore(offset: i64, metadata: &str, policy: Policy, bounds: Bounds, now: Millis) -> (Self, Restored) {
        let mut window = Self::at(offset, policy, bounds);
        let in_range = offset.checked_add(2 * i64::from(SPAN_MAX)).is_some();
        let Some(contents) = metadata::decode(offset, metadata).filter(|_| in_range) else {
            return (window, Restored::Unreadable);
        };
        let (mut acks, mut attempts) = (0, 0);
        for distance in contents.done() {
            let offset = offset + i64::from(distance);
            window.slots.reach(offset);
            window.slots.set_state(offset, State::Done);
            acks += 1;
        }
        for &Failed { distance, failures, waits } in &contents.failures {
            let offset = offset + i64::from(distance);
            window.slots.reach(offset);
            if window.slots.get(offset).is_some_and(|slot| slot.state == State::Unread) {
                window.slots.set_failures(offset, failures);
                let waits = waits.map(|at| at.min(now.saturating_add(BACKOFF_MS_MAX)));
                window.slots.set_at(offset, waits.unwrap_or(0));
                attempts += 1;
            }
        }
        window.skipped = contents.skipped;
        (window, Restored::Read { acks, attempts })
    }

    /// What to commit, if something changed since the latest commit.
    pub fn snapshot(&self) -> Option<Snapshot> {
        (self.sequence > self.committed).then(|| self.current())
    }

    /// What to commit, changed or not: Kafka forgets positions that are never committed again.
    pub fn current(&self) -> Snapshot {
        let offset = self.base();
        Snapshot { offset, metadata: metadata::encode(offset, &self.contents()), sequence: self.sequence }
    }

    /// A snapshot with this sequence is committed.
    pub fn committed(&mut self, sequence: u64) {
        self.committed = self.committed.max(sequence.min(self.sequence));
    }

    /// How the window stands.
    pub fn figures(&self) -> Figures {
        let count = |state| i64::from(self.slots.count(state));
        Figures {
            window_offsets: self.next_read - self.base(),
            outstanding: count(State::Out),
            delayed: count(State::Waiting),
            blocked: count(State::Blocked),
            acked_ahead: count(State::Done),
            ready: count(State::Ready),
            dead: count(State::Dead),
            bytes: self.slots.bytes(),
            oldest_unacked: self.oldest_unacked(),
        }
    }

    /// Records that are not done, of those that the log holds between these offsets.
    pub fn lag(&self, log_start: i64, end: i64) -> i64 {
        let from = self.base().max(log_start);
        let ahead = match from == self.base() {
            true => i64::from(self.slots.count(State::Done)),
            false => (from..self.slots.end().min(end)).filter(|&offset| self.is_done(offset)).count() as i64,
        };
        (end - from - ahead).max(0)
    }

    fn oldest_unacked(&self) -> Option<(i64, Millis)> {
        if self.slots.count(State::Out) == 0 && self.slots.failing() == 0 {
            return None;
        }
        (self.base()..)
            .zip(self.slots.iter())
            .filter(|(_, slot)| slot.state != State::Done)
            .find_map(|(offset, slot)| Some((offset, slot.first()?)))
    }

    fn contents(&self) -> Contents {
        let mut contents = Contents::of(self.skipped);
        let (mut done, mut failing) = (self.slots.count(State::Done), self.slots.failing());
        for (distance, slot) in (0u32..).zip(self.slots.iter()) {
            if done == 0 && failing == 0 {
                break;
            }
            if slot.state == State::Done {
                done -= 1;
                contents.set_done(distance);
            } else if slot.failures > 0 {
                failing -= 1;
                contents.failures.push(Failed { distance, failures: slot.failures, waits: slot.waits() });
            }
        }
        contents
    }
}
