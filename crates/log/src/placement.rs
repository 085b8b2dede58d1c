//! Where a topic's records lie: the spans of all its partitions.

use std::fmt;

use sluice_types::{ClusterUid, LogUid};

use crate::{ClusterLog, LogicalOffset, Place, Span, Spans};

/// Spans of one topic, so that its record in the control log stays below 1 MiB: one takes about 60 bytes.
pub const SPANS_MAX: usize = 10_000;

/// The number of a placement among those of its topic. It only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(i64);

impl Epoch {
    /// That of a topic that was never moved.
    pub const FIRST: Self = Self(0);

    /// From its number; `None`: it is negative.
    pub fn new(value: i64) -> Option<Self> {
        (value >= 0).then_some(Self(value))
    }

    /// Its number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The spans of all partitions of a topic, as of an epoch.
///
/// A partition that it does not name has all its records in the log that takes the topic's appends. So a topic that was never moved
/// names none, and partitions that are added later need no change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    epoch: Epoch,
    /// The whole of a partition that is not named.
    whole: Span,
    /// By partition, from 0.
    moved: Vec<Box<[Span]>>,
}

/// Spans that make no placement. Partitions and spans count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// There are too many.
    #[error("the topic has {0} spans; at most {SPANS_MAX} are allowed")]
    TooMany(usize),
    /// A moved topic with the epoch of one that never was.
    #[error("the topic has moved, but its epoch is that of a topic that never did")]
    NeverMoved,
    /// A partition without a span.
    #[error("partition {partition} has no span")]
    NoSpan {
        /// Of this partition.
        partition: usize,
    },
    /// It does not begin where the one before it ends.
    #[error("span {span} of partition {partition} does not begin where the one before it ends")]
    NotContiguous {
        /// The partition.
        partition: usize,
        /// The span.
        span: usize,
    },
    /// It is empty, or its end lies before its start.
    #[error("span {span} of partition {partition} holds nothing")]
    Empty {
        /// The partition.
        partition: usize,
        /// The span.
        span: usize,
    },
    /// Another than the last is open, or the last is not.
    #[error("span {span} of partition {partition} must be open if it is the last, and closed if it is not")]
    Open {
        /// The partition.
        partition: usize,
        /// The span.
        span: usize,
    },
    /// The last one lies elsewhere than in the log that takes the topic's appends.
    #[error("the last span of partition {partition} is not in the log that takes the topic's appends")]
    NotInTheLog {
        /// The partition.
        partition: usize,
    },
    /// Two spans of a partition lie in one log.
    #[error("span {span} of partition {partition} lies in the log of another span")]
    SameLog {
        /// The partition.
        partition: usize,
        /// The span.
        span: usize,
    },
    /// Its log cannot have such offsets.
    #[error("the log of span {span} of partition {partition} has no such offsets")]
    OutOfReach {
        /// The partition.
        partition: usize,
        /// The span.
        span: usize,
    },
    /// The epoch of what follows is not above the one before.
    #[error("the epoch does not grow: {next} follows {known}")]
    Epoch {
        /// Of what is known.
        known: Epoch,
        /// Of what should follow.
        next: Epoch,
    },
    /// What follows takes appends elsewhere, and does not say where a partition's records are.
    #[error("the topic moves, but partition {partition} is not named")]
    Unnamed {
        /// The partition.
        partition: usize,
    },
    /// What follows gives offsets of a log another meaning.
    #[error("the offsets of partition {partition} change their meaning")]
    Meaning {
        /// The partition.
        partition: usize,
    },
}

impl Placement {
    /// Of a topic that was never moved: all its records are in this log, under the offsets that tenants see.
    pub const fn unmoved(cluster: ClusterUid, log: LogUid) -> Self {
        Self { epoch: Epoch::FIRST, whole: whole(cluster, log), moved: Vec::new() }
    }

    /// Of a topic whose appends `cluster` and `log` take, with the spans of the partitions that were there when it last moved.
    ///
    /// The spans of a partition must be contiguous, not empty and in logs that differ; the last one, and no other, is open and in
    /// this log. The first may begin above 0: what was before is gone for good.
    pub fn new(epoch: Epoch, cluster: ClusterUid, log: LogUid, moved: Vec<Vec<Span>>) -> Result<Self, PlacementError> {
        let count = moved.iter().map(Vec::len).sum();
        if count > SPANS_MAX {
            return Err(PlacementError::TooMany(count));
        }
        if !moved.is_empty() && epoch == Epoch::FIRST {
            return Err(PlacementError::NeverMoved);
        }
        let whole = whole(cluster, log);
        for (partition, spans) in moved.iter().enumerate() {
            check(partition, spans, &whole)?;
        }
        Ok(Self { epoch, whole, moved: moved.into_iter().map(Vec::into_boxed_slice).collect() })
    }

    /// Its number.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The cluster and the log that take appends.
    pub fn appends(&self) -> (ClusterUid, LogUid) {
        let log = self.whole.place.cluster_log().expect("the constructors put it into a log");
        (log.cluster, log.log)
    }

    /// The spans of the partitions that it names, from partition 0; empty: the topic was never moved.
    pub fn moved(&self) -> impl ExactSizeIterator<Item = &[Span]> {
        self.moved.iter().map(AsRef::as_ref)
    }

    /// The spans of a partition. Which partitions there are says the topic's record, not the placement.
    pub fn spans(&self, partition: i32) -> Spans<'_> {
        let moved = usize::try_from(partition).ok().and_then(|partition| self.moved.get(partition));
        Spans::new(moved.map_or(std::slice::from_ref(&self.whole), AsRef::as_ref))
    }

    /// Whether `next` may follow this one for a topic with so many partitions: its epoch is above, it names all partitions if
    /// the topic moves, appends go on at or above where they were, and an offset of a log that both name means the same in both.
    /// The same placement again may follow.
    pub fn check_next(&self, next: &Self, partitions: i32) -> Result<(), PlacementError> {
        if self == next {
            return Ok(());
        }
        if next.epoch <= self.epoch {
            return Err(PlacementError::Epoch { known: self.epoch, next: next.epoch });
        }
        let moves = next.appends() != self.appends();
        for partition in 0..partitions {
            let (known, then) = (self.spans(partition).all(), next.spans(partition).all());
            let partition = usize::try_from(partition).expect("the range begins at 0");
            if moves && partition >= next.moved.len() {
                return Err(PlacementError::Unnamed { partition });
            }
            if !keep_meaning(known, then) {
                return Err(PlacementError::Meaning { partition });
            }
        }
        Ok(())
    }
}

const fn whole(cluster: ClusterUid, log: LogUid) -> Span {
    Span { start: LogicalOffset::ZERO, end: None, place: Place::Cluster(ClusterLog { cluster, log, delta: 0 }) }
}

/// Appends go on at or above where they were, and logs that both name have one delta.
fn keep_meaning(known: &[Span], next: &[Span]) -> bool {
    fn logs(spans: &[Span]) -> impl Iterator<Item = ClusterLog> {
        spans.iter().filter_map(|span| span.place.cluster_log())
    }
    let starts = |spans: &[Span]| spans.last().map(|span| span.start);
    let differ = |log: ClusterLog| logs(next).any(|other| other.is_log_of(log) && other != log);
    starts(next) >= starts(known) && !logs(known).any(differ)
}

fn check(partition: usize, spans: &[Span], whole: &Span) -> Result<(), PlacementError> {
    let last = spans.last().ok_or(PlacementError::NoSpan { partition })?;
    let appends = whole.place.cluster_log().expect("the constructors put it into a log");
    let mut expected = spans[0].start;
    for (at, span) in spans.iter().enumerate() {
        if span.end.is_none() != (at + 1 == spans.len()) {
            return Err(PlacementError::Open { partition, span: at });
        }
        if span.start != expected {
            return Err(PlacementError::NotContiguous { partition, span: at });
        }
        if span.end.is_some_and(|end| end <= span.start) {
            return Err(PlacementError::Empty { partition, span: at });
        }
        if !span.is_within_its_log() {
            return Err(PlacementError::OutOfReach { partition, span: at });
        }
        let log = span.place.cluster_log();
        let is_of = |earlier: &Span| earlier.place.cluster_log().zip(log).is_some_and(|(a, b)| a.is_log_of(b));
        if spans[..at].iter().any(is_of) {
            return Err(PlacementError::SameLog { partition, span: at });
        }
        expected = span.end.unwrap_or(expected);
    }
    match last.place.cluster_log() {
        Some(log) if log.is_log_of(appends) => Ok(()),
        _ => Err(PlacementError::NotInTheLog { partition }),
    }
}
