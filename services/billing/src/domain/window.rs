//! A usage window as it may be trusted: decoded, with ids of the right types and every number in its bounds.
//!
//! Only gateways can write to the usage log, so a window that breaks a rule is a fault of ours. It is refused as a whole and
//! kept on record, and is a hole of its source, which is visible, instead of being billed by a guess.

use prost::Message;
use sluice_proto::internal::usage::v1 as pb;
use sluice_types::{NamespaceUid, TenantUid, TopicUid};

use super::coverage::{Interval, IntervalError};

/// Bytes of a source's name at most.
const SOURCE_BYTES_MAX: usize = 200;

/// The partition that usage belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// The topic, in one of its lives.
    pub topic: TopicUid,
    /// The partition.
    pub partition: i32,
}

/// Whose the partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The tenant.
    pub tenant: TenantUid,
    /// The namespace.
    pub namespace: NamespaceUid,
}

/// Acknowledged offsets of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Produced {
    /// Whose.
    pub owner: Owner,
    /// Of which partition.
    pub key: PartitionKey,
    /// Which, with their bytes.
    pub intervals: Vec<Interval>,
}

/// What was handed out of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Whose.
    pub owner: Owner,
    /// Of which partition.
    pub key: PartitionKey,
    /// Logical bytes.
    pub bytes: u64,
    /// Records.
    pub records: u64,
}

/// What one source counted in one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// `{gateway id}/{boot id}`.
    pub source: String,
    /// 1, 2, 3, … per source.
    pub number: i64,
    /// When it was closed by the gateway's clock, ms since the epoch; decides nothing.
    pub close_time_ms: i64,
    /// Written.
    pub produced: Vec<Produced>,
    /// Read.
    pub delivered: Vec<Delivered>,
    /// The source ends with it.
    pub last: bool,
}

/// Why a window is refused.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// Not the message we expect.
    #[error("decode window")]
    Decode(#[from] prost::DecodeError),
    /// The record has no value.
    #[error("window is empty")]
    Empty,
    /// A field out of its bounds.
    #[error("window field {0} is out of bounds")]
    Field(&'static str),
    /// Offsets that are no interval.
    #[error(transparent)]
    Interval(#[from] IntervalError),
}

impl Window {
    /// Decodes and checks the value of a record of the usage log.
    pub fn decode(value: &[u8]) -> Result<Self, WindowError> {
        let window = pb::UsageWindow::decode(value)?;
        check(!window.source.is_empty() && window.source.len() <= SOURCE_BYTES_MAX, "source")?;
        check((1..1 << 53).contains(&window.number), "number")?;
        check(window.close_time_ms >= 0, "close_time_ms")?;
        Ok(Self {
            source: window.source,
            number: window.number,
            close_time_ms: window.close_time_ms,
            produced: window.produced.into_iter().map(produced).collect::<Result<_, _>>()?,
            delivered: window.delivered.into_iter().map(delivered).collect::<Result<_, _>>()?,
            last: window.last,
        })
    }

    /// The partitions it speaks of, with their owners.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionKey, Owner)> {
        let produced = self.produced.iter().map(|p| (p.key, p.owner));
        produced.chain(self.delivered.iter().map(|d| (d.key, d.owner)))
    }
}

fn produced(from: pb::ProducedPartition) -> Result<Produced, WindowError> {
    let (owner, key) = place(&from.tenant_uid, &from.namespace_uid, &from.topic_uid, from.partition)?;
    let interval = |interval: pb::Interval| {
        check(fits(interval.bytes), "bytes")?;
        Ok::<_, WindowError>(Interval::new(interval.start, interval.end, interval.bytes)?)
    };
    Ok(Produced { owner, key, intervals: from.intervals.into_iter().map(interval).collect::<Result<_, _>>()? })
}

fn delivered(from: pb::DeliveredPartition) -> Result<Delivered, WindowError> {
    let (owner, key) = place(&from.tenant_uid, &from.namespace_uid, &from.topic_uid, from.partition)?;
    check(fits(from.bytes), "bytes")?;
    check(fits(from.records), "records")?;
    Ok(Delivered { owner, key, bytes: from.bytes, records: from.records })
}

fn place(tenant: &str, namespace: &str, topic: &str, partition: i32) -> Result<(Owner, PartitionKey), WindowError> {
    let tenant = tenant.parse().map_err(|_| WindowError::Field("tenant_uid"))?;
    let namespace = namespace.parse().map_err(|_| WindowError::Field("namespace_uid"))?;
    let topic = topic.parse().map_err(|_| WindowError::Field("topic_uid"))?;
    check(partition >= 0, "partition")?;
    Ok((Owner { tenant, namespace }, PartitionKey { topic, partition }))
}

/// One window of a second can hold far less; more is a fault, and sums of such numbers would overflow.
fn fits(amount: u64) -> bool {
    amount < 1 << 48
}

fn check(holds: bool, field: &'static str) -> Result<(), WindowError> {
    if holds { Ok(()) } else { Err(WindowError::Field(field)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> pb::UsageWindow {
        pb::UsageWindow {
            source: "gw-1/boot".into(),
            number: 1,
            close_time_ms: 7_200_001,
            produced: vec![pb::ProducedPartition {
                tenant_uid: TenantUid::from_i64(1).to_string(),
                namespace_uid: NamespaceUid::from_i64(2).to_string(),
                topic_uid: TopicUid::from_i64(3).to_string(),
                partition: 0,
                intervals: vec![pb::Interval { start: 0, end: 2, bytes: 10 }],
            }],
            delivered: vec![],
            last: false,
        }
    }

    fn decode(window: &pb::UsageWindow) -> Result<Window, WindowError> {
        Window::decode(&window.encode_to_vec())
    }

    #[test]
    fn a_sound_window_is_read() {
        let window = decode(&good()).expect("sound");
        assert_eq!(window.produced[0].key, PartitionKey { topic: TopicUid::from_i64(3), partition: 0 });
    }

    #[test]
    fn every_rule_is_checked() {
        let broken: [fn(&mut pb::UsageWindow); 9] = [
            |w| w.source.clear(),
            |w| w.source = "x".repeat(201),
            |w| w.number = 0,
            |w| w.number = i64::MAX,
            |w| w.close_time_ms = -1,
            |w| w.produced[0].topic_uid = "nonsense".into(),
            |w| w.produced[0].partition = -1,
            |w| w.produced[0].intervals[0].end = 0,
            |w| w.produced[0].intervals[0].bytes = u64::MAX,
        ];
        for (at, breaking) in broken.iter().enumerate() {
            let mut window = good();
            breaking(&mut window);
            assert!(decode(&window).is_err(), "rule {at}");
        }
        assert!(Window::decode(&[0xff, 0xff]).is_err());
    }
}
