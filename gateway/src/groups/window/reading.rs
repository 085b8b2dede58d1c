//! What reading the log brings into the window, and how far it may go.

use super::Window;
use super::slots::{Slot, State};

/// A record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Where.
    pub offset: i64,
    /// The hash of its key; absent: it has none.
    pub key: Option<u64>,
    /// Its size, for the bound of the window.
    pub bytes: u32,
}

impl Window {
    /// Where reading goes on.
    pub fn next_read(&self) -> i64 {
        self.next_read
    }

    /// Whether to read on. Once a bound is reached, not before an eighth of it is free again: a read costs too much to be for
    /// one record.
    pub fn has_room(&self) -> bool {
        !self.full
    }

    /// Takes a read of [`Window::next_read`] up to `until` (exclusive), in which these records are, ascending, and no others:
    /// offsets between them count as done. Records below `next_read` are known and skipped.
    ///
    /// Takes no more than the bounds allow, so `next_read`, which it returns, may be less than `until`: the next read begins
    /// *there*, or what lies between would count as absent from the log. It may also be more, if what follows is already done.
    pub fn read(&mut self, records: &[Seen], until: i64) -> i64 {
        for record in records.iter().take_while(|record| record.offset < until) {
            self.pass_over(record.offset);
            if record.offset > self.next_read || (record.offset == self.next_read && self.is_at_bound()) {
                self.measure();
                return self.next_read;
            }
            if record.offset == self.next_read {
                self.take(record);
            }
        }
        self.pass_over(until);
        self.measure();
        self.next_read
    }

    /// A record that was read is not for this group: it is done without a delivery.
    pub fn pass(&mut self, offset: i64) {
        self.finish(offset);
    }

    /// Takes the record at `next_read`. One that waited when the commit was made goes on waiting.
    fn take(&mut self, record: &Seen) {
        let offset = record.offset;
        self.next_read = offset + 1;
        self.slots.reach(offset);
        if self.slots.get(offset).is_some_and(|slot| slot.state == State::Done) {
            return;
        }
        let waits = self.slots.get(offset).and_then(Slot::waits);
        let key = record.key.filter(|_| self.policy.key_ordered);
        self.slots.fill(offset, key, record.bytes);
        if key.is_some_and(|key| self.keys.append(&mut self.slots, key, offset)) {
            self.slots.set_state(offset, State::Blocked);
        } else if let Some(at) = waits {
            self.make_timed(offset, State::Waiting, at);
        } else {
            self.make_ready(offset);
        }
    }

    /// Nothing is there up to this offset: it is done, as far as the window reaches.
    pub(super) fn pass_over(&mut self, until: i64) {
        if until <= self.next_read {
            return;
        }
        if self.next_read == self.base() {
            self.slots.drop_below(until);
            self.next_read = until;
            self.sequence += 1;
            self.settle();
            return;
        }
        let end = until.min(self.base().saturating_add(self.bounds.offsets_max));
        for offset in self.next_read..end {
            self.slots.reach(offset);
            self.slots.set_state(offset, State::Done);
        }
        self.next_read = self.next_read.max(end);
    }

    fn is_at_bound(&self) -> bool {
        self.next_read - self.base() >= self.bounds.offsets_max || self.slots.bytes() >= self.bounds.bytes_max
    }

    /// Looks whether the window is full.
    pub(super) fn measure(&mut self) {
        if self.is_at_bound() {
            self.full = true;
        } else if self.full {
            let (offsets, bytes) = (self.bounds.offsets_max, self.bounds.bytes_max);
            self.full = self.next_read - self.base() > offsets - offsets / 8 || self.slots.bytes() > bytes - bytes / 8;
        }
    }
}
