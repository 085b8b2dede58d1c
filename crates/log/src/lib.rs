//! What the log of a topic is: logical offsets, and the spans in which they lie.
//!
//! A **logical offset** is what tenants see, what groups commit and what usage counts. It never changes its meaning. A **span** is a
//! half-open range of the logical offsets of one partition that lies at one **place**: a Kafka topic, or the tier. Only the last span
//! takes appends. A topic that was never moved has one span, and its logical and physical offsets are the same numbers.
//!
//! Everything here is a pure function over small values. What asks the places for their answers is above. It relies on this: the
//! [`Placement`] of a topic is the newest that is known, and a place's answer belongs to the place that was asked. If an offset were
//! translated with another span's delta, a reader would get another record under the same offset, and an invoice would count it
//! twice; so the offsets of the two kinds are different types, and only a span translates.

mod extent;
mod offset;
mod place;
mod placement;
#[cfg(test)]
mod placement_tests;
#[cfg(test)]
mod properties;
mod record;
mod span;
mod spans;

pub use extent::{Bounds, Extent, Onward};
pub use offset::{LogicalOffset, OffsetError, PhysicalOffset};
pub use place::{ClusterLog, Place};
pub use placement::{Epoch, Placement, PlacementError, SPANS_MAX};
pub use record::RecordError;
pub use span::Span;
pub use spans::{Acknowledged, Part, Spans, Stretch};
