//! What a batch of windows adds to what is stored: one deterministic fold, decided in memory, written in one transaction.
//!
//! Promises: a window is folded at most once (numbers per source), an offset is billed at most once (coverage), and what
//! is not folded is never lost in silence: a repeat is counted, a window that is jumped over or refused is a hole of its
//! source until it comes, an overlap is queued for a reread. The same windows in the same order give the same rows, from any
//! starting point.

use std::collections::BTreeMap;

use super::coverage::{Coverage, Interval, Verdict};
use super::source::Source;
use super::window::{Owner, PartitionKey, Window};

const HOUR_MS: i64 = 3_600_000;

/// What is stored of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Whose.
    pub owner: Owner,
    /// The counted spans, at least those near what will be offered.
    pub coverage: Coverage,
}

/// Key of an hourly row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HourKey {
    /// Which partition.
    pub key: PartitionKey,
    /// Hours since the epoch.
    pub hour: i64,
}

/// Quantities of an hourly row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Logical bytes written.
    pub ingress_bytes: u64,
    /// Records written.
    pub ingress_records: u64,
    /// Logical bytes handed out.
    pub egress_bytes: u64,
    /// Records handed out.
    pub egress_records: u64,
}

/// Offsets that the log must be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reread {
    /// Which partition.
    pub key: PartitionKey,
    /// Which offsets, and the bytes that were claimed.
    pub interval: Interval,
    /// Who claimed them.
    pub source: String,
    /// In which window.
    pub window: i64,
}

/// What became of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// It was added, and filled a hole or made so many windows missing.
    Added {
        /// Windows that were jumped over.
        jumped: u64,
    },
    /// It had been added before.
    Repeated,
    /// It names a partition as somebody else's than before: not added.
    WrongOwner(PartitionKey),
}

/// State before, and what the windows made of it.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    /// By name.
    pub sources: BTreeMap<String, Source>,
    /// What is stored of the partitions; those missing here are new.
    pub partitions: BTreeMap<PartitionKey, Partition>,
    /// What to add to the hourly rows.
    pub hours: BTreeMap<HourKey, Amounts>,
    /// What to add to the totals of counted offsets.
    pub counted: BTreeMap<PartitionKey, Counted>,
    /// What to queue.
    pub rereads: Vec<Reread>,
    /// Intervals that were counted before.
    pub repeated_intervals: u64,
}

/// What was newly counted of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Logical bytes.
    pub bytes: u64,
    /// Records.
    pub records: u64,
    /// The highest end of an interval; 0: none.
    pub end: i64,
}

impl Fold {
    /// Folds one window that was appended to the usage log at this time, which decides the hour: gateways have clocks of
    /// their own, the log has one.
    pub fn apply(&mut self, window: &Window, appended_ms: i64) -> Folded {
        let wrong_owner = self.wrong_owner(window);
        let source = self.sources.entry(window.source.clone()).or_default();
        source.last_seen_ms = source.last_seen_ms.max(appended_ms);
        source.ended |= window.last;
        if source.has(window.number) {
            return Folded::Repeated;
        }
        if let Some(key) = wrong_owner {
            source.refused(window.number);
            return Folded::WrongOwner(key);
        }
        let jumped = (window.number - source.highest_window - 1).max(0).unsigned_abs();
        source.came(window.number);
        self.add(window, appended_ms.div_euclid(HOUR_MS));
        Folded::Added { jumped }
    }

    fn wrong_owner(&self, window: &Window) -> Option<PartitionKey> {
        let known = |key| self.partitions.get(&key).map(|partition| partition.owner);
        window.partitions().find(|(key, owner)| known(*key).is_some_and(|known| known != *owner)).map(|(key, _)| key)
    }

    fn add(&mut self, window: &Window, hour: i64) {
        for produced in &window.produced {
            let new = || Partition { owner: produced.owner, coverage: Coverage::default() };
            let partition = self.partitions.entry(produced.key).or_insert_with(new);
            let amounts = self.hours.entry(HourKey { key: produced.key, hour }).or_default();
            let counted = self.counted.entry(produced.key).or_default();
            for interval in &produced.intervals {
                match partition.coverage.offer(*interval) {
                    Verdict::Added => {
                        amounts.ingress_bytes += interval.bytes();
                        amounts.ingress_records += interval.records();
                        counted.bytes += interval.bytes();
                        counted.records += interval.records();
                        counted.end = counted.end.max(interval.end());
                    }
                    Verdict::Repeated => self.repeated_intervals += 1,
                    Verdict::Overlapping => self.rereads.push(Reread {
                        key: produced.key,
                        interval: *interval,
                        source: window.source.clone(),
                        window: window.number,
                    }),
                }
            }
        }
        for delivered in &window.delivered {
            let new = || Partition { owner: delivered.owner, coverage: Coverage::default() };
            self.partitions.entry(delivered.key).or_insert_with(new);
            let amounts = self.hours.entry(HourKey { key: delivered.key, hour }).or_default();
            amounts.egress_bytes += delivered.bytes;
            amounts.egress_records += delivered.records;
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_types::{NamespaceUid, TenantUid, TopicUid};

    use super::super::window::{Delivered, Produced};
    use super::*;

    const KEY: PartitionKey = PartitionKey { topic: TopicUid::from_i64(3), partition: 0 };

    fn owner(tenant: i64) -> Owner {
        Owner { tenant: TenantUid::from_i64(tenant), namespace: NamespaceUid::from_i64(2) }
    }

    fn window(number: i64, intervals: &[(i64, i64)]) -> Window {
        let intervals = intervals.iter().map(|&(start, end)| Interval::new(start, end, 100).expect("test")).collect();
        Window {
            source: "gw/boot".into(),
            number,
            close_time_ms: 3_600_000,
            produced: vec![Produced { owner: owner(1), key: KEY, intervals }],
            delivered: vec![Delivered { owner: owner(1), key: KEY, bytes: 5, records: 1 }],
            last: false,
        }
    }

    fn hour(fold: &Fold) -> Amounts {
        fold.hours.values().copied().next().unwrap_or_default()
    }

    const ADDED: Folded = Folded::Added { jumped: 0 };

    fn apply(fold: &mut Fold, window: &Window) -> Folded {
        fold.apply(window, HOUR_MS)
    }

    #[test]
    fn a_repeated_window_adds_nothing() {
        let mut fold = Fold::default();
        assert_eq!(apply(&mut fold, &window(1, &[(0, 2)])), ADDED);
        let once = hour(&fold);
        assert_eq!(apply(&mut fold, &window(1, &[(0, 2)])), Folded::Repeated);
        assert_eq!(hour(&fold), once);
        assert_eq!(once, Amounts { ingress_bytes: 100, ingress_records: 2, egress_bytes: 5, egress_records: 1 });
    }

    #[test]
    fn a_missing_window_holds_nothing_back_and_counts_when_it_comes() {
        let mut fold = Fold::default();
        apply(&mut fold, &window(1, &[]));
        assert_eq!(apply(&mut fold, &window(4, &[(5, 6)])), Folded::Added { jumped: 2 });
        assert_eq!(apply(&mut fold, &window(5, &[(6, 7)])), ADDED);
        assert_eq!((hour(&fold).ingress_records, hour(&fold).egress_records), (2, 3));
        assert_eq!(fold.sources["gw/boot"].missing(), 2);
        for (number, at) in [(3, 4), (2, 3)] {
            assert_eq!(apply(&mut fold, &window(number, &[(at, at + 1)])), ADDED);
            assert_eq!(apply(&mut fold, &window(number, &[(at, at + 1)])), Folded::Repeated);
        }
        assert_eq!(fold.sources["gw/boot"].missing(), 0);
        assert_eq!((hour(&fold).ingress_records, hour(&fold).egress_records), (4, 5));
    }

    #[test]
    fn the_hour_is_that_of_the_log_whatever_the_gateways_clock_says() {
        let mut fold = Fold::default();
        let mut ahead = window(1, &[(0, 1)]);
        ahead.close_time_ms = 99 * HOUR_MS;
        fold.apply(&ahead, 5 * HOUR_MS + 1);
        assert_eq!(fold.hours.keys().map(|key| key.hour).collect::<Vec<_>>(), [5]);
        assert_eq!(fold.sources["gw/boot"].last_seen_ms, 5 * HOUR_MS + 1);
    }

    #[test]
    fn dropped_intervals_are_not_billed_and_overlaps_are_queued() {
        let mut fold = Fold::default();
        apply(&mut fold, &window(1, &[(0, 10)]));
        apply(&mut fold, &window(2, &[(2, 4), (8, 12), (20, 21)]));
        assert_eq!(hour(&fold).ingress_bytes, 200);
        assert_eq!(hour(&fold).ingress_records, 11);
        assert_eq!(fold.repeated_intervals, 1);
        assert_eq!(fold.rereads.len(), 1);
        assert_eq!((fold.rereads[0].interval.start(), fold.rereads[0].interval.end()), (8, 12));
        assert_eq!(fold.counted[&KEY], Counted { bytes: 200, records: 11, end: 21 });
    }

    #[test]
    fn a_partition_never_changes_its_owner_and_the_source_goes_on() {
        let mut fold = Fold::default();
        apply(&mut fold, &window(1, &[(0, 1)]));
        let mut stolen = window(2, &[(1, 2)]);
        stolen.produced[0].owner = owner(9);
        assert_eq!(apply(&mut fold, &stolen), Folded::WrongOwner(KEY));
        assert_eq!((fold.sources["gw/boot"].highest_window, fold.sources["gw/boot"].missing()), (2, 1));
        assert_eq!(hour(&fold).ingress_records, 1);
        assert_eq!(apply(&mut fold, &window(3, &[(2, 3)])), ADDED);
        assert_eq!(hour(&fold).ingress_records, 2);
    }
}
