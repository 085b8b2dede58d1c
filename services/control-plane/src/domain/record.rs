//! Rows as records of `sluice.control`: the full state of one resource with its version.

use prost::Message as _;
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{
    AccountState as AccountRecord, ControlRecord, Grant as GrantRecord, GroupState as GroupRecord,
    KeyState as KeyRecord, Life, Limits, NamespaceState as NamespaceRecord, TenantState as TenantRecord,
    TopicState as TopicRecord, group_state,
};
use sluice_types::{TenantUid, Uid};

use crate::domain::group::{self, Beginning};
use crate::domain::topic::is_compacted;
use crate::store::account::{Account, AccountState};
use crate::store::group::{GroupRow, GroupState};
use crate::store::key::{KeyRow, KeyState};
use crate::store::namespace::{NamespaceRow, NamespaceState};
use crate::store::tenant::{TenantRow, TenantState};
use crate::store::topic::{TopicRow, TopicState};

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

/// A payload with its outbox id, as it stands in the log.
pub(crate) fn with_outbox_id(payload: &[u8], id: i64) -> Result<Vec<u8>, prost::DecodeError> {
    let mut record = ControlRecord::decode(payload)?;
    record.outbox_id = id;
    Ok(record.encode_to_vec())
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
