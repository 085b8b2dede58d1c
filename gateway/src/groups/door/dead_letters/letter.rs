//! One dead letter, out of the record that holds it.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use sluice_kafka::SinkRecord;
use sluice_proto::stream::v1::{DeadLetter, PayloadEncoding};
use sluice_proto::wkt::Timestamp;
use sluice_types::record::{is_reserved_header, logical_bytes};
use sluice_wire::Record;

use crate::data::encode::{Bounds, encode};
use crate::data::records::time_header;
use crate::view::ResolvedTopic;

use super::page::Place;

/// For which group a record was published once more.
const REDRIVE_GROUP: &str = "sluice-redrive-group";
const ALL: Bounds = Bounds { bytes_max: u64::MAX, records_max: usize::MAX, message_bytes_max: usize::MAX };

/// A letter of one group.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    /// Where it lies in the dead-letter topic.
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// The tenants' name of the topic it came from.
    pub(super) origin: String,
    origin_partition: i32,
    origin_offset: i64,
    attempts: i32,
    reason: String,
    first_delivery: Option<Timestamp>,
    time: Option<Timestamp>,
    /// The record with the client's headers alone.
    record: Record,
}

impl Letter {
    /// The letter in a record, if it is one of this group.
    pub(super) fn read(mut record: Record, partition: i32, group: &str) -> Option<Self> {
        let headers = std::mem::take(&mut record.headers);
        let (ours, theirs): (Vec<_>, Vec<_>) = headers.into_iter().partition(|(name, _)| is_reserved_header(name));
        // Of two the last one is ours: clients cannot write such headers, but other tools might.
        let text = |name: &str| {
            let value = ours.iter().rev().find(|(known, _)| known.as_ref() == name.as_bytes())?.1.as_deref()?;
            std::str::from_utf8(value).ok()
        };
        if text("sluice-dlq-group") != Some(group) {
            return None;
        }
        let number = |name: &str| text(name).and_then(|text| text.parse::<i64>().ok());
        // As our JSON has times.
        let time = |name: &str| serde_json::from_value::<Timestamp>(serde_json::Value::from(text(name)?)).ok();
        let small = |name: &str| number(name).and_then(|value| i32::try_from(value).ok()).unwrap_or_default();
        let letter = Self {
            partition,
            offset: record.offset,
            origin: text("sluice-dlq-topic")?.to_owned(),
            origin_partition: small("sluice-dlq-partition"),
            origin_offset: number("sluice-dlq-offset").unwrap_or_default(),
            attempts: small("sluice-dlq-attempts"),
            reason: text("sluice-dlq-reason").unwrap_or_default().to_owned(),
            first_delivery: time("sluice-dlq-first-delivery"),
            time: time("sluice-dlq-time"),
            record: Record {
                headers: theirs,
                timestamp_ms: time("sluice-dlq-record-time").map_or(record.timestamp_ms, |time| time.as_millis()),
                ..record
            },
        };
        Some(letter)
    }

    /// Where a list goes on that has no room for it.
    pub(super) fn place(&self) -> Place {
        Place { partition: self.partition, offset: self.offset }
    }

    /// For the API, with its logical bytes.
    pub(super) fn show(&self, encoding: PayloadEncoding) -> (DeadLetter, u64) {
        let record = Record { offset: self.origin_offset, ..self.record.clone() };
        let mut encoded = encode(vec![record], self.origin_partition, encoding, ALL);
        let shown = DeadLetter {
            id: format!("{}-{}", self.partition, self.offset),
            record: encoded.records.pop().map(crate::data::encode::Shown::into_message),
            topic: self.origin.clone(),
            attempts: self.attempts,
            reason: self.reason.clone(),
            first_delivery_time: self.first_delivery,
            dead_letter_time: self.time,
        };
        (shown, encoded.bytes)
    }

    /// The client's record once more, for this group alone, with its logical bytes.
    pub(super) fn again(&self, topic: &ResolvedTopic, group: &str) -> (SinkRecord, u64) {
        let Record { key, value, headers, .. } = self.record.clone();
        let size = logical_bytes(
            key.as_deref(),
            value.as_deref(),
            headers.iter().map(|(name, value)| (&name[..], value.as_deref())),
        );
        let mut headers = headers;
        headers.push((Bytes::from_static(REDRIVE_GROUP.as_bytes()), Some(Bytes::from(group.to_owned()))));
        // Where it came from: it may have been published there on purpose, whatever its key says.
        let partition = self.origin_partition.clamp(0, topic.partitions - 1);
        // Its own time may be beyond the topic's retention; only a topic that does not go by it keeps it.
        if topic.log_append_time {
            headers.push(time_header(self.record.timestamp_ms));
        }
        (SinkRecord { partition, key, value, headers, timestamp_ms: now_ms() }, size)
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `{partition}-{offset}`.
pub(super) fn parse_id(id: &str) -> Option<(i32, i64)> {
    let (partition, offset) = id.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(partition) && digits(offset)).then_some(())?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use sluice_wire::TimestampType;

    use super::*;

    fn record(group: &str) -> Record {
        let header = |name: &str, value: &str| (Bytes::from(name.to_owned()), Some(Bytes::from(value.to_owned())));
        Record {
            offset: 4,
            timestamp_ms: 1_000,
            timestamp_type: TimestampType::CreateTime,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"v")),
            headers: vec![
                header("mine", "1"),
                header("sluice-dlq-group", group),
                header("sluice-dlq-topic", "namespaces/a/topics/orders"),
                header("sluice-dlq-partition", "2"),
                header("sluice-dlq-offset", "17"),
                header("sluice-dlq-attempts", "5"),
                header("sluice-dlq-reason", "no stock"),
                header("sluice-dlq-first-delivery", "2026-11-21T12:00:00Z"),
                header("sluice-dlq-time", "nonsense"),
                header("sluice-dlq-record-time", "1970-01-01T00:00:00.500Z"),
            ],
        }
    }

    #[test]
    fn a_letter_tells_where_it_came_from_and_only_to_its_group() {
        assert!(Letter::read(record("other"), 0, "mine").is_none());
        let letter = Letter::read(record("mine"), 1, "mine").expect("its own");
        let (shown, bytes) = letter.show(PayloadEncoding::Text);
        assert_eq!((shown.id.as_str(), shown.topic.as_str()), ("1-4", "namespaces/a/topics/orders"));
        assert_eq!((shown.attempts, shown.reason.as_str(), bytes), (5, "no stock", 7));
        let inner = shown.record.expect("a record");
        assert_eq!((inner.partition, inner.offset, inner.headers.len()), (2, 17, 1));
        assert_eq!(inner.timestamp.map(|time| time.as_millis()), Some(500), "the record's own time, not the letter's");
        assert!(shown.first_delivery_time.is_some() && shown.dead_letter_time.is_none());
    }

    #[test]
    fn ids_are_read_strictly() {
        assert_eq!(parse_id("1-4"), Some((1, 4)));
        for wrong in ["", "1", "-1-4", "1-", "1--4", "a-4", "1-4-", "+1-4", "1-99999999999999999999"] {
            assert_eq!(parse_id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_record_is_published_again_to_the_partition_it_came_from() {
        let letter = Letter::read(record("mine"), 1, "mine").expect("its own");
        let topic = ResolvedTopic::example(12);
        let by_key = sluice_types::partitioner::partition_of(b"k", 12);
        assert_ne!(by_key, 2);
        assert_eq!(letter.again(&topic, "mine").0.partition, 2);
        assert_eq!(
            letter.again(&ResolvedTopic { partitions: 2, ..topic }, "mine").0.partition,
            1,
            "as near as there is"
        );
    }
}
