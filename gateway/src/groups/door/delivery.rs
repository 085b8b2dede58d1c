//! From leased records to what a consumer gets, counted and charged as it goes out.

use std::sync::Arc;

use sluice_proto::stream::v1::{PayloadEncoding, ReceivedRecord};
use sluice_proto::wkt::Timestamp;
use sluice_types::TopicUid;

use crate::data::encode::{Bounds, IntoJson, Shown, around, encode};
use crate::groups::door::Shared;
use crate::groups::model::{Leased, ResolvedGroup};
use crate::ports::{DataCall, ResolvedTopic};

/// The dispatcher has bounded what it sent.
const ALL: Bounds = Bounds { bytes_max: u64::MAX, records_max: usize::MAX };

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
    /// Their logical bytes.
    pub(super) bytes: u64,
}

impl Shared {
    /// Encodes records, counts them as delivered and charges their bytes.
    pub(super) fn deliver(
        &self,
        call: &DataCall,
        group: &ResolvedGroup,
        encoding: PayloadEncoding,
        leased: Vec<Leased>,
    ) -> Delivered {
        let mut delivered = Delivered { records: Vec::with_capacity(leased.len()), bytes: 0 };
        let mut topics: Vec<(TopicUid, Option<Arc<ResolvedTopic>>)> = Vec::new();
        let mut leased = leased.into_iter().peekable();
        while let Some(first) = leased.next() {
            // A run of one partition.
            let (topic_uid, partition) = (first.key.topic, first.key.partition);
            let (mut leases, mut records) = (vec![(first.key, first.lease_end_ms)], vec![first.record]);
            while let Some(next) = leased.next_if(|next| next.key.topic == topic_uid && next.key.partition == partition)
            {
                leases.push((next.key, next.lease_end_ms));
                records.push(next.record);
            }
            let known = topics.iter().position(|(uid, _)| *uid == topic_uid).unwrap_or_else(|| {
                topics.push((topic_uid, topic_of(call, group, topic_uid)));
                topics.len() - 1
            });
            // A topic that is gone has no name any more; nor do its leases count.
            let Some(topic) = &topics[known].1 else { continue };
            let encoded = encode(records, partition, encoding, ALL);
            let count = encoded.records.len() as u64;
            self.tools.meter.delivered(topic, partition, count, encoded.bytes);
            self.metrics.delivered(&leases);
            delivered.bytes += encoded.bytes;
            delivered.records.extend(encoded.records.into_iter().zip(leases).map(|(record, (lease, end_ms))| {
                let envelope = ReceivedRecord {
                    ack_id: self.ack_ids.make(group.group_uid, lease),
                    topic: topic.name.clone(),
                    record: None,
                    attempt: i32::try_from(lease.attempt).unwrap_or(i32::MAX),
                    lease_end_time: Some(Timestamp::from_millis(end_ms)),
                };
                Received { envelope, record }
            }));
        }
        call.limiter.charge_egress(delivered.bytes);
        delivered
    }
}

fn topic_of(call: &DataCall, group: &ResolvedGroup, uid: TopicUid) -> Option<Arc<ResolvedTopic>> {
    let tenant = call.view().tenant(group.tenant_uid)?;
    let names = tenant.names();
    group.topics.iter().find_map(|topic| names.topic_of(group.namespace_uid, topic, uid))
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;

    use sluice_wire::{Record, TimestampType};

    use super::*;

    /// A record with this JSON as its value.
    pub(in crate::groups::door) fn received(ack_id: &str, value: &'static str) -> Received {
        let record = Record {
            offset: 7,
            timestamp_ms: 1_000,
            timestamp_type: TimestampType::CreateTime,
            key: None,
            value: Some(Bytes::from_static(value.as_bytes())),
            headers: Vec::new(),
        };
        let mut encoded = encode(vec![record], 2, PayloadEncoding::Json, ALL);
        let envelope = ReceivedRecord { ack_id: ack_id.into(), attempt: 1, ..ReceivedRecord::default() };
        Received { envelope, record: encoded.records.pop().expect("one") }
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
