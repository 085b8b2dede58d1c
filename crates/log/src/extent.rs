//! What places answer: what they still hold, where a partition begins and ends, and where a reader goes on.

use std::ops::Range;

use crate::{ClusterLog, LogicalOffset, PhysicalOffset, Place, Span, Spans};

/// What a place holds of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// A log: its first offset, and one behind the last that readers may see.
    Log {
        /// The log start offset.
        start: PhysicalOffset,
        /// The high watermark, or the last stable offset.
        end: PhysicalOffset,
    },
    /// The tier: the logical offsets that it has of the span.
    Tier {
        /// The first one.
        start: LogicalOffset,
        /// One behind the last.
        end: LogicalOffset,
    },
    /// Nothing: the log was deleted.
    Gone,
}

/// Where a partition begins and ends, as tenants see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that can be read; the end if none can.
    pub start: LogicalOffset,
    /// One behind the last.
    pub end: LogicalOffset,
}

/// Where a reader goes on that did not find its offset in a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// It is there: the place had it when it answered.
    Here,
    /// Ask the place of this span, from 0: the one that was asked has nothing at or above the offset.
    Ask(usize),
    /// The record is gone for good.
    OutOfRange {
        /// The first offset above that can be read; the end of the partition if there is none.
        first: LogicalOffset,
    },
    /// The offset is at the end of the partition, or behind it.
    AtEnd {
        /// The end.
        end: LogicalOffset,
    },
}

impl Spans<'_> {
    /// Where the partition begins and ends, of the answers of all places, one for each span in order. `None`: there are more or
    /// fewer answers than spans.
    pub fn bounds(self, extents: &[Extent]) -> Option<Bounds> {
        let spans = self.all();
        if spans.len() != extents.len() {
            return None;
        }
        let mut held = spans.iter().zip(extents).map(|(span, extent)| span.held(*extent));
        let last = self.open().held(*extents.last()?);
        let first = held.find(|held| !held.is_empty()).unwrap_or(last.clone());
        Some(Bounds { start: first.start, end: last.end })
    }

    /// Where a reader at `offset` goes on after the place of the span `index` answered what it holds. It asks the span of
    /// [`Spans::read`] first, and span 0 if that knows none.
    pub fn onward(self, index: usize, offset: LogicalOffset, extent: Extent) -> Onward {
        let spans = self.all();
        let Some(span) = spans.get(index) else {
            return Onward::Ask(spans.len() - 1);
        };
        let held = span.held(extent);
        let is_last = index + 1 == spans.len();
        match held.contains(&offset) {
            true => Onward::Here,
            false if is_last && offset >= held.end => Onward::AtEnd { end: held.end },
            false if offset < held.start && (is_last || !held.is_empty()) => Onward::OutOfRange { first: held.start },
            false => Onward::Ask(index + 1),
        }
    }
}

impl Span {
    /// The offsets of this span that its place holds; if it holds none, an empty range within the span.
    fn held(&self, extent: Extent) -> Range<LogicalOffset> {
        let (start, end) = match (self.place, extent) {
            (Place::Cluster(log), Extent::Log { start, end }) => (log.nearest(start), log.nearest(end)),
            (_, Extent::Tier { start, end }) => (start, end),
            (Place::Tier, Extent::Log { .. }) | (_, Extent::Gone) => (self.start, self.start),
        };
        let start = self.nearest(start);
        start..self.nearest(end).max(start)
    }
}

impl ClusterLog {
    /// What `offset` is called by tenants, or the nearest offset that a partition can have.
    fn nearest(self, offset: PhysicalOffset) -> LogicalOffset {
        LogicalOffset::new(offset.get().saturating_add(self.delta)).unwrap_or(LogicalOffset::ZERO)
    }
}
