//! The data path on a real Kafka: a tenant with a topic, to publish to and read from.

mod deadlines;
mod frozen;
mod metering;
mod over_http;
mod publishing;
mod reading;
mod timing;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use bytes::Bytes;
use prost::Message;
use tokio_util::sync::CancellationToken;

use sluice_devstack::{ADMIN, GATEWAY, KafkaConnection};
use sluice_edge::Body;
use sluice_process::ClusterAccess;
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{self as control, ControlRecord, Life};
use sluice_proto::internal::usage::v1::UsageWindow;
use sluice_proto::stream::v1::fetch_request::Start;
use sluice_proto::stream::v1::produce_record::{KeyKind, ValueKind};
use sluice_proto::stream::v1::{Outcome, PayloadEncoding, Position, ProduceRecord, record};
use sluice_proto::wkt;
use sluice_runtime::config::{KafkaConfig, SecretFile};
use sluice_runtime::{Health, Metrics, TaskSet};
use sluice_types::limits::TenantLimits;
use sluice_types::physical::{PhysicalTopic, USAGE_TOPIC};
use sluice_types::{
    AccountUid, ClusterUid, Credential, ErrorKind, Grant, KeyUid, NamespaceUid, OpContext, Principal, Reason,
    TenantScope, TenantUid, TopicUid,
};
use sluice_wire::{Client, Isolation, NewTopic, decode};

use super::*;
use crate::clusters::ClustersParts;
use crate::quota::TenantLimiter;
use crate::transport::TrackedAnswer;
use crate::view::{ResolvedTopic, View};

const NAME: &str = "namespaces/prod/topics/orders";
const WITHIN: Duration = Duration::from_secs(10);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A tenant with one topic, and a data path.
struct World {
    data: Data,
    clusters: Clusters,
    admin: Client,
    view: Arc<View>,
    tenant: TenantUid,
    physical: PhysicalTopic,
    topic: TopicUid,
    account: AccountUid,
    key: KeyUid,
    source: String,
    tasks: TaskSet,
    _files: tempfile::TempDir,
}

async fn usage_topic(admin: &Client) {
    let topic = NewTopic { name: USAGE_TOPIC.into(), partitions: 4, replication: -1, configs: BTreeMap::new() };
    match admin.create_topic(&topic, WITHIN).await {
        Ok(_) => {}
        Err(error) if error.kafka_code() == Some(sluice_wire::code::TOPIC_ALREADY_EXISTS) => {}
        Err(error) => panic!("create the usage topic: {error}"),
    }
}

fn kafka_config(kafka: &KafkaConnection, dir: &tempfile::TempDir) -> KafkaConfig {
    let password = dir.path().join("password");
    std::fs::write(&password, kafka.password(GATEWAY).expect("user")).expect("write");
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    KafkaConfig {
        bootstrap: kafka.bootstrap.clone(),
        ca: kafka.ca_file.clone(),
        username: GATEWAY.into(),
        password_file: SecretFile::new(password),
    }
}

impl World {
    async fn new(partitions: i32) -> Self {
        let kafka = sluice_devstack::shared().await.expect("stack").kafka().expect("kafka");
        Self::on(kafka, partitions).await
    }

    /// With a topic of one partition that is like this.
    async fn of(like: control::TopicState) -> Self {
        let kafka = sluice_devstack::shared().await.expect("stack").kafka().expect("kafka");
        Self::with(kafka, control::TopicState { partitions: 1, ..like }).await
    }

    async fn on(kafka: &KafkaConnection, partitions: i32) -> Self {
        Self::with(kafka, control::TopicState { partitions, ..Default::default() }).await
    }

    async fn with(kafka: &KafkaConnection, like: control::TopicState) -> Self {
        let admin = kafka.client(ADMIN).expect("client");
        usage_topic(&admin).await;
        let (tenant, namespace, topic) = (TenantUid::random(), NamespaceUid::random(), TopicUid::random());
        let physical = PhysicalTopic::new(namespace, topic);
        let partitions = like.partitions;
        let configs = [
            ("cleanup.policy", if like.compacted { "compact" } else { "delete" }),
            ("message.timestamp.type", if like.log_append_time { "LogAppendTime" } else { "CreateTime" }),
            // As the control plane has it.
            ("message.timestamp.after.max.ms", "7200000"),
        ];
        let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let new = NewTopic { name: physical.as_str().to_owned(), partitions, replication: -1, configs };
        admin.create_topic(&new, WITHIN).await.expect("topic");
        let files = tempfile::tempdir().expect("directory");
        let tasks = TaskSet::new("test", CancellationToken::new());
        let boot = uuid::Uuid::now_v7().simple().to_string();
        let (client, metrics) = (kafka.client(GATEWAY).expect("client"), Metrics::new());
        let config = kafka_config(kafka, &files);
        let clusters = Clusters::start(ClustersParts {
            gateway_id: "gw-test".into(),
            access: vec![ClusterAccess { uid: ClusterUid::FIRST, config, client: client.clone() }],
            health: Health::new(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
        });
        let clusters = clusters.expect("clusters");
        let source = format!("gw-test/{boot}");
        let meter = Meter::start(source.clone(), client, &tasks, &metrics);
        let data = Data::new(clusters.clone(), meter);
        let view = view_of(tenant, namespace, topic, like);
        let (account, key) = (AccountUid::random(), KeyUid::random());
        let world =
            Self { data, clusters, admin, view, tenant, physical, topic, account, key, source, tasks, _files: files };
        assert!(world.clusters.ready(&world.resolved()).await);
        world.put_account(1, "*");
        world.put_key(1, Life::Active, 0);
        world
    }

    /// The topic as it is served.
    fn resolved(&self) -> Arc<ResolvedTopic> {
        let scope = TenantScope::from_verified(self.tenant, "acme".parse().expect("id"));
        self.view.topic(&scope, &"prod".parse().expect("id"), &"orders".parse().expect("id")).expect("in service")
    }

    fn apply(&self, version: i64, resource: Resource) {
        let tenant_uid = self.tenant.to_string();
        let record = ControlRecord { version, tenant_uid, resource: Some(resource), ..Default::default() };
        self.view.index().apply(record).expect("a good record");
    }

    /// The account owns what it is granted.
    fn put_account(&self, version: i64, resource: &str) {
        let state = control::AccountState {
            uid: self.account.to_string(),
            id: "ci".into(),
            life: Life::Active.into(),
            grants: vec![control::Grant { role: "owner".into(), resource: resource.into() }],
        };
        self.apply(version, Resource::Account(state));
    }

    fn put_key(&self, version: i64, life: Life, expire_time_ms: i64) {
        let state = control::KeyState {
            key_id: self.key.to_string(),
            account_uid: self.account.to_string(),
            hash: vec![0; 32].into(),
            life: life.into(),
            expire_time_ms,
        };
        self.apply(version, Resource::Key(state));
    }

    fn call_within(&self, wait: Duration) -> DataCall {
        let principal = Principal {
            account: self.account,
            account_id: "ci".into(),
            credential: Credential::ApiKey(self.key),
            grants: Arc::new([Grant { role: sluice_types::Role::Owner, resource: "*".into() }]),
        };
        let context = OpContext {
            tenant: TenantScope::from_verified(self.tenant, "acme".parse().expect("id")),
            principal: Arc::new(principal),
            deadline: Instant::now() + wait,
            request_id: "r-1".into(),
            traceparent: Some(TRACE.into()),
            peer: None,
        };
        let limiter = Arc::new(TenantLimiter::new(TenantLimits::default()));
        DataCall::new(Arc::new(context), limiter, "records.produce", Arc::clone(&self.view))
    }

    fn call(&self) -> DataCall {
        self.call_within(WITHIN)
    }

    async fn produce(&self, records: Vec<ProduceRecord>) -> ProduceResponse {
        let request = ProduceRequest { topic: NAME.into(), records };
        self.data.produce_records(&self.call(), request).await.expect("accepted")
    }

    async fn fetch(&self, request: FetchRequest) -> Result<FetchResponse, Error> {
        self.fetch_by(&self.call(), request).await
    }

    async fn fetch_by(&self, call: &DataCall, request: FetchRequest) -> Result<FetchResponse, Error> {
        let request = FetchRequest { topic: NAME.into(), ..request };
        let mut answer = self.data.fetch_records(call, request, Form::Message).await?;
        answer.parcel.take().iter().for_each(TrackedAnswer::taken);
        Ok(answer.into_message())
    }

    fn request(&self, method: &str, query: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> HttpCall {
        let mut request = http::Request::builder().method(method).uri(format!("/v1/{NAME}/records{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("request").into_parts();
        HttpCall { parts, topic: NAME.into(), body: body.into(), call: Arc::new(self.call()) }
    }

    /// Records of a topic's partition, by another client.
    async fn read(&self, topic: &str, partition: i32) -> Vec<sluice_wire::Record> {
        // Retention may have moved the start of a log that other tests write to as well.
        let earliest = self
            .admin
            .list_offset(topic, partition, sluice_wire::OffsetAt::Earliest, Isolation::ReadCommitted, WITHIN)
            .await
            .expect("list offsets");
        let start = earliest.offset.unwrap_or(0);
        let mut records: Vec<sluice_wire::Record> = Vec::new();
        loop {
            let offset = records.last().map_or(start, |record| record.offset + 1);
            let request = sluice_wire::FetchRequest {
                topic: topic.to_owned(),
                topic_id: None,
                partition,
                offset,
                last_epoch: None,
                max_bytes: 8 << 20,
                min_bytes: 1,
                max_wait: Duration::ZERO,
                isolation: Isolation::ReadCommitted,
            };
            let fetched = self.admin.fetch(request, WITHIN).await.expect("fetch");
            let decoded = decode(&fetched.batches, offset, &fetched.aborted).expect("decode");
            if decoded.records.is_empty() {
                return records;
            }
            records.extend(decoded.records);
        }
    }

    /// Ends the data path; all windows of its source, in order.
    async fn windows(&self) -> Vec<UsageWindow> {
        self.data.shutdown(Instant::now() + WITHIN).await;
        let mut windows = Vec::new();
        for partition in 0..4 {
            for record in self.read(USAGE_TOPIC, partition).await {
                if record.key.as_deref() == Some(self.source.as_bytes()) {
                    windows.push(UsageWindow::decode(record.value.expect("a window")).expect("a window"));
                }
            }
        }
        windows
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.shutdown().cancel();
    }
}

fn view_of(tenant: TenantUid, namespace: NamespaceUid, topic: TopicUid, like: control::TopicState) -> Arc<View> {
    let view = View::default();
    let states = [
        Resource::Tenant(control::TenantState {
            uid: tenant.to_string(),
            id: "acme".into(),
            life: Life::Active.into(),
            ..Default::default()
        }),
        Resource::Namespace(control::NamespaceState {
            uid: namespace.to_string(),
            id: "prod".into(),
            life: Life::Active.into(),
        }),
        Resource::Topic(control::TopicState {
            uid: topic.to_string(),
            id: "orders".into(),
            namespace_uid: namespace.to_string(),
            namespace_id: "prod".into(),
            life: Life::Active.into(),
            ..like
        }),
    ];
    for (resource, order) in states.into_iter().zip(1..) {
        let record = ControlRecord {
            version: 1,
            tenant_uid: tenant.to_string(),
            outbox_id: order,
            resource: Some(resource),
            ..Default::default()
        };
        view.index().apply(record).expect("a good record");
    }
    Arc::new(view)
}

fn keyed(key: &str, value: &str) -> ProduceRecord {
    ProduceRecord {
        key_kind: Some(KeyKind::KeyText(key.into())),
        value_kind: Some(ValueKind::ValueText(value.into())),
        ..Default::default()
    }
}

fn texts(response: &FetchResponse) -> Vec<String> {
    let text = |record: &record::ValueKind| match record {
        record::ValueKind::Value(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    };
    response.records.iter().filter_map(|record| record.value_kind.as_ref()).map(text).collect()
}

async fn text(response: http::Response<Body>) -> String {
    use http_body_util::BodyExt;
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn body(response: http::Response<Body>) -> serde_json::Value {
    serde_json::from_str(&text(response).await).expect("JSON")
}
