//! The delivery window of one partition of a group: what was read, who has it, what is done, what may be committed.
//!
//! Pure state: no I/O, no clock (time comes in), no payloads (they are read again when a record is due once more). Its promises:
//!
//! - [`Window::snapshot`] never passes a record that is not done, and what it says is done is never offered again after
//!   [`Window::restore`].
//! - A lease is good for one attempt: whoever comes with another attempt than the current one is told `Stale`. A delivery that
//!   ends in a refusal or at its deadline is a *failure*, one that its receiver gave back is a *release*; attempt = failures +
//!   releases + 1. A lease that nobody ended (the dispatcher went away, the client was never reached) is neither. Releases are
//!   not committed.
//! - Under key order at most one record of a key that is not done is anywhere but *blocked*: the lowest. A dead record counts as
//!   not done until it is dead-lettered. Records without a key, and all records of an unordered group, wait for nobody.
//! - A dead record stays in the window, and may live again, until its letter is about to be written ([`Window::begin_letter`]);
//!   from then on it is done or dead, never delivered.
//! - What retention took is counted, and the count outlives the window.
//! - Death is decided when a delivery fails. A record that comes back with all its failures (after a takeover, or because the
//!   policy was lowered) is delivered once more: more tries, never fewer.
//!
//! Every offset between [`Window::base`] and [`Window::next_read`] has a slot of 40 bytes; a window that holds none keeps less
//! than 1 KiB. Operations cost O(log n), also beside thousands of blocked or leased records; [`Window::snapshot`] looks at the
//! slots up to the last that is done or has failed, [`Window::figures`] up to the first that was delivered.

mod commit;
mod keys;
mod losing;
mod metadata;
mod policy;
mod reading;
mod schedule;
mod settling;
mod slots;
mod verdict;

#[cfg(test)]
mod history;
#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use commit::{Figures, Restored, Snapshot};
pub use losing::Skipped;
pub use policy::{Bounds, Millis, Policy};
pub use reading::Seen;
pub use verdict::{Acked, Dead, DeathReason, Lease, Ready, Refused};

use keys::Keys;
use schedule::Schedule;
use slots::{Slots, State};

/// See the module. One per partition of a group that is dispatched here.
#[derive(Debug)]
pub struct Window {
    policy: Policy,
    bounds: Bounds,
    slots: Slots,
    /// Where reading goes on; never below the base. Slots from here on are what a commit before us told.
    next_read: i64,
    /// Whether a bound was reached, until there is some room again.
    full: bool,
    /// Ready records that failed before.
    retries: BTreeSet<i64>,
    /// Ready records that never failed.
    fresh: BTreeSet<i64>,
    keys: Keys,
    schedule: Schedule,
    /// Dead and not yet dead-lettered, with why.
    dead: BTreeMap<i64, DeathReason>,
    /// Those of them whose letters are being written.
    dead_lettering: BTreeSet<i64>,
    /// What retention took before it was done.
    skipped: Option<Skipped>,
    sequence: u64,
    committed: u64,
}

impl Window {
    /// A window at a position of which nothing is committed: [`Window::snapshot`] offers it at once.
    pub fn start_at(offset: i64, policy: Policy, bounds: Bounds) -> Self {
        let mut window = Self::at(offset, policy, bounds);
        window.sequence = 1;
        window
    }

    fn at(offset: i64, policy: Policy, bounds: Bounds) -> Self {
        Self {
            policy,
            bounds: bounds.within_metadata(),
            slots: Slots::new(offset),
            next_read: offset,
            full: false,
            retries: BTreeSet::new(),
            fresh: BTreeSet::new(),
            keys: Keys::default(),
            schedule: Schedule::default(),
            dead: BTreeMap::new(),
            dead_lettering: BTreeSet::new(),
            skipped: None,
            sequence: 0,
            committed: 0,
        }
    }

    /// Takes a changed policy, for leases and failures to come. The ordering stays as it was. Dead records that have attempts
    /// left under it are ready again, unless their letters are being written.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = Policy { key_ordered: self.policy.key_ordered, ..policy };
        let dead: Vec<i64> = self.dead().map(|dead| dead.offset).collect();
        dead.into_iter().for_each(|offset| self.live_again(offset));
    }

    /// Everything below is done.
    pub fn base(&self) -> i64 {
        self.slots.base()
    }

    /// Deliverable now, in order: retries that are due, then records never delivered, each by offset.
    pub fn ready(&self) -> impl Iterator<Item = Ready> + '_ {
        self.retries.iter().chain(&self.fresh).filter_map(|&offset| {
            let slot = self.slots.get(offset)?;
            Some(Ready { offset, attempt: slot.attempt(), bytes: slot.bytes })
        })
    }

    /// When [`Window::tick`] has something to do next.
    pub fn wake_at(&self) -> Option<Millis> {
        self.schedule.next()
    }

    /// The number of the latest change. What was done until now is durable once a snapshot with this sequence or a later one is
    /// committed.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Takes a record out of whatever holds it in its state, before it gets another.
    fn leave(&mut self, offset: i64) {
        let Some(slot) = self.slots.get(offset) else { return };
        match slot.state {
            State::Ready if slot.failures > 0 => {
                self.retries.remove(&offset);
            }
            State::Ready => {
                self.fresh.remove(&offset);
            }
            State::Out | State::Waiting => self.schedule.unset(slot.at, offset),
            State::Dead => {
                self.dead.remove(&offset);
                self.dead_lettering.remove(&offset);
            }
            State::Unread | State::Blocked | State::Done => {}
        }
    }

    fn make_ready(&mut self, offset: i64) {
        self.leave(offset);
        let Some(slot) = self.slots.get(offset) else { return };
        let lane = if slot.failures > 0 { &mut self.retries } else { &mut self.fresh };
        lane.insert(offset);
        self.slots.set_state(offset, State::Ready);
    }

    /// Puts a record into a state that ends at a time.
    fn make_timed(&mut self, offset: i64, state: State, at: Millis) {
        self.leave(offset);
        self.slots.set_at(offset, at);
        self.slots.set_state(offset, state);
        self.schedule.set(at, offset);
    }

    /// Marks a record that was read as done; false if it was already, or is not in the window.
    fn finish(&mut self, offset: i64) -> bool {
        let Some(slot) = self.slots.get(offset).copied() else { return false };
        if matches!(slot.state, State::Unread | State::Done) {
            return false;
        }
        self.leave(offset);
        self.slots.set_state(offset, State::Done);
        // A blocked one is not the head of its key: those behind it wait for another.
        if slot.keyed
            && slot.state != State::Blocked
            && let Some(next) = self.keys.release(&self.slots, offset)
        {
            self.make_ready(next);
        }
        self.sequence += 1;
        self.settle();
        true
    }

    /// Moves the base over what is done.
    fn settle(&mut self) {
        self.slots.drop_done();
        self.next_read = self.next_read.max(self.slots.base());
        self.measure();
    }
}
