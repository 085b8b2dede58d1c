//! A range of a partition at one place.

use crate::{ClusterLog, LogicalOffset, PhysicalOffset, Place};

/// A half-open range of logical offsets that lies at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first offset.
    pub start: LogicalOffset,
    /// One behind the last; `None`: it is open and takes appends.
    pub end: Option<LogicalOffset>,
    /// Where its records lie.
    pub place: Place,
}

impl Span {
    /// Whether `offset` is one of its offsets.
    pub fn holds(&self, offset: LogicalOffset) -> bool {
        self.start <= offset && self.end.is_none_or(|end| offset < end)
    }

    /// What the log's `offset` is called by tenants, if it belongs to this span. `None`: it lies before or behind the span, or the
    /// span does not lie in a log.
    ///
    /// A log may have records behind its span's end: what was appended after the end was read is not in the topic.
    pub fn logical(&self, offset: PhysicalOffset) -> Option<LogicalOffset> {
        self.place.cluster_log()?.logical(offset).filter(|offset| self.holds(*offset))
    }

    /// Where the offset of this span, or its end, lies in the span's log. `None`: it lies before or behind the span, or the span does
    /// not lie in a log.
    pub fn physical(&self, offset: LogicalOffset) -> Option<PhysicalOffset> {
        let within = self.holds(offset) || self.end == Some(offset);
        self.place.cluster_log()?.physical(offset).filter(|_| within)
    }

    /// `offset`, moved to the nearest of this span's offsets or its end.
    pub(crate) fn nearest(&self, offset: LogicalOffset) -> LogicalOffset {
        let offset = offset.max(self.start);
        self.end.map_or(offset, |end| offset.min(end))
    }

    /// The log in which its offsets lie must have them all.
    pub(crate) fn is_within_its_log(&self) -> bool {
        let reaches = |log: ClusterLog| {
            let end = self.end.map(|end| log.physical(end).is_some());
            log.physical(self.start).is_some() && end.unwrap_or(true)
        };
        self.place.cluster_log().is_none_or(reaches)
    }
}
