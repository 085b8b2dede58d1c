//! Chains of records of one key, so that each is done before the next is delivered.
//!
//! A chain runs over the slots, from the lowest record of the key that is not done, by distances; here are only the ends. Records
//! that are done out of turn (they were for another group) stay in their chain until it passes them.

use std::collections::HashMap;

use super::slots::{Slots, State};

/// A map larger than this gives its memory back when it is empty.
const KEPT: usize = 16;

/// The last record of every key in the window.
#[derive(Debug, Default)]
pub(super) struct Keys {
    ends: HashMap<u64, i64>,
}

impl Keys {
    /// Adds a record behind all others of its key; true if there is one that it has to wait for.
    pub(super) fn append(&mut self, slots: &mut Slots, key: u64, offset: i64) -> bool {
        let Some(end) = self.ends.insert(key, offset) else { return false };
        // A chain is within the window, whose span is below 2^16.
        slots.set_next(end, u16::try_from(offset - end).unwrap_or(u16::MAX));
        true
    }

    /// The first record of a chain is done: whose turn it is.
    pub(super) fn release(&mut self, slots: &Slots, first: i64) -> Option<i64> {
        let mut offset = first;
        loop {
            let slot = slots.get(offset)?;
            if slot.next == 0 {
                self.ends.remove(&slot.key);
                if self.ends.is_empty() && self.ends.capacity() > KEPT {
                    self.ends = HashMap::new();
                }
                return None;
            }
            offset += i64::from(slot.next);
            if slots.get(offset)?.state != State::Done {
                return Some(offset);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.ends.capacity()
    }
}
