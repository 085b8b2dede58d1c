//! Rows as the API shows them.

use prost::Message as _;
use sluice_process::TenantDefaults;
use sluice_proto::admin::v1 as api;
use sluice_proto::operator::v1 as operator;
use sluice_proto::wkt::{Any, Duration, Timestamp};
use sluice_types::{Role, TenantId};

use crate::config::Limits;
use crate::domain::etag::etag;
use crate::domain::fields::or_default;
use crate::store::account::Account;
use crate::store::cluster::ClusterRow;
use crate::store::group::GroupRow;
use crate::store::key::{KeyRow, KeyState};
use crate::store::namespace::{NamespaceRow, NamespaceState};
use crate::store::tenant::{TenantRow, TenantState};
use crate::store::topic::{StoredCondition, TopicRow, TopicState};

fn time(us: i64) -> Option<Timestamp> {
    Some(Timestamp::from_micros(us))
}

/// A namespace.
pub(crate) fn namespace(row: &NamespaceRow) -> api::Namespace {
    let state = match row.state {
        NamespaceState::Active => api::namespace::State::Active,
        NamespaceState::Deleted => api::namespace::State::Deleted,
    };
    api::Namespace {
        name: row.name(),
        uid: row.uid().to_string(),
        display_name: row.display_name.clone(),
        labels: row.labels.0.clone(),
        deletion_protection: row.deletion_protection,
        create_time: time(row.create_us),
        update_time: time(row.update_us),
        etag: etag(row.uid().uid(), row.version),
        state: state as i32,
        reconciling: false,
        conditions: Vec::new(),
    }
}

/// A topic.
pub(crate) fn topic(row: &TopicRow) -> api::Topic {
    let state = match row.state {
        TopicState::Creating => api::topic::State::Creating,
        TopicState::Active => api::topic::State::Active,
        TopicState::Updating => api::topic::State::Updating,
        TopicState::Deleting => api::topic::State::Deleting,
        TopicState::Deleted => api::topic::State::Deleted,
        TopicState::Failed => api::topic::State::Failed,
    };
    let on_the_way = matches!(row.state, TopicState::Creating | TopicState::Updating | TopicState::Deleting);
    api::Topic {
        name: row.name(),
        uid: row.uid().to_string(),
        display_name: row.display_name.clone(),
        labels: row.labels.0.clone(),
        partition_count: row.partition_count,
        retention: row.retention_ms.map(Duration::from_millis),
        cleanup_policy: row.cleanup_policy,
        deletion_protection: row.deletion_protection,
        effective_partition_count: row.effective_partitions,
        effective_retention: Some(Duration::from_millis(row.effective_retention_ms)),
        create_time: time(row.create_us),
        update_time: time(row.update_us),
        etag: etag(row.uid().uid(), row.version),
        state: state as i32,
        reconciling: on_the_way,
        conditions: row.conditions.0.iter().map(condition).collect(),
        generation: row.generation,
        observed_generation: row.observed_generation,
        timestamp_policy: row.timestamp_policy,
    }
}

/// A consumer group, as it was sent.
pub(crate) fn group(row: &GroupRow) -> api::Group {
    use api::group::Start;
    let retry_policy = row.retry_policy.map(|policy| api::RetryPolicy {
        max_attempts: policy.max_attempts,
        minimum_backoff: policy.minimum_backoff_ms.map(Duration::from_millis),
        maximum_backoff: policy.maximum_backoff_ms.map(Duration::from_millis),
    });
    let start_time = row.start_time_us.map(|us| Start::StartTime(Timestamp::from_micros(us)));
    api::Group {
        name: row.name(),
        uid: row.uid().to_string(),
        display_name: row.display_name.clone(),
        labels: row.labels.0.clone(),
        topics: row.topic_ids.iter().map(|id| row.topic_name(id)).collect(),
        start: start_time.or_else(|| row.start_position.map(Start::StartPosition)),
        ordering: row.ordering,
        ack_deadline: row.ack_deadline_ms.map(Duration::from_millis),
        retry_policy,
        dead_letter_topic: row.dead_letter_topic_id.as_ref().map(|id| row.topic_name(id)).unwrap_or_default(),
        deletion_protection: row.deletion_protection,
        create_time: time(row.create_us),
        update_time: time(row.update_us),
        etag: etag(row.uid().uid(), row.version),
        conditions: Vec::new(),
    }
}

fn condition(stored: &StoredCondition) -> api::Condition {
    use api::condition::Status;
    api::Condition {
        r#type: stored.kind.clone(),
        status: if stored.holds { Status::True } else { Status::False } as i32,
        reason: stored.reason.clone(),
        message: stored.message.clone(),
        observed_generation: stored.generation,
        last_transition_time: time(stored.time_us),
    }
}

/// A service account.
pub(crate) fn account(account: &Account) -> api::ServiceAccount {
    let row = &account.row;
    let grant = |grant: &sluice_types::Grant| api::RoleGrant {
        role: role(grant.role) as i32,
        resource: grant.resource.clone(),
    };
    api::ServiceAccount {
        name: row.name(),
        uid: row.uid().to_string(),
        display_name: row.display_name.clone(),
        labels: row.labels.0.clone(),
        grants: account.grants.iter().map(grant).collect(),
        create_time: time(row.create_us),
        update_time: time(row.update_us),
        etag: etag(row.uid().uid(), row.version),
        conditions: Vec::new(),
    }
}

fn role(role: Role) -> api::Role {
    match role {
        Role::Owner => api::Role::Owner,
        Role::Developer => api::Role::Developer,
        Role::Producer => api::Role::Producer,
        Role::Consumer => api::Role::Consumer,
        Role::Viewer => api::Role::Viewer,
    }
}

/// An API key without its text.
pub(crate) fn key(account_id: &str, row: &KeyRow) -> api::ApiKey {
    // What is revoked after it expired was put away by the sweeper.
    let put_away = row.expire_us.zip(row.revoke_us).is_some_and(|(expired, revoked)| expired <= revoked);
    let state = match row.state {
        KeyState::Revoked if put_away => api::api_key::State::Expired,
        KeyState::Revoked => api::api_key::State::Revoked,
        KeyState::Active if row.expired => api::api_key::State::Expired,
        KeyState::Active => api::api_key::State::Active,
    };
    api::ApiKey {
        name: format!("serviceAccounts/{account_id}/apiKeys/{}", row.uid()),
        uid: row.uid().to_string(),
        display_name: row.display_name.clone(),
        key: String::new(),
        prefix: row.prefix.clone(),
        state: state as i32,
        expire_time: row.expire_us.map(Timestamp::from_micros),
        create_time: time(row.create_us),
        revoke_time: row.revoke_us.filter(|_| !put_away).map(Timestamp::from_micros),
        conditions: Vec::new(),
    }
}

/// A tenant, as it sees itself: with the limits that hold, its own or the installation's.
pub(crate) fn own_tenant(row: &TenantRow, at_gateways: &TenantDefaults, installation: &Limits) -> api::Tenant {
    let own = limits(row);
    let signed = |limit: u64| i64::try_from(limit).unwrap_or(i64::MAX);
    let in_force = api::TenantLimits {
        requests_per_second: or_default(own.requests_per_second, signed(at_gateways.requests_per_second)),
        ingress_bytes_per_second: or_default(
            own.ingress_bytes_per_second,
            signed(at_gateways.ingress_per_second.bytes()),
        ),
        egress_bytes_per_second: or_default(own.egress_bytes_per_second, signed(at_gateways.egress_per_second.bytes())),
        bytes_in_flight: or_default(own.bytes_in_flight, signed(at_gateways.in_flight.bytes())),
        topics: or_default(own.topics, installation.topics),
        partitions: or_default(own.partitions, installation.partitions),
        namespaces: or_default(own.namespaces, installation.namespaces),
    };
    api::Tenant {
        tenant: row.id.clone(),
        uid: row.uid().to_string(),
        display_name: row.display_name.clone(),
        state: tenant_state(row) as i32,
        create_time: time(row.create_us),
        limits: Some(in_force),
    }
}

/// A tenant, as the operator sees and changes it: 0 where the installation's limit holds.
pub(crate) fn tenant(row: &TenantRow) -> operator::Tenant {
    operator::Tenant {
        name: format!("tenants/{}", row.id),
        uid: row.uid().to_string(),
        display_name: row.display_name.clone(),
        state: tenant_state(row) as i32,
        limits: Some(limits(row)),
        create_time: time(row.create_us),
        update_time: time(row.update_us),
        etag: etag(row.uid().uid(), row.version),
        conditions: Vec::new(),
    }
}

fn tenant_state(row: &TenantRow) -> api::tenant::State {
    match row.state {
        TenantState::Active if row.suspended => api::tenant::State::Suspended,
        TenantState::Active => api::tenant::State::Active,
        TenantState::Deleting => api::tenant::State::Deleting,
        TenantState::Deleted => api::tenant::State::Deleted,
    }
}

fn limits(row: &TenantRow) -> api::TenantLimits {
    api::TenantLimits {
        requests_per_second: row.requests_per_second,
        ingress_bytes_per_second: row.ingress_bytes_per_second,
        egress_bytes_per_second: row.egress_bytes_per_second,
        bytes_in_flight: row.bytes_in_flight,
        topics: row.topics_max,
        partitions: row.partitions_max,
        namespaces: row.namespaces_max,
    }
}

/// A Kafka cluster.
pub(crate) fn cluster(row: &ClusterRow) -> operator::Cluster {
    operator::Cluster { name: row.name(), uid: row.uid().to_string(), create_time: time(row.create_us) }
}

/// A namespace, as the operator sees it: with the cluster that it is placed on.
pub(crate) fn placed_namespace(tenant: &TenantId, row: &NamespaceRow, cluster: &ClusterRow) -> operator::Namespace {
    operator::Namespace {
        name: format!("tenants/{tenant}/{}", row.name()),
        uid: row.uid().to_string(),
        cluster: cluster.name(),
        create_time: time(row.create_us),
        update_time: time(row.update_us),
        etag: etag(row.uid().uid(), row.version),
        conditions: Vec::new(),
    }
}

/// A message as it is stored with an operation.
pub(crate) fn packed<M: prost::Message + prost::Name>(message: &M) -> Vec<u8> {
    Any::pack(message).encode_to_vec()
}
