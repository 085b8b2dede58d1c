//! A dead letter: the client's record with what happened to it.

use bytes::Bytes;

use sluice_kafka::SinkRecord;
use sluice_proto::wkt::Timestamp;
use sluice_types::partitioner::partition_of;
use sluice_types::record::{client_headers, logical_bytes, producers_time_ms};
use sluice_wire::Record;

use crate::groups::dispatch::dead_lettering::rereading::DeadRecord;
use crate::groups::window::DeathReason;
use crate::view::ResolvedTopic;

/// The groups that gave a record up, oldest first: their uids with commas between.
const PATH: &str = "sluice-dlq-path";
const GROUP: &str = "sluice-dlq-group";

/// The groups that have given a record up, by what they wrote on its letters.
pub(super) fn path_of(record: &Record) -> Vec<String> {
    let last = |wanted: &str| {
        let value = record.headers.iter().rev().find(|(name, _)| name.as_ref() == wanted.as_bytes())?.1.as_deref()?;
        std::str::from_utf8(value).ok()
    };
    match last(PATH).or_else(|| last(GROUP)) {
        Some(path) => path.split(',').map(str::to_owned).collect(),
        None => Vec::new(),
    }
}

/// The client's record with what happened to it, and its logical bytes.
pub(super) fn letter(
    record: Record,
    path: &[String],
    dead_record: &DeadRecord,
    group: &str,
    topic: &ResolvedTopic,
    now_ms: i64,
) -> (SinkRecord, u64) {
    let Record { key, value, headers, timestamp_ms, .. } = record;
    let timestamp_ms = producers_time_ms(&headers).unwrap_or(timestamp_ms);
    let mut headers = client_headers(headers);
    let of_headers = headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
    let size = logical_bytes(key.as_deref(), value.as_deref(), of_headers);
    let reason = match &dead_record.dead.reason {
        DeathReason::Refused(reason) => reason.to_string(),
        DeathReason::DeadlineExceeded => "ack deadline exceeded".to_owned(),
    };
    let time = |ms: i64| Timestamp::from_millis(ms).to_string();
    let path = path.iter().map(String::as_str).chain([group]).collect::<Vec<_>>().join(",");
    let ours: [(&'static str, String); 10] = [
        (GROUP, group.to_owned()),
        (PATH, path),
        ("sluice-dlq-topic", dead_record.topic.clone()),
        ("sluice-dlq-partition", dead_record.place.partition.to_string()),
        ("sluice-dlq-offset", dead_record.dead.offset.to_string()),
        ("sluice-dlq-attempts", dead_record.dead.attempts.to_string()),
        ("sluice-dlq-reason", reason),
        ("sluice-dlq-first-delivery", time(dead_record.dead.first_delivery)),
        ("sluice-dlq-time", time(now_ms)),
        ("sluice-dlq-record-time", time(timestamp_ms)),
    ];
    headers.extend(ours.map(|(name, value)| (Bytes::from_static(name.as_bytes()), Some(Bytes::from(value)))));
    let keyless = dead_record.dead.offset.unsigned_abs() % u64::from(topic.partitions.max(1).unsigned_abs());
    let partition = match &key {
        Some(key) => partition_of(key, topic.partitions),
        None => i32::try_from(keyless).unwrap_or(0),
    };
    // Its retention begins now, not when the record was published.
    (SinkRecord { partition, key, value, headers, timestamp_ms: now_ms }, size)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::groups::dispatch::dead_lettering) fn record(
        offset: i64,
        headers: &[(&'static str, &'static str)],
    ) -> Record {
        let header = |(name, value): &(&'static str, &'static str)| {
            (Bytes::from_static(name.as_bytes()), Some(Bytes::from_static(value.as_bytes())))
        };
        Record {
            offset,
            timestamp_ms: 1,
            timestamp_type: sluice_wire::TimestampType::CreateTime,
            key: None,
            value: None,
            headers: headers.iter().map(header).collect(),
        }
    }

    #[test]
    fn the_path_of_a_record_is_what_groups_wrote_last() {
        assert!(path_of(&record(0, &[("mine", "x")])).is_empty());
        assert_eq!(path_of(&record(0, &[("sluice-dlq-group", "a")])), ["a"], "a letter of an older build");
        let twice = [("sluice-dlq-path", "a"), ("sluice-dlq-group", "b"), ("sluice-dlq-path", "a,b")];
        assert_eq!(path_of(&record(0, &twice)), ["a", "b"]);
    }
}
