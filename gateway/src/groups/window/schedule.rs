//! When leases and waits end.

use std::collections::BTreeSet;

use super::Millis;

/// Offsets by the time at which something is due with them, each at most once.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    times: BTreeSet<(Millis, i64)>,
}

impl Schedule {
    pub(super) fn set(&mut self, at: Millis, offset: i64) {
        self.times.insert((at, offset));
    }

    pub(super) fn unset(&mut self, at: Millis, offset: i64) {
        self.times.remove(&(at, offset));
    }

    /// The first time.
    pub(super) fn next(&self) -> Option<Millis> {
        self.times.first().map(|&(at, _)| at)
    }

    /// Takes one that is due.
    pub(super) fn pop(&mut self, now: Millis) -> Option<i64> {
        let &(at, offset) = self.times.first()?;
        if at > now {
            return None;
        }
        self.times.pop_first();
        Some(offset)
    }
}
