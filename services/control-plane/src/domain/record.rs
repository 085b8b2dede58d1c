//! Rows as records of `sluice.control`: the full state of one resource with its version.

use prost::Message as _;
use prost::encoding::int64;
use sha2::{Digest as _, Sha256};
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{
    AccountState as AccountRecord, ControlRecord, Grant as GrantRecord, GroupState as GroupRecord,
    KeyState as KeyRecord, Life, Limits, LogComplete, NamespaceState as NamespaceRecord, TenantState as TenantRecord,
    TopicState as TopicRecord, group_state,
};
use sluice_types::{TenantUid, Uid};
use sluice_wire::KafkaTopicId;

use crate::domain::group::{self, Beginning};
use crate::domain::topic::{is_compacted, keeps_append_time, placement, record_age_ms_max};
use crate::store::account::{Account, AccountState};
use crate::store::group::{GroupRow, GroupState};
use crate::store::key::{KeyRow, KeyState};
use crate::store::namespace::{NamespaceRow, NamespaceState};
use crate::store::tenant::{TenantRow, TenantState};
use crate::store::topic::{TopicRow, TopicState};

/// Fields of [`ControlRecord`].
const VERSION_TAG: u32 = 1;
const OUTBOX_ID_TAG: u32 = 4;

/// A record ready for the outbox; the relay fills in the outbox id.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) aggregate: Uid,
    pub(crate) version: i64,
    pub(crate) gone: bool,
    pub(crate) payload: Vec<u8>,
}

fn entry(tenant: TenantUid, aggregate: Uid, version: i64, time_us: i64, gone: bool, resource: Resource) -> Entry {
    let record = ControlRecord {
        version,
        tenant_uid: tenant.to_string(),
        commit_time_ms: time_us / 1_000,
        outbox_id: 0,
        resource: Some(resource),
    };
    Entry { aggregate, version, gone, payload: record.encode_to_vec() }
}

/// A payload with its outbox id, as it stands in the log. It is appended, since of a field that is there twice the last value
/// counts: what a newer build wrote and this one does not know goes through unchanged.
pub(crate) fn with_outbox_id(payload: &[u8], id: i64) -> Vec<u8> {
    let mut value = payload.to_vec();
    int64::encode(OUTBOX_ID_TAG, &id, &mut value);
    value
}

/// The payload that a value of the log was made of.
pub(crate) fn without_outbox_id(value: &[u8], record: &ControlRecord) -> Vec<u8> {
    let suffix = with_outbox_id(&[], record.outbox_id);
    match value.strip_suffix(suffix.as_slice()) {
        Some(payload) => payload.to_vec(),
        // As older builds wrote it: among the other fields.
        None => ControlRecord { outbox_id: 0, ..record.clone() }.encode_to_vec(),
    }
}

/// The same state under another version; unknown fields stay.
pub(crate) fn with_version(payload: &[u8], version: i64) -> Vec<u8> {
    let mut raised = payload.to_vec();
    int64::encode(VERSION_TAG, &version, &mut raised);
    raised
}

/// 64 bits that tell one payload from another: the first of its SHA-256, as the database computes them.
pub(crate) fn digest(payload: &[u8]) -> i64 {
    let hash: [u8; 32] = Sha256::digest(payload).into();
    hash.first_chunk().map_or(0, |head| i64::from_be_bytes(*head))
}

/// Whether the resource is out of service for good.
pub(crate) fn is_gone(record: &ControlRecord) -> bool {
    let life = match &record.resource {
        Some(Resource::Tenant(it)) => it.life,
        Some(Resource::Namespace(it)) => it.life,
        Some(Resource::Topic(it)) => it.life,
        Some(Resource::Account(it)) => it.life,
        Some(Resource::Key(it)) => it.life,
        Some(Resource::Group(it)) => it.life,
        Some(Resource::Complete(_)) | None => return false,
    };
    life == Life::Gone as i32
}

/// The end of a resource of which only this record is left; `None` if this build does not know its kind.
pub(crate) fn ended(mut record: ControlRecord, version: i64, time_us: i64) -> Option<Entry> {
    let gone = Life::Gone as i32;
    let uid = match record.resource.as_mut()? {
        Resource::Tenant(it) => (it.life = gone, it.uid.parse::<Uid>().ok()?).1,
        Resource::Namespace(it) => (it.life = gone, it.uid.parse().ok()?).1,
        Resource::Topic(it) => (it.life = gone, it.uid.parse().ok()?).1,
        Resource::Account(it) => (it.life = gone, it.uid.parse().ok()?).1,
        Resource::Key(it) => (it.life = gone, it.key_id.parse().ok()?).1,
        Resource::Group(it) => (it.life = gone, it.uid.parse().ok()?).1,
        Resource::Complete(_) => return None,
    };
    let tenant: TenantUid = record.tenant_uid.parse().ok()?;
    Some(entry(tenant, uid, version, time_us, true, record.resource?))
}

/// A tenant. One being deleted is out of service for good.
pub(crate) fn tenant(row: &TenantRow) -> Entry {
    let gone = row.state != TenantState::Active;
    let state = TenantRecord {
        uid: row.uid().to_string(),
        id: row.id.clone(),
        life: if gone { Life::Gone } else { Life::Active } as i32,
        suspended: row.suspended,
        limits: Some(Limits {
            requests_per_second: row.requests_per_second,
            ingress_bytes_per_second: row.ingress_bytes_per_second,
            egress_bytes_per_second: row.egress_bytes_per_second,
            bytes_in_flight: row.bytes_in_flight,
        }),
    };
    entry(row.uid(), row.uid().uid(), row.version, row.update_us, gone, Resource::Tenant(state))
}

/// A namespace.
pub(crate) fn namespace(tenant: TenantUid, row: &NamespaceRow) -> Entry {
    let gone = row.state == NamespaceState::Deleted;
    let life = if gone { Life::Gone } else { Life::Active } as i32;
    let state = NamespaceRecord { uid: row.uid().to_string(), id: row.id.clone(), life };
    entry(tenant, row.uid().uid(), row.version, row.update_us, gone, Resource::Namespace(state))
}

/// A topic. Being changed it stays in service with the partitions that exist; being deleted it is gone at once.
pub(crate) fn topic(tenant: TenantUid, row: &TopicRow) -> Entry {
    let life = match row.state {
        TopicState::Creating | TopicState::Failed => Life::Pending,
        TopicState::Active | TopicState::Updating => Life::Active,
        TopicState::Deleting | TopicState::Deleted => Life::Gone,
    };
    let state = TopicRecord {
        uid: row.uid().to_string(),
        id: row.id.clone(),
        namespace_uid: row.namespace_uid().to_string(),
        life: life as i32,
        partitions: row.observed_partitions,
        final_end_offsets: row.final_end_offsets.clone(),
        namespace_id: row.namespace_id.clone(),
        compacted: is_compacted(row),
        record_age_ms_max: record_age_ms_max(row).unwrap_or(0),
        log_append_time: keeps_append_time(row),
        placement: Some(placement(row).record()),
    };
    // A topic that is being deleted must not get its tombstone before it is deleted.
    let gone = row.state == TopicState::Deleted;
    entry(tenant, row.uid().uid(), row.version, row.update_us, gone, Resource::Topic(state))
}

/// A consumer group, with its defaults.
pub(crate) fn group(tenant: TenantUid, row: &GroupRow) -> Entry {
    let gone = row.state == GroupState::Deleted;
    let effective = group::effective(row);
    let state = GroupRecord {
        uid: row.uid().to_string(),
        id: row.id.clone(),
        namespace_uid: row.namespace_uid().to_string(),
        namespace_id: row.namespace_id.clone(),
        life: if gone { Life::Gone } else { Life::Active } as i32,
        topic_ids: row.topic_ids.clone(),
        start: Some(match effective.start {
            Beginning::Earliest => group_state::Start::StartEarliest(true),
            Beginning::Latest => group_state::Start::StartEarliest(false),
            Beginning::Time(us) => group_state::Start::StartTimeMs(millis_up(us)),
        }),
        key_ordered: effective.key_ordered,
        ack_deadline_ms: effective.ack_deadline_ms,
        max_attempts: effective.max_attempts,
        minimum_backoff_ms: effective.minimum_backoff_ms,
        maximum_backoff_ms: effective.maximum_backoff_ms,
        dead_letter_topic_id: row.dead_letter_topic_id.clone().unwrap_or_default(),
        create_time_ms: row.create_us.div_euclid(1_000),
    };
    entry(tenant, row.uid().uid(), row.version, row.update_us, gone, Resource::Group(state))
}

/// Milliseconds, rounded up.
fn millis_up(us: i64) -> i64 {
    us.div_euclid(1_000) + i64::from(us.rem_euclid(1_000) > 0)
}

/// A service account.
pub(crate) fn account(tenant: TenantUid, account: &Account) -> Entry {
    let row = &account.row;
    let gone = row.state == AccountState::Deleted;
    let grant = |grant: &sluice_types::Grant| GrantRecord {
        role: grant.role.as_str().to_owned(),
        resource: if grant.resource.is_empty() { "*".to_owned() } else { grant.resource.clone() },
    };
    // Readers that are newer than this process know what it grants.
    let unknown = |(role, resource): &(String, String)| GrantRecord {
        role: role.clone(),
        resource: if resource.is_empty() { "*".to_owned() } else { resource.clone() },
    };
    let state = AccountRecord {
        uid: row.uid().to_string(),
        id: row.id.clone(),
        life: if gone { Life::Gone } else { Life::Active } as i32,
        grants: account.grants.iter().map(grant).chain(account.unknown.iter().map(unknown)).collect(),
    };
    entry(tenant, row.uid().uid(), row.version, row.update_us, gone, Resource::Account(state))
}

/// An API key.
pub(crate) fn key(tenant: TenantUid, row: &KeyRow) -> Entry {
    let gone = row.state == KeyState::Revoked;
    let state = KeyRecord {
        key_id: row.uid().to_string(),
        account_uid: row.account_uid().to_string(),
        hash: row.hash.clone().into(),
        life: if gone { Life::Gone } else { Life::Active } as i32,
        // Rounded up: a key must not stop before the time its holder was told.
        expire_time_ms: row.expire_us.map_or(0, millis_up),
    };
    entry(tenant, row.uid().uid(), row.version, row.update_us, gone, Resource::Key(state))
}

/// Says that this log holds everything: so many resources. `answers` names the waits of gateways that it ends.
pub(crate) fn complete(log: KafkaTopicId, resources: usize, answers: Vec<String>) -> ControlRecord {
    let resources = i64::try_from(resources).unwrap_or(i64::MAX);
    let complete = LogComplete { resources, control_topic_id: log.to_string(), answers };
    ControlRecord { resource: Some(Resource::Complete(complete)), ..ControlRecord::default() }
}

#[cfg(test)]
mod tests {
    use sluice_log::Placement;
    use sluice_proto::admin::v1::Topic;
    use sluice_types::{ClusterUid, LogUid};

    use super::*;
    use crate::domain::topic::tests::row;

    fn record(version: i64) -> ControlRecord {
        ControlRecord { version, tenant_uid: Uid::random().to_string(), commit_time_ms: 7, ..Default::default() }
    }

    #[test]
    fn what_a_newer_build_wrote_goes_into_the_log_unchanged() {
        let mut payload = record(3).encode_to_vec();
        int64::encode(4_000, &77, &mut payload);
        let value = with_outbox_id(&with_version(&payload, 9), 42);
        let read = ControlRecord::decode(value.as_slice()).expect("a record");
        assert_eq!((read.version, read.outbox_id), (9, 42));
        assert!(value.starts_with(&payload), "no byte is lost");
        assert_eq!(without_outbox_id(&value, &read), with_version(&payload, 9));
    }

    #[test]
    fn a_value_of_an_older_build_is_known_by_its_payload() {
        let payload = record(3).encode_to_vec();
        let older = ControlRecord { outbox_id: 42, ..ControlRecord::decode(payload.as_slice()).expect("a record") };
        assert_eq!(without_outbox_id(&older.encode_to_vec(), &older), payload);
    }

    #[test]
    fn the_record_of_a_topic_says_where_its_records_lie() {
        let cluster = ClusterUid::random();
        let row = TopicRow { cluster_uid: cluster.as_i64(), ..row(&Topic::default()) };
        let record = ControlRecord::decode(topic(TenantUid::random(), &row).payload.as_slice()).expect("a record");
        let Some(Resource::Topic(state)) = record.resource else { panic!("a topic") };
        let read = Placement::of_record(state.placement.as_ref(), row.uid()).expect("a placement");
        assert_eq!(read, Placement::unmoved(cluster, LogUid::first_of(row.uid())));
    }

    #[test]
    fn a_resource_of_which_only_the_record_is_left_can_be_ended() {
        let (uid, tenant) = (Uid::random(), TenantUid::random());
        let key = KeyRecord { key_id: uid.to_string(), life: Life::Active as i32, ..Default::default() };
        let record = ControlRecord {
            tenant_uid: tenant.to_string(),
            resource: Some(Resource::Key(key)),
            ..ControlRecord::default()
        };
        assert!(!is_gone(&record));
        let end = ended(record, 8, 5_000).expect("a key can end");
        assert_eq!((end.aggregate, end.version, end.gone), (uid, 8, true));
        assert!(is_gone(&ControlRecord::decode(end.payload.as_slice()).expect("a record")));
        assert!(ended(ControlRecord::default(), 1, 0).is_none(), "a kind that this build does not know");
    }
}
