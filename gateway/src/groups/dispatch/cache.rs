//! Records that were read and not delivered yet.
//!
//! Records share the memory of the read they came with, which is free only when the last of them is gone: a read is therefore
//! counted whole until then, and given up whole.

use std::collections::BTreeMap;

use sluice_wire::Record;

use crate::groups::dispatch::budget::Charge;

/// What is counted for a record besides its bytes.
pub(super) const RECORD_OVERHEAD: usize = 160;

/// Records of one partition by offset.
#[derive(Debug, Default)]
pub(super) struct Cache {
    records: BTreeMap<i64, (u64, Record)>,
    reads: BTreeMap<u64, Held>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    left: usize,
    bytes: usize,
    _charge: Charge,
}

impl Cache {
    /// Adds records of one read that took `bytes`.
    pub(super) fn insert(&mut self, records: impl Iterator<Item = Record>, bytes: usize, charge: Charge) {
        let read = self.next;
        let mut left = 0;
        for record in records {
            let offset = record.offset;
            if let Some((before, _)) = self.records.insert(offset, (read, record)) {
                self.release(before);
            }
            left += 1;
        }
        if left > 0 {
            let bytes = bytes + left * RECORD_OVERHEAD;
            self.next += 1;
            self.bytes += bytes;
            self.reads.insert(read, Held { left, bytes, _charge: charge });
        }
    }

    pub(super) fn contains(&self, offset: i64) -> bool {
        self.records.contains_key(&offset)
    }

    pub(super) fn take(&mut self, offset: i64) -> Option<Record> {
        let (read, record) = self.records.remove(&offset)?;
        self.release(read);
        Some(record)
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Drops what is below an offset: it is done.
    pub(super) fn drop_below(&mut self, offset: i64) {
        while let Some((&first, _)) = self.records.first_key_value()
            && first < offset
        {
            self.take(first);
        }
    }

    /// Gives up the oldest read; false if there is none.
    pub(super) fn evict(&mut self) -> bool {
        let Some((&read, _)) = self.reads.first_key_value() else { return false };
        self.records.retain(|_, (of, _)| *of != read);
        if let Some(held) = self.reads.remove(&read) {
            self.bytes -= held.bytes;
        }
        true
    }

    pub(super) fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    fn release(&mut self, read: u64) {
        let Some(held) = self.reads.get_mut(&read) else { return };
        held.left -= 1;
        if held.left == 0 {
            self.bytes -= held.bytes;
            self.reads.remove(&read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::dispatch::budget::Budget;

    fn record(offset: i64) -> Record {
        Record {
            offset,
            timestamp_ms: 1,
            timestamp_type: sluice_wire::TimestampType::CreateTime,
            key: None,
            value: None,
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_read_is_counted_until_its_last_record_is_gone() {
        let budget = Budget::new(8 << 10);
        let mut cache = Cache::default();
        cache.insert([record(1), record(2)].into_iter(), 1_000, budget.try_charge(4 << 10).expect("free"));
        cache.insert([record(3)].into_iter(), 1_000, budget.try_charge(4 << 10).expect("free"));
        assert_eq!(cache.bytes(), 2_000 + 3 * RECORD_OVERHEAD);
        assert!(cache.take(1).is_some() && cache.take(1).is_none());
        assert!(budget.try_charge(1).is_none());
        assert!(cache.take(2).is_some());
        assert!(budget.try_charge(4 << 10).is_some());
        assert!(cache.evict() && !cache.evict());
        assert_eq!((cache.bytes(), cache.is_empty()), (0, true));
        assert!(budget.try_charge(8 << 10).is_some());
    }

    #[test]
    fn what_is_read_twice_is_held_once() {
        let budget = Budget::new(8 << 10);
        let mut cache = Cache::default();
        let charge = || budget.try_charge(1 << 10).expect("free");
        cache.insert([record(1), record(2)].into_iter(), 10, charge());
        cache.insert([record(1), record(2)].into_iter(), 10, charge());
        assert_eq!(cache.bytes(), 10 + 2 * RECORD_OVERHEAD);
        cache.drop_below(2);
        assert!(!cache.contains(1) && cache.contains(2));
        cache.clear();
        assert!(budget.try_charge(8 << 10).is_some());
    }
}
