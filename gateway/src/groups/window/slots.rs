//! One slot per offset from the base on, and the sums over them.

use std::collections::VecDeque;

use super::Millis;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not read by this window; a commit told of its failures, or of those of a later one.
    Unread,
    /// Behind another record of its key.
    Blocked,
    /// To be leased.
    Ready,
    /// Leased.
    Out,
    /// Failed, waiting for its next delivery.
    Waiting,
    /// Failed for the last time, waiting to be dead-lettered.
    Dead,
    /// Acknowledged, dead-lettered, passed, or absent from the log.
    Done,
}

const STATES: usize = State::Done as usize + 1;
/// `Slot::first` of a record not yet delivered.
const NEVER: Millis = Millis::MIN;
/// A ring larger than this gives its memory back when it is empty.
const KEPT: usize = 16;

/// What is known of one offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// The hash of its key, if `keyed`.
    pub(super) key: u64,
    /// When its lease or its wait ends, in states `Out` and `Waiting`; in `Unread`, when the wait ends that a commit told of.
    pub(super) at: Millis,
    first: Millis,
    /// Its size.
    pub(super) bytes: u32,
    /// How many deliveries failed.
    pub(super) failures: u32,
    /// How far away the next record of its key is; 0: there is none yet.
    pub(super) next: u16,
    /// How many deliveries were released, which are no failures. Only this window knows them.
    pub(super) releases: u16,
    /// Where it stands.
    pub(super) state: State,
    /// Whether it is in order with others of its key.
    pub(super) keyed: bool,
}

impl Slot {
    const UNREAD: Self = Self {
        key: 0,
        at: 0,
        first: NEVER,
        bytes: 0,
        failures: 0,
        next: 0,
        releases: 0,
        state: State::Unread,
        keyed: false,
    };

    /// The attempt that its lease is or would be.
    pub(super) fn attempt(&self) -> u32 {
        self.failures.saturating_add(u32::from(self.releases)).saturating_add(1)
    }

    /// When its next delivery is due at the earliest, if it waits for that.
    pub(super) fn waits(&self) -> Option<Millis> {
        match self.state {
            State::Waiting => Some(self.at),
            State::Unread => Some(self.at).filter(|&at| at > 0 && self.failures > 0),
            _ => None,
        }
    }

    /// When it was first delivered.
    pub(super) fn first(&self) -> Option<Millis> {
        (self.first != NEVER).then_some(self.first)
    }
}

/// The slots, by offset.
#[derive(Debug)]
pub(super) struct Slots {
    base: i64,
    ring: VecDeque<Slot>,
    counts: [u32; STATES],
    /// Not done, with failures.
    failing: u32,
    /// Bytes of what was read and is not done.
    bytes: u64,
}

impl Slots {
    pub(super) fn new(base: i64) -> Self {
        Self { base, ring: VecDeque::new(), counts: [0; STATES], failing: 0, bytes: 0 }
    }

    pub(super) fn base(&self) -> i64 {
        self.base
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn failing(&self) -> u32 {
        self.failing
    }

    pub(super) fn count(&self, state: State) -> u32 {
        self.counts[state as usize]
    }

    /// All slots from the base on.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.ring.iter()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    fn index(&self, offset: i64) -> Option<usize> {
        usize::try_from(offset.checked_sub(self.base)?).ok()
    }

    pub(super) fn get(&self, offset: i64) -> Option<&Slot> {
        self.ring.get(self.index(offset)?)
    }

    fn get_mut(&mut self, offset: i64) -> Option<&mut Slot> {
        let index = self.index(offset)?;
        self.ring.get_mut(index)
    }

    /// Behind the last slot.
    pub(super) fn end(&self) -> i64 {
        self.base.saturating_add(i64::try_from(self.ring.len()).unwrap_or(i64::MAX))
    }

    /// Makes slots up to and with this offset.
    pub(super) fn reach(&mut self, offset: i64) {
        let Some(index) = self.index(offset) else { return };
        if let Some(more) = (index + 1).checked_sub(self.ring.len()) {
            self.ring.extend(std::iter::repeat_n(Slot::UNREAD, more));
            self.counts[State::Unread as usize] += u32::try_from(more).unwrap_or(u32::MAX);
        }
    }

    /// A record was read into its slot. Its state is for the caller to set.
    pub(super) fn fill(&mut self, offset: i64, key: Option<u64>, bytes: u32) {
        if let Some(slot) = self.get_mut(offset) {
            slot.keyed = key.is_some();
            slot.key = key.unwrap_or(0);
            slot.bytes = bytes;
            self.bytes += u64::from(bytes);
        }
    }

    pub(super) fn set_state(&mut self, offset: i64, state: State) {
        let Some(slot) = self.get_mut(offset) else { return };
        let before = std::mem::replace(&mut slot.state, state);
        let (bytes, failures) = (slot.bytes, slot.failures);
        self.counts[before as usize] -= 1;
        self.counts[state as usize] += 1;
        if state == State::Done && before != State::Done {
            self.bytes -= u64::from(bytes);
            self.failing -= u32::from(failures > 0);
        }
    }

    pub(super) fn set_at(&mut self, offset: i64, at: Millis) {
        if let Some(slot) = self.get_mut(offset) {
            slot.at = at;
        }
    }

    pub(super) fn set_next(&mut self, offset: i64, next: u16) {
        if let Some(slot) = self.get_mut(offset) {
            slot.next = next;
        }
    }

    /// A delivery begins.
    pub(super) fn delivered(&mut self, offset: i64, now: Millis) {
        if let Some(slot) = self.get_mut(offset)
            && slot.first == NEVER
        {
            slot.first = now;
        }
    }

    /// A delivery was none after all, or ended without a failure: if there was no other, the record counts as not delivered.
    pub(super) fn undelivered(&mut self, offset: i64) {
        if let Some(slot) = self.get_mut(offset)
            && slot.failures == 0
        {
            slot.first = NEVER;
        }
    }

    /// A delivery is released: how many were, with this one. None, and nothing is counted, once `most` were.
    pub(super) fn released(&mut self, offset: i64, most: u16) -> Option<u16> {
        let slot = self.get_mut(offset).filter(|slot| slot.releases < most)?;
        slot.releases += 1;
        Some(slot.releases)
    }

    /// Sets the failures of a record that is not done.
    pub(super) fn set_failures(&mut self, offset: i64, failures: u32) {
        let Some(slot) = self.get_mut(offset) else { return };
        let before = std::mem::replace(&mut slot.failures, failures);
        self.failing += u32::from(failures > 0);
        self.failing -= u32::from(before > 0);
    }

    /// Moves the base over all that is done in front.
    pub(super) fn drop_done(&mut self) {
        while self.ring.front().is_some_and(|slot| slot.state == State::Done) {
            self.drop_front();
        }
        self.shrink();
    }

    /// Moves the base to an offset, whatever the slots below it are. For slots that were not read.
    pub(super) fn drop_below(&mut self, offset: i64) {
        while self.base < offset && !self.ring.is_empty() {
            let front = self.base;
            self.set_state(front, State::Done);
            self.drop_front();
        }
        self.base = self.base.max(offset);
        self.shrink();
    }

    fn drop_front(&mut self) {
        if self.ring.pop_front().is_some() {
            self.counts[State::Done as usize] -= 1;
            self.base += 1;
        }
    }

    fn shrink(&mut self) {
        if self.ring.is_empty() && self.ring.capacity() > KEPT {
            self.ring = VecDeque::new();
        }
    }
}
