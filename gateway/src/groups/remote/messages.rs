//! What gateways say to one another about groups, to and from the types of the seam.

use std::time::Duration;

use sluice_proto::internal::gateway::v1 as wire;
use sluice_proto::stream::v1::SettleOutcome;
use sluice_types::TopicUid;
use sluice_wire::{Record, TimestampType};

use crate::groups::model::{LeaseKey, Leased, Settle};

/// Bytes of records in one message of a stream, save a single larger record.
pub(crate) const MESSAGE_BYTES: usize = 1 << 20;
/// What a record weighs beside its payload.
pub(crate) const RECORD_OVERHEAD: usize = 64;

/// A message that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

pub(crate) fn leased_to_wire(leased: Leased) -> wire::LeasedRecord {
    let Leased { key, lease_end_ms, record } = leased;
    wire::LeasedRecord {
        topic_uid: key.topic.to_string(),
        partition: key.partition,
        offset: key.offset,
        term: key.term,
        attempt: attempt_to_wire(key.attempt),
        lease_end_ms,
        timestamp_ms: record.timestamp_ms,
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|(name, value)| wire::RecordHeader { name: String::from_utf8_lossy(&name).into_owned(), value })
            .collect(),
    }
}

/// The lease of a record.
pub(crate) fn lease_from_wire(leased: &wire::LeasedRecord) -> Result<LeaseKey, Malformed> {
    Ok(LeaseKey {
        topic: topic(&leased.topic_uid)?,
        partition: leased.partition,
        offset: leased.offset,
        term: leased.term,
        attempt: attempt_from_wire(leased.attempt)?,
    })
}

pub(crate) fn leased_from_wire(leased: wire::LeasedRecord) -> Result<Leased, Malformed> {
    let key = lease_from_wire(&leased)?;
    let record = Record {
        offset: leased.offset,
        timestamp_ms: leased.timestamp_ms,
        timestamp_type: TimestampType::CreateTime,
        key: leased.key,
        value: leased.value,
        headers: leased.headers.into_iter().map(|header| (header.name.into(), header.value)).collect(),
    };
    Ok(Leased { key, lease_end_ms: leased.lease_end_ms, record })
}

pub(crate) fn all_from_wire(records: Vec<wire::LeasedRecord>) -> Result<Vec<Leased>, Malformed> {
    records.into_iter().map(leased_from_wire).collect()
}

/// Records in messages of bounded size, in order.
pub(crate) fn in_messages(records: Vec<Leased>) -> Vec<wire::LeasedRecords> {
    let mut messages: Vec<wire::LeasedRecords> = Vec::new();
    let mut room = 0;
    for leased in records {
        let size = weight(&leased.record);
        if size > room || messages.is_empty() {
            messages.push(wire::LeasedRecords::default());
            room = MESSAGE_BYTES;
        }
        room = room.saturating_sub(size);
        if let Some(message) = messages.last_mut() {
            message.records.push(leased_to_wire(leased));
        }
    }
    messages
}

fn weight(record: &Record) -> usize {
    let len = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + len(value)).sum();
    len(&record.key) + len(&record.value) + headers + RECORD_OVERHEAD
}

pub(crate) fn settlement_to_wire(settle: &Settle, leases: &[LeaseKey]) -> wire::Settlement {
    let is_release = matches!(settle, Settle::Release { .. });
    let (kind, delay, reason) = match settle {
        Settle::Acknowledge => (wire::settlement::Kind::Acknowledge, None, String::new()),
        Settle::Refuse { delay, reason } => (wire::settlement::Kind::Refuse, *delay, reason.to_string()),
        Settle::Release { delay } => (wire::settlement::Kind::Refuse, *delay, String::new()),
        Settle::Extend { time } => (wire::settlement::Kind::Extend, *time, String::new()),
        Settle::Restart => (wire::settlement::Kind::Restart, None, String::new()),
        Settle::HandBack => (wire::settlement::Kind::HandBack, None, String::new()),
    };
    let id = |lease: &LeaseKey| wire::LeaseId {
        topic_uid: lease.topic.to_string(),
        partition: lease.partition,
        offset: lease.offset,
        term: lease.term,
        attempt: attempt_to_wire(lease.attempt),
    };
    wire::Settlement {
        kind: kind.into(),
        leases: leases.iter().map(id).collect(),
        delay_ms: delay.map(|delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)),
        reason,
        is_release,
    }
}

pub(crate) fn settlement_from_wire(settlement: wire::Settlement) -> Result<(Settle, Vec<LeaseKey>), Malformed> {
    let time = settlement.delay_ms.map(u64::try_from).transpose().map_err(|_| Malformed("delay"))?;
    let time = time.map(Duration::from_millis);
    let settle = match settlement.kind() {
        wire::settlement::Kind::Acknowledge => Settle::Acknowledge,
        wire::settlement::Kind::Refuse if settlement.is_release => Settle::Release { delay: time },
        wire::settlement::Kind::Refuse => Settle::Refuse { delay: time, reason: settlement.reason.as_str().into() },
        wire::settlement::Kind::Extend => Settle::Extend { time },
        wire::settlement::Kind::Restart => Settle::Restart,
        wire::settlement::Kind::HandBack => Settle::HandBack,
        wire::settlement::Kind::Unspecified => return Err(Malformed("settlement")),
    };
    let lease = |id: &wire::LeaseId| {
        Ok(LeaseKey {
            topic: topic(&id.topic_uid)?,
            partition: id.partition,
            offset: id.offset,
            term: id.term,
            attempt: attempt_from_wire(id.attempt)?,
        })
    };
    Ok((settle, settlement.leases.iter().map(lease).collect::<Result<_, _>>()?))
}

pub(crate) fn outcomes_to_wire(outcomes: Vec<SettleOutcome>) -> Vec<i32> {
    outcomes.into_iter().map(Into::into).collect()
}

/// Of an outcome that this build does not know nothing can be said.
pub(crate) fn outcomes_from_wire(outcomes: &[i32]) -> Vec<SettleOutcome> {
    let known = |outcome: &i32| SettleOutcome::try_from(*outcome).unwrap_or(SettleOutcome::Unavailable);
    outcomes.iter().map(known).collect()
}

fn topic(text: &str) -> Result<TopicUid, Malformed> {
    text.parse().map_err(|_| Malformed("topic uid"))
}

fn attempt_to_wire(attempt: u32) -> i32 {
    i32::try_from(attempt).unwrap_or(i32::MAX)
}

fn attempt_from_wire(attempt: i32) -> Result<u32, Malformed> {
    u32::try_from(attempt).map_err(|_| Malformed("attempt"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn leased(offset: i64, bytes: usize) -> Leased {
        let key = LeaseKey { topic: TopicUid::random(), partition: 1, offset, term: u64::MAX, attempt: 2 };
        let record = Record {
            offset,
            timestamp_ms: 5,
            timestamp_type: TimestampType::CreateTime,
            key: None,
            value: Some(Bytes::from(vec![b'x'; bytes])),
            headers: vec![(Bytes::from_static(b"h"), None), (Bytes::from_static(b"h"), Some(Bytes::new()))],
        };
        Leased { key, lease_end_ms: 9, record }
    }

    #[test]
    fn records_and_settlements_come_back_as_they_went() {
        let sent = leased(3, 10);
        let back = leased_from_wire(leased_to_wire(sent.clone())).expect("good");
        assert_eq!((back.key, back.lease_end_ms, back.record), (sent.key, sent.lease_end_ms, sent.record.clone()));
        for settle in [
            Settle::Acknowledge,
            Settle::Refuse { delay: Some(Duration::ZERO), reason: "no".into() },
            Settle::Refuse { delay: None, reason: "".into() },
            Settle::Release { delay: None },
            Settle::Release { delay: Some(Duration::from_secs(1)) },
            Settle::Extend { time: Some(Duration::from_secs(9)) },
            Settle::Restart,
            Settle::HandBack,
        ] {
            let sent_as = format!("{settle:?}");
            let (back, leases) = settlement_from_wire(settlement_to_wire(&settle, &[sent.key])).expect("good");
            assert_eq!((format!("{back:?}"), leases), (sent_as, vec![sent.key]));
        }
        assert!(settlement_from_wire(wire::Settlement::default()).is_err());
    }

    #[test]
    fn messages_are_bounded_and_a_large_record_goes_alone() {
        let records = vec![leased(0, 10), leased(1, MESSAGE_BYTES + 1), leased(2, 10), leased(3, 10)];
        let messages = in_messages(records);
        let offsets: Vec<Vec<i64>> =
            messages.iter().map(|message| message.records.iter().map(|record| record.offset).collect()).collect();
        assert_eq!(offsets, vec![vec![0], vec![1], vec![2, 3]]);
        assert!(in_messages(Vec::new()).is_empty());
    }
}
