//! The spans of one partition: which one holds an offset, and where ranges are cut.

use std::ops::Range;

use sluice_types::{ClusterUid, LogUid};

use crate::{LogicalOffset, PhysicalOffset, Place, Span};

/// The spans of one partition: contiguous, ascending, the last one open. See [`crate::Placement::spans`].
#[derive(Debug, Clone, Copy)]
pub struct Spans<'a>(&'a [Span]);

/// A range of a partition that lies in one span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which span it is, from 0.
    pub index: usize,
    /// Where its records lie.
    pub place: Place,
    /// The first offset.
    pub start: LogicalOffset,
    /// One behind the last; `None`: it has no end yet.
    pub end: Option<LogicalOffset>,
}

/// The same range in the log where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first offset.
    pub start: PhysicalOffset,
    /// One behind the last; `None`: it has no end yet. What the log has from here on is not in the topic.
    pub end: Option<PhysicalOffset>,
}

/// What an append that a log acknowledged is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// The record is in the topic, under this offset.
    Inside(LogicalOffset),
    /// The span of that log ended before it: the record is not in the topic and must be appended to the next span.
    Outside,
    /// No span is in that log any more, so it cannot be told.
    Unknown,
}

impl<'a> Spans<'a> {
    pub(crate) fn new(spans: &'a [Span]) -> Self {
        debug_assert!(spans.last().is_some_and(|last| last.end.is_none()), "the last span is open");
        Self(spans)
    }

    /// All of them, in order.
    pub fn all(self) -> &'a [Span] {
        self.0
    }

    /// The one that takes appends.
    pub fn open(self) -> &'a Span {
        self.0.last().expect("a partition has a span")
    }

    /// The part of the span that holds `offset` from there on: what one place can answer of a read, and whom a wait at the end
    /// of the partition must ask. `None`: it lies before the first span, so its record is gone for good.
    pub fn read(self, offset: LogicalOffset) -> Option<Part> {
        // Most reads are of the last span, and most partitions have no other.
        let index = match self.open().start <= offset {
            true => self.0.len() - 1,
            false => self.0.partition_point(|span| span.start <= offset).checked_sub(1)?,
        };
        let span = &self.0[index];
        Some(Part { index, place: span.place, start: offset, end: span.end })
    }

    /// `range`, cut where spans meet, in order. What lies before the first span is left out.
    pub fn cut(self, range: Range<LogicalOffset>) -> impl Iterator<Item = Part> + use<'a> {
        let cut = move |(index, span): (usize, &'a Span)| {
            let start = range.start.max(span.start);
            let end = span.end.map_or(range.end, |end| range.end.min(end));
            (start < end).then_some(Part { index, place: span.place, start, end: Some(end) })
        };
        self.0.iter().enumerate().filter_map(cut)
    }

    /// What it means that the log acknowledged a record of this partition at `offset`.
    pub fn acknowledged(self, cluster: ClusterUid, log: LogUid, offset: PhysicalOffset) -> Acknowledged {
        let is_in = |span: &&Span| span.place.cluster_log().is_some_and(|at| (at.cluster, at.log) == (cluster, log));
        match self.0.iter().rev().find(is_in) {
            Some(span) => span.logical(offset).map_or(Acknowledged::Outside, Acknowledged::Inside),
            None => Acknowledged::Unknown,
        }
    }
}

impl Part {
    /// Where it lies in its log. `None`: it does not lie in a log, or it begins behind the last offset that a log can have, where no
    /// record can be.
    pub fn stretch(&self) -> Option<Stretch> {
        let log = self.place.cluster_log()?;
        Some(Stretch { start: log.physical(self.start)?, end: self.end.and_then(|end| log.physical(end)) })
    }
}
