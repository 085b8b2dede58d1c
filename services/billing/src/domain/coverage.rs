//! Which offsets of one partition are counted, with their bytes.
//!
//! Promises: the spans are disjoint and never adjacent (two that meet become one), so "is this interval counted already" is
//! one look-up; every offset is counted at most once, whatever is offered how often. An interval that is counted in part
//! is refused as a whole, because its bytes cannot be split: the sealer reads those offsets from the log.

use std::collections::BTreeMap;

/// Offsets `[start, end)` with the logical bytes of their records; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    start: i64,
    end: i64,
    bytes: u64,
}

/// Not an interval: negative, or empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("offsets [{start}, {end}) are not an interval")]
pub struct IntervalError {
    start: i64,
    end: i64,
}

impl Interval {
    /// Checks `0 <= start < end`.
    pub fn new(start: i64, end: i64, bytes: u64) -> Result<Self, IntervalError> {
        if start < 0 || end <= start {
            return Err(IntervalError { start, end });
        }
        Ok(Self { start, end, bytes })
    }

    /// The first offset.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// One behind the last offset.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Logical bytes of its records.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many records: every offset of an interval is a record of ours.
    pub fn records(&self) -> u64 {
        self.end.abs_diff(self.start)
    }
}

/// What became of an interval that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// None of it was counted before; now all of it is.
    Added,
    /// All of it was counted before; nothing changed.
    Repeated,
    /// Some of it was counted before; nothing changed, the log must be asked.
    Overlapping,
}

/// The spans, or those of them that matter for what will be offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    spans: BTreeMap<i64, Interval>,
}

/// Stored spans that touch or overlap: never written by this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stored span at {start} is not apart from its neighbour")]
pub struct OverlapError {
    start: i64,
}

impl Coverage {
    /// From stored spans in any order.
    pub fn from_spans(stored: impl IntoIterator<Item = Interval>) -> Result<Self, OverlapError> {
        let mut coverage = Self::default();
        for span in stored {
            if coverage.reaching(span).next().is_some() {
                return Err(OverlapError { start: span.start });
            }
            coverage.spans.insert(span.start, span);
        }
        Ok(coverage)
    }

    /// Counts an interval if none of it is counted yet.
    pub fn offer(&mut self, interval: Interval) -> Verdict {
        let near: Vec<Interval> = self.reaching(interval).collect();
        if near.iter().any(|span| span.start <= interval.start && interval.end <= span.end) {
            return Verdict::Repeated;
        }
        if near.iter().any(|span| span.start < interval.end && interval.start < span.end) {
            return Verdict::Overlapping;
        }
        // What is left merely meets it, at one end or at both.
        let merged = near.iter().fold(interval, |sum, span| Interval {
            start: sum.start.min(span.start),
            end: sum.end.max(span.end),
            bytes: sum.bytes + span.bytes,
        });
        for span in near {
            self.spans.remove(&span.start);
        }
        self.spans.insert(merged.start, merged);
        Verdict::Added
    }

    /// The spans, ascending.
    pub fn spans(&self) -> impl Iterator<Item = Interval> {
        self.spans.values().copied()
    }

    /// What must be done to `before` to get `self`: starts of rows to delete, and rows to write.
    pub fn changes_since(&self, before: &Self) -> (Vec<i64>, Vec<Interval>) {
        let gone = before.spans.keys().filter(|start| !self.spans.contains_key(start)).copied().collect();
        let written = self.spans().filter(|span| before.spans.get(&span.start) != Some(span)).collect();
        (gone, written)
    }

    /// Spans that overlap `interval` or meet it at an end. At most one of them begins before it.
    fn reaching(&self, interval: Interval) -> impl Iterator<Item = Interval> {
        let before = self.spans.range(..interval.start).next_back();
        let within = self.spans.range(interval.start..=interval.end);
        before.into_iter().chain(within).map(|(_, span)| *span).filter(move |span| span.end >= interval.start)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn interval(start: i64, end: i64) -> Interval {
        // Bytes as a function of the offsets, so that sums can be checked.
        Interval::new(start, end, (start..end).map(bytes_at).sum()).expect("test interval")
    }

    fn bytes_at(offset: i64) -> u64 {
        offset.unsigned_abs() * 7 + 1
    }

    #[test]
    fn meeting_intervals_become_one_span() {
        let mut coverage = Coverage::default();
        for (start, end) in [(0, 5), (10, 15), (5, 10)] {
            assert_eq!(coverage.offer(interval(start, end)), Verdict::Added);
        }
        assert_eq!(coverage.spans().collect::<Vec<_>>(), vec![interval(0, 15)]);
    }

    #[test]
    fn a_repeat_and_a_partial_overlap_change_nothing() {
        let mut coverage = Coverage::default();
        coverage.offer(interval(10, 20));
        let before = coverage.clone();
        assert_eq!(coverage.offer(interval(10, 20)), Verdict::Repeated);
        assert_eq!(coverage.offer(interval(12, 13)), Verdict::Repeated);
        for (start, end) in [(5, 11), (19, 25), (5, 25)] {
            assert_eq!(coverage.offer(interval(start, end)), Verdict::Overlapping);
        }
        assert_eq!(coverage, before);
    }

    #[test]
    fn what_is_empty_or_negative_is_no_interval() {
        for (start, end) in [(3, 3), (4, 3), (-1, 3)] {
            assert!(Interval::new(start, end, 0).is_err());
        }
    }

    #[test]
    fn stored_spans_that_touch_are_refused() {
        assert!(Coverage::from_spans([interval(0, 5), interval(5, 6)]).is_err());
        assert!(Coverage::from_spans([interval(5, 6), interval(0, 6)]).is_err());
        assert!(Coverage::from_spans([interval(7, 9), interval(0, 6)]).is_ok());
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_single_offsets(offers in prop::collection::vec((0i64..60, 1i64..12), 0..80)) {
            let mut coverage = Coverage::default();
            let mut naive = BTreeSet::new();
            for (start, length) in offers {
                let offered: BTreeSet<i64> = (start..start + length).collect();
                let expected = match offered.intersection(&naive).count() {
                    0 => Verdict::Added,
                    n if n == offered.len() => Verdict::Repeated,
                    _ => Verdict::Overlapping,
                };
                let before = coverage.clone();
                prop_assert_eq!(coverage.offer(interval(start, start + length)), expected);
                if expected == Verdict::Added {
                    naive.extend(offered);
                } else {
                    prop_assert_eq!(&coverage, &before);
                }
                let (gone, written) = coverage.changes_since(&before);
                let mut replayed = before;
                replayed.spans.retain(|start, _| !gone.contains(start));
                replayed.spans.extend(written.iter().map(|span| (span.start, *span)));
                prop_assert_eq!(&replayed, &coverage);
            }
            let counted: BTreeSet<i64> = coverage.spans().flat_map(|span| span.start..span.end).collect();
            prop_assert_eq!(&counted, &naive);
            let bytes: u64 = coverage.spans().map(|span| span.bytes).sum();
            prop_assert_eq!(bytes, naive.iter().copied().map(bytes_at).sum::<u64>());
            let spans: Vec<Interval> = coverage.spans().collect();
            prop_assert!(spans.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
