//! What is counted and what is not, as the tenant reads it: together exactly `[0, end)`.
//!
//! The end is what Kafka says now, or the last end of a deleted topic; never less than what is counted, because an
//! acknowledgement may be counted between two questions.

use sluice_proto::billing::v1::{OffsetRange, PartitionCoverage};

/// Ranges of one kind that are listed for a partition.
pub const RANGES_MAX: usize = 1_000;
/// Ranges listed for all partitions of one topic; partitions of wide topics share it.
const TOPIC_RANGES_MAX: usize = 20_000;

/// Where the log of a partition ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// There.
    Known(i64),
    /// Kafka could not be asked.
    Unknown,
}

/// What is stored of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The first counted ranges, ascending and apart; one more than is listed tells that there are more.
    pub ranges: Vec<(i64, i64)>,
    /// Logical bytes of all counted ranges.
    pub bytes: u64,
    /// Records of all counted ranges.
    pub records: u64,
    /// The end of the last counted range.
    pub end: i64,
}

/// How many ranges of one kind are listed per partition of a topic with so many partitions.
pub fn ranges_max(partitions: usize) -> usize {
    (TOPIC_RANGES_MAX / partitions.max(1)).clamp(1, RANGES_MAX)
}

/// One partition's part of the answer, with at most `max` ranges of a kind.
pub fn partition(partition: i32, stored: &Stored, log_end: LogEnd, max: usize) -> PartitionCoverage {
    let (end, end_offset_known) = match log_end {
        LogEnd::Known(end) => (end.max(stored.end), true),
        LogEnd::Unknown => (stored.end, false),
    };
    let more = stored.ranges.len() > max;
    let listed = &stored.ranges[..stored.ranges.len().min(max)];
    let mut uncovered = gaps(listed);
    if !more {
        let counted_to = listed.last().map_or(0, |&(_, end)| end);
        uncovered.extend((counted_to < end).then_some((counted_to, end)));
    }
    let truncated = more || uncovered.len() > max;
    uncovered.truncate(max);
    PartitionCoverage {
        partition,
        end_offset: end,
        end_offset_known,
        covered: listed.iter().map(range).collect(),
        uncovered: uncovered.iter().map(range).collect(),
        covered_bytes: stored.bytes,
        covered_records: stored.records,
        truncated,
    }
}

/// What lies before and between the ranges.
fn gaps(ranges: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let starts = ranges.iter().map(|&(start, _)| start);
    let ends = std::iter::once(0).chain(ranges.iter().map(|&(_, end)| end));
    ends.zip(starts).filter(|(from, to)| from < to).collect()
}

fn range(&(start, end): &(i64, i64)) -> OffsetRange {
    OffsetRange { start, end }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(ranges: &[(i64, i64)]) -> Stored {
        let end = ranges.last().map_or(0, |&(_, end)| end);
        Stored { ranges: ranges.to_vec(), bytes: 1, records: 1, end }
    }

    #[test]
    fn an_unknown_end_is_the_end_of_what_is_counted() {
        let answer = partition(0, &stored(&[(2, 5)]), LogEnd::Unknown, 10);
        assert!(!answer.end_offset_known);
        assert_eq!(answer.end_offset, 5);
        assert_eq!(answer.uncovered, vec![OffsetRange { start: 0, end: 2 }]);
    }

    #[test]
    fn the_end_is_never_below_what_is_counted() {
        assert_eq!(partition(0, &stored(&[(0, 5)]), LogEnd::Known(3), 10).end_offset, 5);
    }

    #[test]
    fn more_ranges_than_listed_are_said_to_be_more() {
        let answer = partition(0, &stored(&[(1, 2), (3, 4), (5, 6)]), LogEnd::Known(9), 2);
        assert!(answer.truncated);
        assert_eq!(answer.covered.len(), 2);
        assert_eq!(answer.uncovered.len(), 2);
        assert_eq!(ranges_max(1), 1_000);
        assert_eq!(ranges_max(1_000), 20);
        assert_eq!(ranges_max(0), 1_000);
    }

    proptest! {
        #[test]
        fn counted_and_uncounted_are_exactly_the_log(
            steps in prop::collection::vec((1i64..9, 1i64..9), 0..20),
            first_gap in 0i64..3,
            rest in 0i64..9,
        ) {
            let mut at = first_gap;
            let mut ranges = Vec::new();
            for (length, gap) in steps {
                ranges.push((at, at + length));
                at += length + gap;
            }
            let counted_to = ranges.last().map_or(0, |&(_, end)| end);
            let answer = partition(0, &stored(&ranges), LogEnd::Known(counted_to + rest), RANGES_MAX);
            let mut all: Vec<_> = answer.covered.iter().chain(&answer.uncovered).copied().collect();
            all.sort_by_key(|range| range.start);
            let mut expected = 0;
            for range in all {
                prop_assert_eq!(range.start, expected);
                prop_assert!(range.end > range.start);
                expected = range.end;
            }
            prop_assert_eq!(expected, answer.end_offset);
            prop_assert_eq!(answer.end_offset, counted_to + rest);
        }
    }
}
