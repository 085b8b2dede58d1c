//! From leased records to what a consumer gets, counted and charged as it goes out.

use std::sync::Arc;

use sluice_proto::stream::v1::{PayloadEncoding, ReceivedRecord};
use sluice_proto::wkt::Timestamp;
use sluice_types::TopicUid;

use crate::data::encode::{Bounds, encode};
use crate::groups::door::Shared;
use crate::groups::model::{Leased, ResolvedGroup};
use crate::ports::{DataCall, ResolvedTopic};

/// The dispatcher has bounded what it sent.
const ALL: Bounds = Bounds { bytes_max: u64::MAX, records_max: usize::MAX };

/// Records for a consumer.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    pub(super) records: Vec<ReceivedRecord>,
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
                ReceivedRecord {
                    ack_id: self.ack_ids.make(group.group_uid, lease),
                    topic: topic.name.clone(),
                    record: Some(record.into_message()),
                    attempt: i32::try_from(lease.attempt).unwrap_or(i32::MAX),
                    lease_end_time: Some(Timestamp::from_millis(end_ms)),
                }
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
