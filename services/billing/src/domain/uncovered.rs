//! Which partitions have records that no gateway reported, though it had time to.
//!
//! A record is reported a second or two after it was acknowledged. So of a partition of which not all is counted the end is
//! marked, and when the grace has gone, what is below the mark and still not counted was left by a gateway that died, or
//! written around the gateways. It is found in the log, and must not look as if all were well until then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::window::PartitionKey;

/// Partitions that are watched at most; more are told by their number in the log's lag.
const WATCHED_MAX: usize = 100_000;

/// Records of one partition that nobody reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uncovered {
    /// How many offsets.
    pub records: i64,
    /// The first range of them.
    pub first: (i64, i64),
}

#[derive(Debug)]
struct Watched {
    /// The mark: where the log ended when the grace began.
    end: i64,
    /// Where it was last seen to end: the mark of the next grace.
    latest: i64,
    since: Instant,
    uncovered: Option<Uncovered>,
}

/// Partitions of which not all is counted.
#[derive(Debug, Default)]
pub struct Watch(BTreeMap<PartitionKey, Watched>);

impl Watch {
    /// Takes in how a partition stands: where its log ends and how many records are counted.
    pub fn seen(&mut self, key: PartitionKey, end: i64, counted: i64, now: Instant) {
        if counted >= end {
            self.0.remove(&key);
        } else if self.0.len() < WATCHED_MAX || self.0.contains_key(&key) {
            let watched = self.0.entry(key).or_insert(Watched { end, latest: end, since: now, uncovered: None });
            watched.latest = watched.latest.max(end);
        }
    }

    /// Partitions whose grace has gone, with the offset below which all should be counted.
    pub fn due(&self, grace: Duration, now: Instant) -> Vec<(PartitionKey, i64)> {
        let due = self.0.iter().filter(|(_, watched)| now.saturating_duration_since(watched.since) >= grace);
        due.map(|(key, watched)| (*key, watched.end)).collect()
    }

    /// What is counted below that offset, as disjoint ranges in order; what lies between them was left by somebody.
    pub fn judged(&mut self, key: PartitionKey, below: i64, counted: &[(i64, i64)], now: Instant) {
        let Some(watched) = self.0.get_mut(&key) else { return };
        let starts = counted.iter().map(|&(start, _)| start.min(below)).chain([below]);
        let ends = [0].into_iter().chain(counted.iter().map(|&(_, end)| end.min(below)));
        let gaps: Vec<_> = ends.zip(starts).filter(|(from, to)| from < to).collect();
        // It is judged again after another grace, with what came meanwhile, and others have their turn.
        (watched.since, watched.end) = (now, watched.latest);
        watched.uncovered = gaps
            .first()
            .map(|first| Uncovered { records: gaps.iter().map(|(from, to)| to - from).sum(), first: *first });
        if watched.uncovered.is_none() {
            // What is behind the mark has a grace of its own, from the next look on.
            self.0.remove(&key);
        }
    }

    /// Partitions of these topics that are none any more are not watched.
    pub fn retain(&mut self, mut keep: impl FnMut(&PartitionKey) -> bool) {
        self.0.retain(|key, _| keep(key));
    }

    /// What was left, by partition.
    pub fn uncovered(&self) -> impl Iterator<Item = (PartitionKey, Uncovered)> {
        self.0.iter().filter_map(|(key, watched)| Some((*key, watched.uncovered?)))
    }
}

#[cfg(test)]
mod tests {
    use sluice_types::TopicUid;

    use super::*;

    const KEY: PartitionKey = PartitionKey { topic: TopicUid::from_i64(3), partition: 0 };
    const GRACE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_not_reported_within_the_grace_is_told_until_it_is_counted() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.seen(KEY, 100, 40, start);
        assert!(watch.due(GRACE, start).is_empty(), "it is young");
        // More came meanwhile, and is younger.
        watch.seen(KEY, 250, 90, start + GRACE);
        assert_eq!(watch.due(GRACE, start + GRACE), [(KEY, 100)]);
        watch.judged(KEY, 100, &[(10, 40), (50, 130)], start + GRACE);
        assert!(watch.due(GRACE, start + GRACE).is_empty());
        let uncovered: Vec<_> = watch.uncovered().collect();
        assert_eq!(uncovered, [(KEY, Uncovered { records: 20, first: (0, 10) })]);
        // What nobody reported behind the gap counts when its own grace has gone.
        watch.seen(KEY, 300, 140, start + GRACE);
        assert_eq!(watch.due(GRACE, start + 2 * GRACE), [(KEY, 250)]);
        watch.judged(KEY, 250, &[(10, 40), (50, 130)], start + 2 * GRACE);
        let uncovered: Vec<_> = watch.uncovered().collect();
        assert_eq!(uncovered, [(KEY, Uncovered { records: 140, first: (0, 10) })]);
        assert_eq!(watch.due(GRACE, start + 3 * GRACE), [(KEY, 300)]);
        watch.seen(KEY, 300, 300, start + 3 * GRACE);
        assert_eq!(watch.uncovered().count(), 0);
    }

    #[test]
    fn a_partition_that_is_written_all_the_time_is_no_alarm() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.seen(KEY, 100, 90, start);
        watch.judged(KEY, 100, &[(0, 170)], start + GRACE);
        assert!(watch.due(GRACE, start + GRACE).is_empty());
        watch.seen(KEY, 200, 190, start + GRACE);
        assert_eq!(watch.due(GRACE, start + 2 * GRACE), [(KEY, 200)], "the mark is a new one");
        watch.judged(KEY, 200, &[], start + 2 * GRACE);
        assert_eq!(watch.uncovered().next(), Some((KEY, Uncovered { records: 200, first: (0, 200) })));
    }
}
