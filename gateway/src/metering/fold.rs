//! Folding acknowledged offsets into intervals, and deliveries into sums.
//!
//! Promise: each offset is counted once; the intervals of a partition are disjoint, ascending, adjacent ones merged, and
//! their bytes are those of exactly their offsets.

use std::collections::{BTreeMap, HashMap};

use sluice_types::{NamespaceUid, TenantUid, TopicUid};

/// Intervals held at most, over all partitions; more are left uncovered.
const INTERVALS_MAX: usize = 1_000_000;

/// A partition of one life of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey {
    /// The tenant.
    pub tenant: TenantUid,
    /// The namespace.
    pub namespace: NamespaceUid,
    /// The topic.
    pub topic: TopicUid,
    /// The partition.
    pub partition: i32,
}

/// Usage not yet in a window.
#[derive(Debug, Default)]
pub struct Fold {
    produced: HashMap<PartitionKey, Intervals>,
    delivered: HashMap<PartitionKey, Delivered>,
    intervals: usize,
}

/// What was handed out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Records.
    pub records: u64,
    /// Logical bytes.
    pub bytes: u64,
}

/// `[start, end)` with the bytes of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// The first offset.
    pub start: i64,
    /// One behind the last.
    pub end: i64,
    /// Logical bytes.
    pub bytes: u64,
}

impl Fold {
    /// Counts acknowledged offsets. False: some are counted already, or too much is held; nothing was added.
    pub fn add(&mut self, key: PartitionKey, interval: Interval) -> bool {
        if self.intervals >= INTERVALS_MAX {
            return false;
        }
        match self.produced.entry(key).or_default().insert(interval) {
            Some(grown) => {
                self.intervals = self.intervals.saturating_add_signed(grown);
                true
            }
            None => false,
        }
    }

    /// Counts delivered records.
    pub fn delivered(&mut self, key: PartitionKey, records: u64, bytes: u64) {
        let sum = self.delivered.entry(key).or_default();
        sum.records += records;
        sum.bytes += bytes;
    }

    /// Adds another fold, later or earlier.
    pub fn merge(&mut self, other: Self) {
        for (key, intervals) in other.produced {
            for interval in intervals.iter() {
                self.add(key, interval);
            }
        }
        for (key, sum) in other.delivered {
            self.delivered(key, sum.records, sum.bytes);
        }
    }

    /// True: nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.produced.is_empty() && self.delivered.is_empty()
    }

    /// Takes at most so many intervals and sums out.
    pub fn split_off(&mut self, most: usize) -> Self {
        let mut taken = Self::default();
        let mut left = most;
        while left > 0 {
            let Some(key) = self.produced.keys().next().copied() else { break };
            let Some(intervals) = self.produced.remove(&key) else { break };
            for interval in intervals.iter() {
                match left {
                    0 => drop(self.produced.entry(key).or_default().insert(interval)),
                    _ => {
                        taken.add(key, interval);
                        self.intervals -= 1;
                        left -= 1;
                    }
                }
            }
        }
        while left > 0 {
            let Some(key) = self.delivered.keys().next().copied() else { break };
            let Some(sum) = self.delivered.remove(&key) else { break };
            taken.delivered.insert(key, sum);
            left -= 1;
        }
        taken
    }

    /// Intervals by partition, partitions in order.
    pub fn produced_sorted(&self) -> Vec<(PartitionKey, Vec<Interval>)> {
        let mut all: Vec<_> = self.produced.iter().map(|(key, intervals)| (*key, intervals.iter().collect())).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }

    /// Sums by partition, partitions in order.
    pub fn delivered_sorted(&self) -> Vec<(PartitionKey, Delivered)> {
        let mut all: Vec<_> = self.delivered.iter().map(|(key, sum)| (*key, *sum)).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}

/// Disjoint intervals by start.
#[derive(Debug, Default)]
struct Intervals(BTreeMap<i64, (i64, u64)>);

impl Intervals {
    /// Inserts a disjoint interval; the change in their number. `None`: it overlaps what is there, and is left out.
    fn insert(&mut self, new: Interval) -> Option<isize> {
        if new.start >= new.end {
            return None;
        }
        let before = self.0.range(..=new.start).next_back().map(|(start, (end, bytes))| (*start, *end, *bytes));
        if before.is_some_and(|(_, end, _)| end > new.start) {
            return None;
        }
        let after = self.0.range(new.start..).next().map(|(start, (end, bytes))| (*start, *end, *bytes));
        if after.is_some_and(|(start, ..)| start < new.end) {
            return None;
        }
        let (mut start, mut end, mut bytes, mut change) = (new.start, new.end, new.bytes, 1);
        if let Some((after_start, after_end, after_bytes)) = after.filter(|(start, ..)| *start == new.end) {
            self.0.remove(&after_start);
            (end, bytes, change) = (after_end, bytes + after_bytes, change - 1);
        }
        if let Some((before_start, _, before_bytes)) = before.filter(|(_, end, _)| *end == new.start) {
            (start, bytes, change) = (before_start, bytes + before_bytes, change - 1);
        }
        self.0.insert(start, (end, bytes));
        Some(change)
    }

    fn iter(&self) -> impl Iterator<Item = Interval> + '_ {
        self.0.iter().map(|(start, (end, bytes))| Interval { start: *start, end: *end, bytes: *bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(partition: i32) -> PartitionKey {
        use sluice_types::Uid;
        PartitionKey {
            tenant: TenantUid::from_uid(Uid::from_u64(1)),
            namespace: NamespaceUid::from_uid(Uid::from_u64(2)),
            topic: TopicUid::from_uid(Uid::from_u64(3)),
            partition,
        }
    }

    fn bytes_of(partition: i32, offset: i64) -> u64 {
        (partition as u64 + 1) * 1_000 + offset as u64
    }

    fn one(partition: i32, offset: i64) -> Interval {
        Interval { start: offset, end: offset + 1, bytes: bytes_of(partition, offset) }
    }

    /// Every offset with its bytes, as the intervals tell them.
    fn check(fold: &Fold, expected: &BTreeMap<(i32, i64), u64>) {
        let mut found = BTreeMap::new();
        for (key, intervals) in fold.produced_sorted() {
            for pair in intervals.windows(2) {
                assert!(pair[0].end < pair[1].start, "adjacent or overlapping: {pair:?}");
            }
            for interval in intervals {
                let sum: u64 = (interval.start..interval.end).map(|offset| bytes_of(key.partition, offset)).sum();
                assert_eq!(sum, interval.bytes, "{interval:?}");
                for offset in interval.start..interval.end {
                    found.insert((key.partition, offset), bytes_of(key.partition, offset));
                }
            }
        }
        assert_eq!(&found, expected);
        let intervals: usize = fold.produced.values().map(|intervals| intervals.0.len()).sum();
        assert_eq!(fold.intervals, intervals);
    }

    proptest! {
        #[test]
        fn each_offset_is_counted_once_in_whatever_order_and_however_split(
            offsets in prop::collection::vec((0..3i32, 0..60i64), 0..200),
            cut in 0..200usize,
            most in 1..8usize,
        ) {
            let (mut first, mut second) = (Fold::default(), Fold::default());
            let mut expected = BTreeMap::new();
            for (at, (partition, offset)) in offsets.into_iter().enumerate() {
                let fresh = expected.insert((partition, offset), bytes_of(partition, offset)).is_none();
                let fold = if at < cut { &mut first } else { &mut second };
                let counted = fold.add(key(partition), one(partition, offset));
                // The other fold may have it: then merging leaves it out.
                prop_assert!(counted || !fresh);
            }
            // Overlap between the folds is one offset at a time here, as in life.
            for (key, intervals) in second.produced_sorted() {
                for interval in intervals {
                    for offset in interval.start..interval.end {
                        first.add(key, one(key.partition, offset));
                    }
                }
            }
            check(&first, &expected);
            let mut again = Fold::default();
            while !first.is_empty() {
                let part = first.split_off(most);
                let intervals: usize = part.produced_sorted().iter().map(|(_, intervals)| intervals.len()).sum();
                prop_assert!(intervals <= most);
                again.merge(part);
            }
            check(&again, &expected);
        }
    }

    #[test]
    fn deliveries_add_up_and_survive_splitting() {
        let mut fold = Fold::default();
        for partition in 0..5 {
            fold.delivered(key(partition), 1, 10);
            fold.delivered(key(partition), 2, 5);
        }
        let part = fold.split_off(2);
        assert_eq!(part.delivered_sorted().len(), 2);
        fold.merge(part);
        assert_eq!(fold.delivered_sorted().len(), 5);
        assert!(fold.delivered_sorted().iter().all(|(_, sum)| *sum == Delivered { records: 3, bytes: 15 }));
    }
}
