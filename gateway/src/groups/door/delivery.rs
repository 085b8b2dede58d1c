//! From leased records to what a consumer gets; counted when the consumer's transport has taken it.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use sluice_proto::stream::v1::{PayloadEncoding, ReceivedRecord};
use sluice_proto::wkt::Timestamp;
use sluice_types::TopicUid;

use crate::access::DataCall;
use crate::data::encode::{ANSWER_MESSAGE_BYTES_MAX, Bounds, IntoJson, Shown, around, encode};
use crate::groups::door::Shared;
use crate::groups::model::{LeaseKey, Leased, ResolvedGroup};
use crate::view::ResolvedTopic;

/// The dispatcher has bounded what it sent.
const ALL: Bounds = Bounds { bytes_max: u64::MAX, records_max: usize::MAX, message_bytes_max: usize::MAX };

/// The tag and the length of a field.
const FIELD_BYTES_MAX: usize = 16;

/// A record as a consumer gets it, in no protocol's form yet.
#[derive(Debug)]
pub(super) struct Received {
    /// Without its record.
    pub(super) envelope: ReceivedRecord,
    pub(super) record: Shown,
}

impl Received {
    pub(super) fn into_message(self) -> ReceivedRecord {
        ReceivedRecord { record: Some(self.record.into_message()), ..self.envelope }
    }

    /// No more than this is its message in protobuf.
    fn message_bytes_max(&self) -> usize {
        self.envelope.encoded_len() + self.record.message_bytes_max() + FIELD_BYTES_MAX
    }

    /// The same nearly to the byte, for more work.
    fn message_bytes(&self) -> usize {
        self.envelope.encoded_len() + self.record.message_bytes() + FIELD_BYTES_MAX
    }
}

impl IntoJson for Received {
    fn into_json(self) -> serde_json::Result<Vec<u8>> {
        around(&self.envelope, self.record)
    }
}

/// As messages.
pub(super) fn messages(records: Vec<Received>) -> Vec<ReceivedRecord> {
    records.into_iter().map(Received::into_message).collect()
}

/// Records for a consumer.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    pub(super) records: Vec<Received>,
    pub(super) tally: Tally,
    /// Leases of records whose topic this gateway does not know, or not any more: nobody gets these here.
    pub(super) strays: Vec<LeaseKey>,
}

/// What is counted of records once they were taken.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Their leases, each with its logical bytes.
    leases: Vec<(LeaseKey, u64)>,
    topics: Vec<Arc<ResolvedTopic>>,
}

/// Memory that records hold.
pub(super) fn held_bytes(records: &[Leased]) -> u64 {
    let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let held = records.iter().map(|Leased { record, .. }| {
        let headers: usize = record.headers.iter().map(|(name, value)| name.len() + len(value)).sum();
        len(&record.key) + len(&record.value) + headers + size_of::<Leased>()
    });
    held.sum::<usize>() as u64
}

/// Parts a delivery into messages of bounded size, as they are in protobuf.
pub(super) fn in_messages(records: Vec<Received>) -> Vec<Vec<Received>> {
    let mut messages: Vec<Vec<Received>> = Vec::new();
    let mut room = 0;
    for received in records {
        let size = received.message_bytes_max();
        if size > room || messages.is_empty() {
            messages.push(Vec::new());
            room = ANSWER_MESSAGE_BYTES_MAX;
        }
        room = room.saturating_sub(size);
        if let Some(message) = messages.last_mut() {
            message.push(received);
        }
    }
    messages
}

impl Delivered {
    /// Keeps what fits in one message in protobuf, at least one record; gives the leases of the rest.
    pub(super) fn fit_in_message(&mut self) -> Vec<LeaseKey> {
        let whole: usize = self.records.iter().map(Received::message_bytes_max).sum();
        if whole <= ANSWER_MESSAGE_BYTES_MAX {
            return Vec::new();
        }
        let mut bytes = 0;
        let fits = self.records.iter().take_while(|received| {
            let is_first = bytes == 0;
            bytes += received.message_bytes();
            is_first || bytes <= ANSWER_MESSAGE_BYTES_MAX
        });
        let kept = fits.count();
        self.records.truncate(kept);
        self.tally.keep(kept)
    }
}

impl Shared {
    /// Encodes records; those of topics that have no name here are told apart.
    pub(super) fn encode(
        &self,
        call: &DataCall,
        group: &ResolvedGroup,
        encoding: PayloadEncoding,
        leased: Vec<Leased>,
    ) -> Delivered {
        let mut delivered = Delivered { records: Vec::with_capacity(leased.len()), ..Delivered::default() };
        let mut topics: Vec<(TopicUid, Option<Arc<ResolvedTopic>>)> = Vec::new();
        for Leased { key, lease_end_ms, record } in leased {
            let known = topics.iter().position(|(uid, _)| *uid == key.topic).unwrap_or_else(|| {
                topics.push((key.topic, topic_of(call, group, key.topic)));
                topics.len() - 1
            });
            // It is gone, or this gateway has not heard of it yet: the dispatcher finds out which.
            let Some(topic) = &topics[known].1 else {
                delivered.strays.push(key);
                continue;
            };
            let encoded = encode(vec![record], key.partition, encoding, ALL);
            delivered.tally.leases.push((key, encoded.bytes));
            delivered.records.extend(encoded.records.into_iter().map(|record| {
                let envelope = ReceivedRecord {
                    ack_id: self.ack_ids.make(group.group_uid, key),
                    topic: topic.name.clone(),
                    record: None,
                    attempt: i32::try_from(key.attempt).unwrap_or(i32::MAX),
                    lease_end_time: Some(Timestamp::from_millis(lease_end_ms)),
                };
                Received { envelope, record }
            }));
        }
        delivered.tally.topics = topics.into_iter().filter_map(|(_, topic)| topic).collect();
        delivered
    }

    /// Counts records that a consumer's transport has taken.
    pub(super) fn delivered(&self, tally: &Tally) {
        let runs = tally.leases.chunk_by(|(a, _), (b, _)| (a.topic, a.partition) == (b.topic, b.partition));
        for run in runs {
            let Some((first, _)) = run.first() else { continue };
            if let Some(topic) = tally.topics.iter().find(|topic| topic.topic_uid == first.topic) {
                let bytes = run.iter().map(|(_, bytes)| bytes).sum();
                self.meter.delivered(topic, first.partition, run.len() as u64, bytes);
            }
        }
        self.metrics.delivered(tally.leases.iter().map(|(lease, _)| lease));
    }
}

impl Tally {
    /// Logical bytes of all.
    pub(super) fn bytes(&self) -> u64 {
        self.leases.iter().map(|(_, bytes)| bytes).sum()
    }

    pub(super) fn leases(&self) -> Vec<LeaseKey> {
        self.leases.iter().map(|(lease, _)| *lease).collect()
    }

    /// Keeps the first ones; gives the leases of the others.
    fn keep(&mut self, count: usize) -> Vec<LeaseKey> {
        self.leases.split_off(count.min(self.leases.len())).into_iter().map(|(lease, _)| lease).collect()
    }
}

fn topic_of(call: &DataCall, group: &ResolvedGroup, uid: TopicUid) -> Option<Arc<ResolvedTopic>> {
    let tenant = call.view().tenant(group.tenant_uid)?;
    let names = tenant.names();
    group.topics.iter().find_map(|topic| names.topic_of(group.namespace_uid, topic, uid))
}

#[cfg(test)]
pub(super) mod tests {
    use sluice_wire::{Record, TimestampType};

    use super::*;

    pub(in crate::groups::door) fn record(value: Option<&'static [u8]>) -> Record {
        Record {
            offset: 7,
            timestamp_ms: 1_000,
            timestamp_type: TimestampType::CreateTime,
            key: None,
            value: value.map(Bytes::from_static),
            headers: Vec::new(),
        }
    }

    /// A record with this JSON as its value.
    pub(in crate::groups::door) fn received(ack_id: &str, value: &'static str) -> Received {
        encoded(ack_id, record(Some(value.as_bytes())), PayloadEncoding::Json)
    }

    pub(in crate::groups::door) fn encoded(ack_id: &str, record: Record, encoding: PayloadEncoding) -> Received {
        let mut encoded = encode(vec![record], 2, encoding, ALL);
        let envelope = ReceivedRecord { ack_id: ack_id.into(), attempt: 1, ..ReceivedRecord::default() };
        Received { envelope, record: encoded.records.pop().expect("one") }
    }

    #[test]
    fn messages_and_answers_are_bounded_and_what_does_not_fit_is_named() {
        let record = |offset| {
            let value = Some(Bytes::from(vec![7; 1 << 20]));
            let timestamp_type = TimestampType::CreateTime;
            let record = Record { offset, timestamp_ms: 1, timestamp_type, key: None, value, headers: Vec::new() };
            let shown = encode(vec![record], 2, PayloadEncoding::Bytes, ALL).records.pop().expect("one");
            Received { envelope: ReceivedRecord::default(), record: shown }
        };
        let messages = in_messages((0..5).map(record).collect());
        assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2]);
        let lease = |offset| LeaseKey { topic: TopicUid::random(), partition: 2, offset, term: 1, attempt: 1 };
        let leases: Vec<LeaseKey> = (0..5).map(lease).collect();
        let tally = Tally { leases: leases.iter().map(|lease| (*lease, 1 << 20)).collect(), topics: Vec::new() };
        let mut delivered = Delivered { records: (0..5).map(record).collect(), tally, ..Delivered::default() };
        assert_eq!(delivered.fit_in_message(), leases[3..]);
        assert_eq!((delivered.records.len(), delivered.tally.bytes()), (3, 3 << 20));
        assert_eq!(delivered.fit_in_message(), []);
    }

    #[test]
    fn a_record_is_the_same_in_both_forms_but_for_the_digits() {
        let json = received("a", "{\"id\":1.50}").into_json().expect("JSON");
        let text = std::str::from_utf8(&json).expect("text");
        assert!(text.contains("\"valueJson\":{\"id\":1.50}"), "{text}");
        let read: ReceivedRecord = serde_json::from_slice(&json).expect("a message");
        assert_eq!(read, received("a", "{\"id\":1.5}").into_message());
    }
}
