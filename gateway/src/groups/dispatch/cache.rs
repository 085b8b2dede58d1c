//! Records that were read and not delivered yet.
//!
//! Records share the memory of the read they came with, which is free only when the last of them is gone: a read is therefore
//! counted whole until then, and given up whole. What is delivered takes a copy with it ([`own`]), so that no door holds a read.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

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
    /// Adds records of one read that holds `bytes`; charges those, and what is counted for each record.
    pub(super) fn insert(&mut self, records: impl Iterator<Item = Record>, bytes: usize, mut charge: Charge) {
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
            charge.set(bytes);
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

    /// Gives up the latest read, which is delivered last; gives its bytes.
    pub(super) fn evict(&mut self) -> Option<usize> {
        let (read, held) = self.reads.pop_last()?;
        self.records.retain(|_, (of, _)| *of != read);
        self.bytes -= held.bytes;
        Some(held.bytes)
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

/// Gives records memory of their own: one piece for all.
pub(super) fn own<'a>(records: impl IntoIterator<Item = &'a mut Record>) {
    let mut parts: Vec<&mut Bytes> = Vec::new();
    for record in records {
        parts.extend(record.key.as_mut());
        parts.extend(record.value.as_mut());
        for (name, value) in &mut record.headers {
            parts.push(name);
            parts.extend(value.as_mut());
        }
    }
    let mut copy = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| copy.extend_from_slice(part));
    let mut copy = copy.freeze();
    for part in parts {
        *part = copy.split_to(part.len());
    }
}

#[cfg(test)]
mod tests {
    use sluice_types::TenantUid;

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
        let account = Budget::new(8 << 10).open(TenantUid::random());
        let mut cache = Cache::default();
        cache.insert([record(1), record(2)].into_iter(), 1_000, account.try_charge(4 << 10).expect("free"));
        cache.insert([record(3)].into_iter(), 1_000, account.try_charge(4 << 10).expect("free"));
        assert_eq!(cache.bytes(), 2_000 + 3 * RECORD_OVERHEAD);
        assert_eq!(account.held(), cache.bytes(), "what is held, not what was asked for");
        assert!(cache.take(1).is_some() && cache.take(1).is_none());
        assert_eq!(account.held(), cache.bytes());
        assert!(cache.take(2).is_some());
        assert_eq!((cache.bytes(), account.held()), (1_000 + RECORD_OVERHEAD, 1_000 + RECORD_OVERHEAD));
        assert_eq!((cache.evict(), cache.evict()), (Some(1_000 + RECORD_OVERHEAD), None));
        assert_eq!((cache.bytes(), cache.is_empty(), account.held()), (0, true, 0));
    }

    #[test]
    fn what_is_read_twice_is_held_once() {
        let account = Budget::new(8 << 10).open(TenantUid::random());
        let mut cache = Cache::default();
        let charge = || account.try_charge(1 << 10).expect("free");
        cache.insert([record(1), record(2)].into_iter(), 10, charge());
        cache.insert([record(1), record(2)].into_iter(), 10, charge());
        assert_eq!(cache.bytes(), 10 + 2 * RECORD_OVERHEAD);
        cache.drop_below(2);
        assert!(!cache.contains(1) && cache.contains(2));
        cache.clear();
        assert_eq!(account.held(), 0);
    }

    #[test]
    fn what_is_delivered_does_not_hold_the_read_it_came_with() {
        let read = Bytes::from(vec![7; 1 << 16]);
        let mut records = [record(1), record(2)];
        records[0].key = Some(read.slice(..3));
        records[0].headers = vec![(read.slice(3..5), None), (read.slice(5..6), Some(read.slice(6..6)))];
        records[1].value = Some(read.slice(10..20));
        let before = records.clone();
        own(&mut records);
        assert_eq!(records, before);
        drop(before);
        assert!(read.is_unique());
    }
}
