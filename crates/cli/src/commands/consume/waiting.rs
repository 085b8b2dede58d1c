//! Records that came and are not written yet, because whoever reads them takes his time.
//!
//! Their leases are extended as long as they wait here. One whose lease is over all the same is another consumer's by now, or
//! comes again: it is not written.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use sluice_proto::stream::v1::ReceivedRecord;

/// A lease, by our clock.
#[derive(Clone, Copy)]
pub(super) struct Lease {
    pub(super) until: Instant,
    pub(super) length: Duration,
}

#[derive(Default)]
pub(super) struct Waiting(VecDeque<(ReceivedRecord, Lease)>);

impl Waiting {
    pub(super) fn push(&mut self, record: ReceivedRecord, lease: Lease) {
        self.0.push_back((record, lease));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next ones to be written, at most so many, and those that are left out because their leases are over.
    pub(super) fn take(&mut self, most: usize, now: Instant) -> (Vec<(ReceivedRecord, Lease)>, Vec<ReceivedRecord>) {
        let (mut next, mut late) = (Vec::new(), Vec::new());
        while next.len() < most
            && let Some((record, lease)) = self.0.pop_front()
        {
            if lease.until > now {
                next.push((record, lease));
            } else {
                late.push(record);
            }
        }
        (next, late)
    }

    /// All, to be given back.
    pub(super) fn take_all(&mut self) -> Vec<ReceivedRecord> {
        std::mem::take(&mut self.0).into_iter().map(|(record, _)| record).collect()
    }

    /// Ids of leases of which half has gone.
    pub(super) fn to_extend(&self, now: Instant, asked: &HashSet<&String>) -> Vec<String> {
        let half_gone = |lease: &Lease| lease.until.saturating_duration_since(now) < lease.length / 2;
        let due = self.0.iter().filter(|(record, lease)| half_gone(lease) && !asked.contains(&record.ack_id));
        due.map(|(record, _)| record.ack_id.clone()).collect()
    }

    /// What became of extensions, by id: whether the lease is still ours.
    pub(super) fn extended(&mut self, results: &HashMap<String, bool>, now: Instant) {
        for (record, lease) in &mut self.0 {
            match results.get(&record.ack_id) {
                Some(true) => lease.until = now + lease.length,
                Some(false) => lease.until = now,
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    fn of(ids: &[&str], now: Instant) -> Waiting {
        let mut waiting = Waiting::default();
        for id in ids {
            let record = ReceivedRecord { ack_id: (*id).into(), ..Default::default() };
            waiting.push(record, Lease { until: now + LENGTH, length: LENGTH });
        }
        waiting
    }

    fn ids(records: &[(ReceivedRecord, Lease)]) -> Vec<&str> {
        records.iter().map(|(record, _)| record.ack_id.as_str()).collect()
    }

    #[test]
    fn one_whose_lease_is_over_is_not_written() {
        let now = Instant::now();
        let mut waiting = of(&["a", "b", "c"], now);
        waiting.extended(&HashMap::from([("b".to_owned(), true)]), now + LENGTH / 2);
        let (next, late) = waiting.take(10, now + LENGTH);
        assert_eq!((ids(&next), late.len()), (vec!["b"], 2));
        assert!(waiting.is_empty());
    }

    #[test]
    fn leases_are_extended_while_records_wait() {
        let now = Instant::now();
        let mut waiting = of(&["a", "b"], now);
        let asked = HashSet::new();
        assert!(waiting.to_extend(now + LENGTH / 3, &asked).is_empty());
        assert_eq!(waiting.to_extend(now + LENGTH * 2 / 3, &asked), ["a", "b"]);
        let b = "b".to_owned();
        assert_eq!(waiting.to_extend(now + LENGTH * 2 / 3, &HashSet::from([&b])), ["a"], "asked already");
        // The server knows it no more.
        waiting.extended(&HashMap::from([("a".to_owned(), false)]), now);
        let (next, late) = waiting.take(1, now);
        assert_eq!((ids(&next), late.len(), waiting.take_all().len()), (vec!["b"], 1, 0));
    }
}
