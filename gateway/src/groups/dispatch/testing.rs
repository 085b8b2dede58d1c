//! A group without a Kafka, for tests of what it makes of answers.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Instant as StdInstant;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use sluice_kafka::{Appended, Batch, ProduceSink};
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{ControlRecord, GroupState, Life, NamespaceState, TenantState, TopicState};
use sluice_runtime::{Metrics, TaskSet};
use sluice_types::{GroupUid, NamespaceUid, TenantUid, TopicUid};
use sluice_wire::{Client, ClientConfig, Groups, KafkaTopicId, Reader, TopicPartition};

use crate::groups::dispatch::budget::Budget;
use crate::groups::dispatch::group::{Group, Stage};
use crate::groups::dispatch::metrics::DispatchMetrics;
use crate::groups::dispatch::pulse::Pulse;
use crate::groups::dispatch::shared::{Clock, Shared, Timing};
use crate::groups::owner::MemberOwners;
use crate::metering::Meter;
use crate::view::View;

/// Takes nothing.
struct NoSink;

impl ProduceSink for NoSink {
    fn submit(&self, _: &str, _: Batch, _: StdInstant) -> Appended {
        unreachable!("no letters in these tests")
    }

    fn ensure_topic(&self, _: &str, _: i32, _: StdInstant) -> BoxFuture<'static, bool> {
        std::future::ready(false).boxed()
    }

    fn forget(&self, _: &str) {}

    fn is_available(&self) -> bool {
        false
    }

    fn is_useless(&self) -> bool {
        false
    }

    fn flush(&self, _: StdInstant) -> BoxFuture<'static, bool> {
        std::future::ready(true).boxed()
    }
}

/// A group that runs, with one topic of two partitions, `orders`, and nothing assigned.
pub(super) fn group() -> Group {
    group_on("localhost:1")
}

/// The same with a broker at this address.
pub(super) fn group_on(broker: &str) -> Group {
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
    let wire = Client::new(ClientConfig::new([broker])).expect("a client");
    let (tasks, metrics) = (TaskSet::new("test", CancellationToken::new()), Metrics::new());
    let shared = Shared {
        gateway_id: "a".into(),
        boot_id: "1".into(),
        groups: Groups::new(wire.clone()),
        reader: Reader::new(wire.clone()),
        sink: Arc::new(NoSink),
        meter: Meter::start("a/1".into(), wire.clone(), &tasks, &metrics),
        wire,
        view,
        owners: MemberOwners::new("a".into(), "1".into()),
        budget: Budget::new(Timing::default().cached_bytes),
        clock: Clock::start(),
        pulse: Arc::new(Pulse::new(Instant::now())),
        key_hasher: RandomState::new(),
        metrics: DispatchMetrics::register(&metrics),
        timing: Timing::default(),
        tasks,
        stop: watch::Sender::new(None),
    };
    let (_, commands) = mpsc::channel(1);
    let mut group = Group::new(Arc::new(shared), config, entry, commands);
    group.stage = Stage::Running;
    group.topics.insert(topic.physical.as_str().into(), topic);
    group
}

/// A partition of its topic.
pub(super) fn partition(group: &Group, partition: i32) -> TopicPartition {
    let topic = group.topics.keys().next().expect("a topic");
    TopicPartition { topic: Arc::clone(topic), topic_id: KafkaTopicId::ZERO, partition }
}
