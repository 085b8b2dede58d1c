//! A tenant with topics and a group on the shared Kafka, and dispatchers for it, as several gateways would have them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use sluice_devstack::{ADMIN, GATEWAY, KafkaConnection};
use sluice_gateway::data::WirePath;
use sluice_gateway::groups::dispatch::{DispatchParts, Dispatchers, Timing};
use sluice_gateway::groups::model::{
    Dispatch as _, DispatchError, GroupCall, LeaseKey, Leased, ResolvedGroup, Settle, TakeOptions, Taken,
};
use sluice_gateway::groups::owner::MemberOwners;
use sluice_gateway::metering::Meter;
use sluice_gateway::view::View;
use sluice_kafka::{KafkaSink, Sasl, SinkConfig, SinkMetrics};
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{
    ControlRecord, GroupState, Life, MemberHeartbeat, MemberPhase, NamespaceState, TenantState, TopicState,
};
use sluice_proto::stream::v1::{GroupStatus, ResetOffsetsRequest, ResetOffsetsResponse, SettleOutcome};
use sluice_runtime::{Metrics, TaskSet};
use sluice_types::physical::PhysicalTopic;
use sluice_types::{GroupUid, NamespaceUid, TenantUid, TopicUid};
use sluice_wire::{Client, NewTopic, OutRecord, Reader};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A tenant with one namespace, as the control plane would publish it.
pub(crate) struct Tenant {
    pub(crate) admin: Client,
    kafka: KafkaConnection,
    uid: TenantUid,
    namespace: NamespaceUid,
    group: GroupUid,
    order: AtomicI64,
    records: parking_lot::Mutex<Vec<ControlRecord>>,
}

impl Tenant {
    pub(crate) async fn new() -> Self {
        Self::on(sluice_devstack::shared().await.expect("stack").kafka().expect("Kafka").clone())
    }

    /// On a Kafka of the test's own, which it may stop.
    pub(crate) fn on(kafka: KafkaConnection) -> Self {
        show_logs();
        sluice_runtime::tls::install_crypto_provider();
        let admin = kafka.client(ADMIN).expect("client");
        let (uid, namespace, group) = (TenantUid::random(), NamespaceUid::random(), GroupUid::random());
        let records = parking_lot::Mutex::default();
        let tenant = Self { admin, kafka, uid, namespace, group, order: AtomicI64::new(1), records };
        tenant.publish(Resource::Tenant(TenantState {
            uid: uid.to_string(),
            id: "acme".into(),
            life: Life::Active.into(),
            ..Default::default()
        }));
        tenant.publish(Resource::Namespace(NamespaceState {
            uid: namespace.to_string(),
            id: "prod".into(),
            life: Life::Active.into(),
        }));
        tenant
    }

    fn publish(&self, resource: Resource) {
        let order = self.order.fetch_add(1, Ordering::Relaxed);
        let record = ControlRecord {
            version: order,
            tenant_uid: self.uid.to_string(),
            outbox_id: order,
            resource: Some(resource),
            ..Default::default()
        };
        self.records.lock().push(record);
    }

    /// Makes a topic and publishes it.
    pub(crate) async fn topic(&self, id: &str, partitions: i32) -> Topic {
        self.topic_with(id, partitions, &[]).await
    }

    pub(crate) async fn topic_with(&self, id: &str, partitions: i32, configs: &[(&str, &str)]) -> Topic {
        let topic = Topic { id: id.into(), uid: TopicUid::random(), namespace: self.namespace };
        let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let new = NewTopic { name: topic.physical(), partitions, replication: -1, configs };
        self.admin.create_topic(&new, PATIENCE).await.expect("topic");
        self.wait_for_leaders(&topic, partitions).await;
        self.publish_topic(&topic, partitions, Life::Active);
        topic
    }

    /// Waits until so many partitions can be written to.
    pub(crate) async fn wait_for_leaders(&self, topic: &Topic, partitions: i32) {
        until("the partitions have leaders", async || {
            let metadata = self.admin.metadata(&[&topic.physical()], PATIENCE).await.expect("metadata");
            let partitions_led = metadata.topics[0].partitions.values().filter(|partition| partition.leader.is_some());
            partitions_led.count() == partitions as usize
        })
        .await;
    }

    pub(crate) fn publish_topic(&self, topic: &Topic, partitions: i32, life: Life) {
        self.publish(Resource::Topic(TopicState {
            uid: topic.uid.to_string(),
            id: topic.id.clone(),
            namespace_uid: self.namespace.to_string(),
            namespace_id: "prod".into(),
            life: life.into(),
            partitions,
            ..Default::default()
        }));
    }

    /// Publishes the group as it is now.
    pub(crate) fn group(&self, topics: &[&str], change: impl FnOnce(&mut GroupState)) {
        self.publish_group(self.group, "billing", topics, change);
    }

    /// Another group, whose records are not ordered by key.
    pub(crate) fn another_group(&self, id: &str, topics: &[&str]) -> GroupUid {
        let uid = GroupUid::random();
        self.publish_group(uid, id, topics, |group| group.key_ordered = false);
        uid
    }

    fn publish_group(&self, uid: GroupUid, id: &str, topics: &[&str], change: impl FnOnce(&mut GroupState)) {
        let mut group = GroupState {
            uid: uid.to_string(),
            id: id.into(),
            namespace_uid: self.namespace.to_string(),
            namespace_id: "prod".into(),
            life: Life::Active.into(),
            topic_ids: topics.iter().map(|id| (*id).to_owned()).collect(),
            start: None,
            key_ordered: true,
            ack_deadline_ms: 10_000,
            minimum_backoff_ms: 100,
            maximum_backoff_ms: 60_000,
            ..Default::default()
        };
        change(&mut group);
        self.publish(Resource::Group(group));
    }

    /// A gateway of this id with dispatchers that serve nobody yet.
    pub(crate) async fn node(&self, id: &str) -> Node {
        self.node_with(id, Timing::default()).await
    }

    pub(crate) async fn node_with(&self, id: &str, timing: Timing) -> Node {
        let (gateway_id, boot_id): (Arc<str>, Arc<str>) = (id.into(), uuid::Uuid::new_v4().simple().to_string().into());
        let wire = self.kafka.client(GATEWAY).expect("client");
        let tasks = TaskSet::new("test", CancellationToken::new());
        let metrics = Metrics::new();
        let view = Arc::new(View::default());
        let owners = MemberOwners::new(Arc::clone(&gateway_id), Arc::clone(&boot_id));
        let parts = DispatchParts {
            gateway_id: Arc::clone(&gateway_id),
            boot_id: Arc::clone(&boot_id),
            reader: Reader::new(wire.clone()),
            sink: self.sink(),
            meter: Meter::start(format!("{id}/{boot_id}"), wire.clone(), &tasks, &metrics),
            view: Arc::clone(&view),
            owners: Arc::clone(&owners),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            wire,
        };
        let dispatchers = Dispatchers::start_with(parts, timing);
        let node =
            Node { id: gateway_id, boot_id, dispatchers, owners, view, metrics, tenant: self.uid, group: self.group };
        node.follow(self);
        node
    }

    /// As gateways append: compressed.
    pub(crate) fn sink(&self) -> Arc<KafkaSink> {
        let mut config = SinkConfig::new(&self.kafka.bootstrap);
        config.sasl = Some(Sasl {
            ca_pem: std::fs::read_to_string(&self.kafka.ca_file).expect("CA"),
            username: GATEWAY.into(),
            password: self.kafka.password(GATEWAY).expect("password").to_owned().into(),
        });
        let wire = self.kafka.client(GATEWAY).expect("client");
        Arc::new(KafkaSink::start(config, SinkMetrics::default(), Arc::new(WirePath::new(wire))).expect("sink"))
    }

    /// Everything of the redrive and dead-letter headers and the value.
    pub(crate) async fn records_of(&self, topic: &Topic) -> Vec<sluice_wire::Record> {
        let request = sluice_wire::FetchRequest {
            topic: topic.physical(),
            topic_id: None,
            partition: 0,
            offset: 0,
            last_epoch: None,
            max_bytes: 1 << 20,
            min_bytes: 1,
            max_wait: Duration::ZERO,
            isolation: sluice_wire::Isolation::ReadCommitted,
        };
        let fetched = self.admin.fetch(request, PATIENCE).await.expect("fetch");
        sluice_wire::decode(&fetched.batches, 0, &fetched.aborted).expect("records").records
    }

    /// Publishes records with these keys to one partition; values count from `from`.
    pub(crate) async fn produce(&self, topic: &Topic, partition: i32, keys: &[&str], from: usize) {
        let record = |(at, key): (usize, &&str)| OutRecord {
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(Bytes::from((from + at).to_string())),
            headers: Vec::new(),
            // Not new, and not yet of interest to retention.
            timestamp_ms: sluice_devstack::now_ms() - 3_600_000,
        };
        let records: Vec<OutRecord> = keys.iter().enumerate().map(record).collect();
        self.admin.produce_batch(&topic.physical(), partition, &records, PATIENCE).await.expect("produce");
    }
}

pub(crate) struct Topic {
    id: String,
    uid: TopicUid,
    namespace: NamespaceUid,
}

impl Topic {
    pub(crate) fn physical(&self) -> String {
        PhysicalTopic::new(self.namespace, self.uid).as_str().to_owned()
    }
}

/// One gateway's dispatchers.
pub(crate) struct Node {
    pub(crate) id: Arc<str>,
    pub(crate) boot_id: Arc<str>,
    pub(crate) dispatchers: Arc<Dispatchers>,
    pub(crate) owners: Arc<MemberOwners>,
    pub(crate) view: Arc<View>,
    pub(crate) metrics: Metrics,
    tenant: TenantUid,
    group: GroupUid,
}

impl Node {
    /// Applies what was published.
    pub(crate) fn follow(&self, tenant: &Tenant) {
        for record in tenant.records.lock().iter() {
            self.view.index().apply(record.clone()).expect("a good record");
        }
    }

    pub(crate) fn heartbeat(&self, phase: MemberPhase) -> MemberHeartbeat {
        MemberHeartbeat {
            gateway_id: self.id.to_string(),
            boot_id: self.boot_id.to_string(),
            phase: phase.into(),
            ..Default::default()
        }
    }

    /// It hears this of gateways.
    pub(crate) fn hears(&self, heartbeats: &[MemberHeartbeat]) {
        self.owners.heard(heartbeats.iter().map(|heartbeat| (heartbeat.clone(), 0)));
    }

    /// It is the only one that serves.
    pub(crate) fn alone(self) -> Self {
        self.hears(&[self.heartbeat(MemberPhase::Serving)]);
        self
    }

    pub(crate) fn resolved(&self) -> Arc<ResolvedGroup> {
        let tenant = self.view.tenant(self.tenant).expect("tenant");
        tenant.names().group_of(self.group).expect("group")
    }

    pub(crate) fn call(&self) -> GroupCall {
        self.call_for(self.resolved())
    }

    /// A call for the group of another tenant that it follows.
    pub(crate) fn call_of(&self, tenant: &Tenant) -> GroupCall {
        let entry = self.view.tenant(tenant.uid).expect("tenant");
        let group = entry.names().group_of(tenant.group).expect("group");
        self.call_for(group)
    }

    /// A call for another group of its tenant.
    pub(crate) fn call_of_group(&self, group: GroupUid) -> GroupCall {
        let entry = self.view.tenant(self.tenant).expect("tenant");
        self.call_for(entry.names().group_of(group).expect("group"))
    }

    fn call_for(&self, group: Arc<ResolvedGroup>) -> GroupCall {
        GroupCall { group, account: "ci".into(), door: Arc::clone(&self.id), deadline: Instant::now() + PATIENCE }
    }

    pub(crate) async fn take(&self, records: usize, wait: Duration) -> Result<Taken, DispatchError> {
        let options = TakeOptions { records, bytes: 1 << 20, wait };
        self.dispatchers.take(&self.call(), options).await
    }

    /// Takes until it has so many.
    pub(crate) async fn collect(&self, count: usize) -> Vec<Leased> {
        let mut got = Vec::new();
        let until = Instant::now() + PATIENCE;
        while got.len() < count && Instant::now() < until {
            match self.take(count - got.len(), Duration::from_secs(5)).await {
                Ok(taken) => got.extend(taken.records),
                Err(DispatchError::Moving(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(got.len(), count, "got {:?}", values(&got));
        got
    }

    pub(crate) async fn settle(&self, settle: Settle, leases: &[LeaseKey]) -> Vec<SettleOutcome> {
        self.dispatchers.settle(&self.call(), settle, leases.to_vec()).await.expect("an answer")
    }

    /// Acknowledges, and expects all of it to be stored.
    pub(crate) async fn ack(&self, leased: &[Leased]) {
        let outcomes = self.settle(Settle::Acknowledge, &keys(leased)).await;
        assert!(outcomes.iter().all(|outcome| *outcome == SettleOutcome::Ok), "{outcomes:?}");
    }

    pub(crate) async fn nack(&self, leased: &[Leased], reason: &str) {
        let refuse = Settle::Refuse { delay: None, reason: reason.into() };
        let outcomes = self.settle(refuse, &keys(leased)).await;
        assert!(outcomes.iter().all(|outcome| *outcome == SettleOutcome::Ok), "{outcomes:?}");
    }

    pub(crate) async fn status(&self) -> (bool, GroupStatus) {
        let inspected = self.dispatchers.inspect(&self.call()).await.expect("status");
        (inspected.dispatching, inspected.status)
    }

    pub(crate) async fn reset(&self, request: ResetOffsetsRequest) -> Result<ResetOffsetsResponse, DispatchError> {
        self.dispatchers.reset(&self.call(), request).await
    }

    pub(crate) async fn stop(&self) {
        self.dispatchers.shutdown(Instant::now() + PATIENCE).await;
        assert!(self.dispatchers.is_empty());
    }
}

/// The logs of a test that fails say what happened; those of others are not shown.
fn show_logs() {
    let filter = tracing_subscriber::EnvFilter::new("info,sluice_gateway=debug,sluice_wire=debug");
    let _already_set = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

pub(crate) fn keys(leased: &[Leased]) -> Vec<LeaseKey> {
    leased.iter().map(|leased| leased.key).collect()
}

/// The numbers that were published.
pub(crate) fn values(leased: &[Leased]) -> Vec<usize> {
    let number = |leased: &Leased| {
        let value = leased.record.value.clone().expect("a value");
        std::str::from_utf8(&value).expect("text").parse().expect("a number")
    };
    leased.iter().map(number).collect()
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
