//! A group without a Kafka, for tests of what it makes of answers.

use std::hash::RandomState;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{ControlRecord, GroupState, Life, NamespaceState, TenantState, TopicState};
use sluice_runtime::{Metrics, TaskSet};
use sluice_types::{ClusterUid, GroupUid, NamespaceUid, TenantUid, TopicUid};
use sluice_wire::{Client, ClientConfig, KafkaTopicId, TopicPartition};

use crate::clusters::Clusters;
use crate::groups::dispatch::action::Moment;
use crate::groups::dispatch::budget::Budget;
use crate::groups::dispatch::group::{Group, Stage};
use crate::groups::dispatch::metrics::DispatchMetrics;
use crate::groups::dispatch::pulse::Pulse;
use crate::groups::dispatch::shared::{Clock, Io, Setting, Shared, Timing};
use crate::groups::owner::MemberOwners;
use crate::metering::Meter;
use crate::view::View;

/// A group that runs, with one topic of two partitions, `orders`, and nothing assigned.
pub(super) fn group() -> Group {
    group_of(&Budget::new(Timing::default().cached_bytes))
}

/// The same with its account in this budget.
pub(super) fn group_of(budget: &Budget) -> Group {
    let (tenant, namespace, uid, topic) =
        (TenantUid::random(), NamespaceUid::random(), GroupUid::random(), TopicUid::random());
    let life = Life::Active.into();
    let resources = [
        Resource::Tenant(TenantState { uid: tenant.to_string(), id: "acme".into(), life, ..Default::default() }),
        Resource::Namespace(NamespaceState { uid: namespace.to_string(), id: "prod".into(), life }),
        Resource::Topic(TopicState {
            uid: topic.to_string(),
            id: "orders".into(),
            namespace_uid: namespace.to_string(),
            namespace_id: "prod".into(),
            life,
            partitions: 2,
            ..Default::default()
        }),
        Resource::Group(GroupState {
            uid: uid.to_string(),
            id: "billing".into(),
            namespace_uid: namespace.to_string(),
            namespace_id: "prod".into(),
            life,
            topic_ids: vec!["orders".into()],
            ack_deadline_ms: 10_000,
            ..Default::default()
        }),
    ];
    let view = Arc::new(View::default());
    for (order, resource) in (1..).zip(resources) {
        let record = ControlRecord {
            version: order,
            tenant_uid: tenant.to_string(),
            outbox_id: order,
            resource: Some(resource),
            ..Default::default()
        };
        view.index().apply(record).expect("a good record");
    }
    let entry = view.tenant(tenant).expect("tenant");
    let config = entry.names().group_of(uid).expect("group");
    let topic = entry.names().topic_in(namespace, &config.topics[0]).expect("topic");
    let (now, account) = (Instant::now(), budget.open(tenant));
    let moment = Moment { at: now, awake_since: now, member: None };
    let mut group = Group::new(setting(), account, config, entry, 1, moment);
    group.stage = Stage::Running;
    group.topics.insert(topic.physical.as_str().into(), topic);
    group
}

fn setting() -> Arc<Setting> {
    Arc::new(Setting {
        gateway_id: "a".into(),
        clock: Clock::start(),
        metrics: DispatchMetrics::register(&Metrics::new()),
        timing: Timing::default(),
    })
}

/// Calls that find no cluster.
pub(super) fn io() -> Io {
    io_to("localhost:1")
}

/// Calls to a broker at this address.
pub(super) fn io_to(broker: &str) -> Io {
    let wire = Client::new(ClientConfig::new([broker])).expect("a client");
    let (tasks, metrics) = (TaskSet::new("test", CancellationToken::new()), Metrics::new());
    let clusters = Clusters::without_producers(&wire);
    let shared = Shared {
        boot_id: "1".into(),
        setting: setting(),
        clusters: clusters.clone(),
        meter: Meter::start("a/1".into(), wire, &tasks, &metrics),
        view: Arc::new(View::default()),
        owners: MemberOwners::new("a".into(), "1".into()),
        budget: Budget::new(Timing::default().cached_bytes),
        pulse: Arc::new(Pulse::new(Instant::now())),
        key_hasher: RandomState::new(),
        tasks,
        stop: watch::Sender::new(None),
    };
    Io::at(&Arc::new(shared), &clusters.get(ClusterUid::FIRST).expect("the first cluster"))
}

/// A partition of its topic.
pub(super) fn partition(group: &Group, partition: i32) -> TopicPartition {
    let topic = group.topics.keys().next().expect("a topic");
    TopicPartition { topic: Arc::clone(topic), topic_id: KafkaTopicId::ZERO, partition }
}
