//! Numbered windows of one source: 1, 2, 3, …, the last one marked.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;

use sluice_proto::internal::usage::v1::{DeliveredPartition, Interval, ProducedPartition, UsageWindow};

use crate::metering::fold::{Fold, PartitionKey};

/// Intervals and sums in one window at most, so that its record stays far below 1 MiB.
const ENTRIES_MAX: usize = 4_000;

/// What a source has to publish.
#[derive(Debug)]
pub struct Windows {
    source: String,
    /// Numbers given so far.
    number: i64,
    /// The last window's; later ones are never earlier.
    close_time_ms: i64,
    rest: Fold,
    /// The window being published; its bytes do not change any more.
    open: Option<Bytes>,
    ending: Ending,
}

#[derive(Debug, PartialEq, Eq)]
enum Ending {
    No,
    Due,
    Done,
}

impl Windows {
    /// A new source.
    pub fn new(source: String) -> Self {
        Self { source, number: 0, close_time_ms: 0, rest: Fold::default(), open: None, ending: Ending::No }
    }

    /// Its name.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// More usage for the windows to come.
    pub fn fill(&mut self, fold: Fold) {
        self.rest.merge(fold);
    }

    /// No more will come: the next window that empties this is the last one.
    pub fn end(&mut self) {
        self.ending = Ending::Due;
    }

    /// The window to publish now: the same bytes until [`Windows::published`]. `None`: nothing to publish.
    pub fn open(&mut self) -> Option<Bytes> {
        if self.open.is_none() {
            self.open = self.cut().map(|window| window.encode_to_vec().into());
        }
        self.open.clone()
    }

    /// The open window was acknowledged.
    pub fn published(&mut self) {
        self.open = None;
    }

    fn cut(&mut self) -> Option<UsageWindow> {
        if self.ending == Ending::Done || (self.rest.is_empty() && self.ending == Ending::No) {
            return None;
        }
        let part = self.rest.split_off(ENTRIES_MAX);
        let last = self.ending == Ending::Due && self.rest.is_empty();
        if last {
            self.ending = Ending::Done;
        }
        self.number += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.close_time_ms = self.close_time_ms.max(i64::try_from(now).unwrap_or(i64::MAX));
        Some(UsageWindow {
            source: self.source.clone(),
            number: self.number,
            close_time_ms: self.close_time_ms,
            produced: part.produced_sorted().into_iter().map(|(key, intervals)| produced(key, intervals)).collect(),
            delivered: part.delivered_sorted().into_iter().map(|(key, sum)| delivered(key, sum)).collect(),
            last,
        })
    }
}

fn produced(key: PartitionKey, intervals: Vec<crate::metering::fold::Interval>) -> ProducedPartition {
    let interval = |i: crate::metering::fold::Interval| Interval { start: i.start, end: i.end, bytes: i.bytes };
    ProducedPartition {
        tenant_uid: key.tenant.to_string(),
        namespace_uid: key.namespace.to_string(),
        topic_uid: key.topic.to_string(),
        partition: key.partition,
        intervals: intervals.into_iter().map(interval).collect(),
    }
}

fn delivered(key: PartitionKey, sum: crate::metering::fold::Delivered) -> DeliveredPartition {
    DeliveredPartition {
        tenant_uid: key.tenant.to_string(),
        namespace_uid: key.namespace.to_string(),
        topic_uid: key.topic.to_string(),
        partition: key.partition,
        bytes: sum.bytes,
        records: sum.records,
    }
}

#[cfg(test)]
mod tests {
    use sluice_types::{NamespaceUid, TenantUid, TopicUid};

    use super::*;

    fn key() -> PartitionKey {
        PartitionKey {
            tenant: TenantUid::random(),
            namespace: NamespaceUid::random(),
            topic: TopicUid::random(),
            partition: 0,
        }
    }

    fn decode(bytes: &Bytes) -> UsageWindow {
        UsageWindow::decode(bytes.clone()).expect("our own message")
    }

    fn fold(offsets: impl Iterator<Item = i64>) -> Fold {
        let (mut fold, key) = (Fold::default(), key());
        for start in offsets {
            assert!(fold.add(key, crate::metering::fold::Interval { start, end: start + 1, bytes: 7 }));
        }
        fold
    }

    #[test]
    fn windows_are_numbered_without_gaps_and_repeat_their_bytes() {
        let mut windows = Windows::new("g/b".into());
        assert_eq!(windows.open(), None);
        windows.fill(fold(0..3));
        let first = windows.open().expect("usage");
        windows.fill(fold(3..5));
        assert_eq!(windows.open(), Some(first.clone()), "unchanged until acknowledged");
        windows.published();
        let second = decode(&windows.open().expect("usage"));
        assert_eq!((decode(&first).number, second.number), (1, 2));
        assert!(second.close_time_ms >= decode(&first).close_time_ms);
        windows.published();
        windows.end();
        let last = decode(&windows.open().expect("the end"));
        assert!(last.last && last.produced.is_empty());
        assert_eq!(last.number, 3);
        windows.published();
        assert_eq!(windows.open(), None);
    }

    #[test]
    fn a_large_backlog_is_cut_into_windows_of_bounded_size() {
        let mut windows = Windows::new("g/b".into());
        let count = ENTRIES_MAX as i64 * 2 + 1;
        windows.fill(fold((0..count).map(|at| at * 2)));
        windows.end();
        let mut offsets = 0;
        let mut numbers = Vec::new();
        while let Some(bytes) = windows.open() {
            assert!(bytes.len() < 512 << 10);
            let window = decode(&bytes);
            numbers.push((window.number, window.last));
            offsets += window.produced.iter().map(|partition| partition.intervals.len()).sum::<usize>();
            windows.published();
        }
        assert_eq!(offsets as i64, count);
        assert_eq!(numbers, vec![(1, false), (2, false), (3, true)]);
    }
}
