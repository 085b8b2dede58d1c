//! The data path on a real Kafka: what is published comes back, and what is metered is what the log holds.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use prost::Message;
use tokio_util::sync::CancellationToken;

use sluice_devstack::{ADMIN, GATEWAY, KafkaConnection};
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{self as control, ControlRecord, Life};
use sluice_proto::internal::usage::v1::UsageWindow;
use sluice_proto::stream::v1::fetch_request::Start;
use sluice_proto::stream::v1::list_offsets_request::At;
use sluice_proto::stream::v1::produce_record::{KeyKind, ValueKind};
use sluice_proto::stream::v1::{Outcome, PayloadEncoding, Position, ProduceRecord, record};
use sluice_proto::wkt;
use sluice_runtime::config::{KafkaConfig, SecretFile};
use sluice_runtime::{Metrics, TaskSet};
use sluice_types::limits::TenantLimits;
use sluice_types::physical::USAGE_TOPIC;
use sluice_types::record::{client_headers, logical_bytes};
use sluice_types::{
    AccountUid, Credential, ErrorKind, Grant, KeyUid, NamespaceUid, OpContext, Principal, Reason, TenantScope,
    TenantUid, TopicUid,
};
use sluice_wire::{Isolation, NewTopic, decode};

use super::*;
use crate::quota::TenantLimiter;
use crate::view::View;

const NAME: &str = "namespaces/prod/topics/orders";
const WITHIN: Duration = Duration::from_secs(10);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A tenant with one topic, and a data path.
struct World {
    data: Arc<Data>,
    admin: Client,
    view: Arc<View>,
    tenant: TenantUid,
    physical: TopicName,
    topic: TopicUid,
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

    async fn on(kafka: &KafkaConnection, partitions: i32) -> Self {
        let admin = kafka.client(ADMIN).expect("client");
        usage_topic(&admin).await;
        let (tenant, namespace, topic) = (TenantUid::random(), NamespaceUid::random(), TopicUid::random());
        let physical = TopicName::new(namespace, topic);
        let new =
            NewTopic { name: physical.as_str().to_owned(), partitions, replication: -1, configs: BTreeMap::new() };
        admin.create_topic(&new, WITHIN).await.expect("topic");
        let files = tempfile::tempdir().expect("directory");
        let tasks = TaskSet::new("test", CancellationToken::new());
        let boot = uuid::Uuid::now_v7().simple().to_string();
        let data = Data::build(DataParts {
            gateway_id: "gw-test".into(),
            boot_id: boot.clone(),
            kafka: kafka_config(kafka, &files),
            wire: kafka.client(GATEWAY).expect("client"),
            health: Health::new(),
            metrics: Metrics::new(),
            tasks: tasks.clone(),
        })
        .await
        .expect("data path");
        let view = view_of(tenant, namespace, topic, partitions);
        assert!(data.ready(&physical, partitions).await);
        let source = format!("gw-test/{boot}");
        Self { data, admin, view, tenant, physical, topic, source, tasks, _files: files }
    }

    fn call_within(&self, wait: Duration) -> DataCall {
        let principal = Principal {
            account: AccountUid::random(),
            account_id: "ci".into(),
            credential: Credential::ApiKey(KeyUid::random()),
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
        self.data.fetch_records(&self.call(), FetchRequest { topic: NAME.into(), ..request }).await
    }

    fn http(&self, method: &str, query: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> HttpCall {
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

fn view_of(tenant: TenantUid, namespace: NamespaceUid, topic: TopicUid, partitions: i32) -> Arc<View> {
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
            partitions,
            ..Default::default()
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

async fn body(response: http::Response<Body>) -> serde_json::Value {
    use http_body_util::BodyExt;
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    serde_json::from_slice(&bytes).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_metered_is_what_the_log_holds() {
    let world = World::new(3).await;
    for call in 0..20 {
        let mut records: Vec<_> = (0..50).map(|i| keyed(&format!("k{i}"), &"v".repeat(call * i))).collect();
        records.push(ProduceRecord::default());
        let answer = world.produce(records).await;
        assert!(answer.results.iter().all(|r| r.outcome() == Outcome::Persisted && r.offset.is_some()));
    }
    let mut fetched = 0;
    let mut next = 0;
    loop {
        let request = FetchRequest { start: Some(Start::Offset(next)), max_records: 100, ..Default::default() };
        let answer = world.fetch(request).await.expect("read");
        if answer.records.is_empty() {
            break;
        }
        assert!(answer.records.iter().all(|record| record.headers.is_empty()), "our own headers stay with us");
        fetched += answer.records.len() as u64;
        next = answer.next_offset;
    }

    let windows = world.windows().await;
    assert!(windows.iter().zip(1..).all(|(window, number)| window.number == number));
    assert!(windows.last().is_some_and(|window| window.last));
    let (mut covered, mut delivered) = (BTreeMap::new(), 0);
    for window in &windows {
        for partition in &window.produced {
            assert_eq!(partition.topic_uid, world.topic.to_string());
            for interval in &partition.intervals {
                let sums: &mut (i64, u64) = covered.entry(partition.partition).or_default();
                sums.0 += interval.end - interval.start;
                sums.1 += interval.bytes;
            }
        }
        delivered += window.delivered.iter().map(|partition| partition.records).sum::<u64>();
    }
    assert_eq!(delivered, fetched);
    for partition in 0..3 {
        let log = world.read(world.physical.as_str(), partition).await;
        let bytes: u64 = log
            .iter()
            .map(|record| {
                let headers = client_headers(record.headers.clone());
                let headers = headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
                logical_bytes(record.key.as_deref(), record.value.as_deref(), headers)
            })
            .sum();
        assert_eq!(covered.get(&partition).copied().unwrap_or_default(), (log.len() as i64, bytes));
        assert!(log.iter().all(|record| record.headers.len() == 2), "each has the call's trace and its mark");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_by_every_position() {
    let world = World::new(1).await;
    let before = wkt::Timestamp::from_millis(records::now_ms());
    let values: Vec<String> = (0..10).map(|i| format!("v{i}")).collect();
    world.produce(values.iter().map(|value| keyed("k", value)).collect()).await;

    let read = async |start, max_records| {
        let request = FetchRequest { start: Some(start), max_records, ..Default::default() };
        world.fetch(request).await.expect("read")
    };
    let earliest = Start::Position(Position::Earliest.into());
    let all = read(earliest, 0).await;
    assert_eq!(texts(&all), values);
    assert_eq!((all.next_offset, all.log_start_offset, all.end_offset), (10, 0, 10));
    let some = read(Start::Offset(3), 2).await;
    assert_eq!((texts(&some), some.next_offset), (vec!["v3".to_owned(), "v4".into()], 5));
    assert_eq!(texts(&read(Start::Time(before), 0).await), values);
    let late = wkt::Timestamp::from_millis(records::now_ms() + 3_600_000);
    assert!(read(Start::Time(late), 0).await.records.is_empty());
    let latest = read(Start::Position(Position::Latest.into()), 0).await;
    assert_eq!((latest.records.len(), latest.next_offset), (0, 10));
    let request = FetchRequest { start: Some(earliest), max_bytes: 1, ..Default::default() };
    assert_eq!(texts(&world.fetch(request).await.expect("read")), vec!["v0"], "the first record comes whole");

    let error = world.fetch(FetchRequest { start: Some(Start::Offset(11)), ..Default::default() }).await;
    let error = error.expect_err("beyond the end");
    assert_eq!((error.kind, error.reason), (ErrorKind::OutOfRange, Reason::OffsetOutOfRange));
    assert_eq!(error.metadata, vec![("logStartOffset", "0".to_owned()), ("endOffset", "10".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_returns_with_the_first_record_or_after_its_wait() {
    let world = World::new(1).await;
    let request = |wait| FetchRequest {
        start: Some(Start::Position(Position::Latest.into())),
        wait: Some(wkt::Duration::from_millis(wait)),
        ..Default::default()
    };
    let started = Instant::now();
    let empty = world.fetch(request(300)).await.expect("read");
    assert!(empty.records.is_empty() && started.elapsed() >= Duration::from_millis(290), "{:?}", started.elapsed());

    let started = Instant::now();
    let wake = async {
        world.produce(vec![keyed("k", "first")]).await;
    };
    // The reader resolves "latest" before the record is there: ask at the offset to be sure.
    let waiting = FetchRequest { start: Some(Start::Offset(0)), ..request(8_000) };
    let (answer, ()) = tokio::join!(world.fetch(waiting), wake);
    assert_eq!(texts(&answer.expect("read")), vec!["first"]);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_at_its_deadline_is_answered_before_it() {
    let world = World::new(1).await;
    let call = world.call_within(Duration::from_millis(700));
    let request =
        FetchRequest { topic: NAME.into(), wait: Some(wkt::Duration::from_millis(20_000)), ..Default::default() };
    let answer = world.data.fetch_records(&call, request).await.expect("empty, not an error");
    assert!(answer.records.is_empty() && call.context.deadline > Instant::now());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_writes_nothing() {
    let world = World::new(1).await;
    let bad = ProduceRecord { partition: Some(1), ..keyed("k", "v") };
    let request = ProduceRequest { topic: NAME.into(), records: vec![keyed("k", "v"), bad] };
    let error = world.data.produce_records(&world.call(), request).await.expect_err("refused");
    assert_eq!(error.field.as_deref(), Some("records[1].partition"));
    assert!(world.read(world.physical.as_str(), 0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_and_their_ends_are_told() {
    let world = World::new(2).await;
    let to = |partition, value: &str| ProduceRecord { partition: Some(partition), ..keyed("k", value) };
    world.produce(vec![to(1, "a"), to(1, "b")]).await;
    let request = GetTopicMetadataRequest { topic: NAME.into() };
    let told = world.data.topic_metadata(&world.call(), request).await.expect("told");
    assert_eq!((told.topic.as_str(), told.uid), (NAME, world.topic.to_string()));
    let ends: Vec<(i32, i64, i64, bool)> =
        told.partitions.iter().map(|p| (p.partition, p.log_start_offset, p.end_offset, p.available)).collect();
    assert_eq!(ends, vec![(0, 0, 0, true), (1, 0, 2, true)]);
    let list = async |at, partitions: Vec<i32>| {
        let request = ListOffsetsRequest { topic: NAME.into(), partitions, at };
        let listed = world.data.offsets(&world.call(), request).await?;
        Ok::<Vec<(i32, i64)>, Error>(listed.offsets.iter().map(|o| (o.partition, o.offset)).collect())
    };
    assert_eq!(list(None, vec![]).await.expect("latest"), vec![(0, 0), (1, 2)]);
    let late = wkt::Timestamp::from_millis(records::now_ms() + 60_000);
    assert_eq!(list(Some(At::Time(late)), vec![1, 1]).await.expect("by time"), vec![(1, 2)]);
    assert_eq!(list(None, vec![0, 2]).await.expect_err("no such").field.as_deref(), Some("partitions[1]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_takes_json_raw_records_and_protobuf() {
    let world = World::new(1).await;
    let json = r#"{"records":[{"keyText":"N14228","valueJson":{"delay":11},"headers":[{"name":"a","text":"b"}]}]}"#;
    let answer = world.data.http_produce(world.http("POST", "", &[("content-type", "application/json")], json)).await;
    let answer = answer.expect("taken");
    assert_eq!(answer.status(), 200);
    assert_eq!(body(answer).await["results"][0]["offset"], "0");
    let raw = world.http(
        "POST",
        "?key=k%201&partition=0",
        &[("content-type", "text/plain"), ("x-record-header-source", "curl")],
        "plain",
    );
    assert_eq!(world.data.http_produce(raw).await.expect("taken").status(), 200);
    let message = ProduceRequest { topic: String::new(), records: vec![keyed("k", "proto")] }.encode_to_vec();
    let proto = world.http("POST", "", &[("content-type", "application/x-protobuf")], message);
    let answer = world.data.http_produce(proto).await.expect("taken");
    assert_eq!(answer.headers()["content-type"], "application/x-protobuf");

    let read = world.http("GET", "?partition=0&offset=earliest&encoding=JSON&wait_ms=100", &[], "");
    let answer = body(world.data.http_fetch(read).await.expect("read")).await;
    let records = answer["records"].as_array().expect("records");
    assert_eq!(records[0]["valueJson"], serde_json::json!({"delay": 11}));
    assert_eq!((&records[0]["keyText"], &records[0]["headers"][0]["text"]), (&"N14228".into(), &"b".into()));
    assert_eq!((&records[1]["keyText"], &records[1]["valueText"]), (&"k 1".into(), &"plain".into()));
    assert_eq!(records[1]["headers"][0], serde_json::json!({"name": "source", "text": "curl"}));
    assert_eq!(records[2]["valueText"], "proto");
    assert_eq!(answer["nextOffset"], "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_faults_name_their_field_and_write_nothing() {
    let world = World::new(1).await;
    let json = [("content-type", "application/json")];
    let cases = [
        (r#"{"records":[{"value":"%%%"}]}"#, "", "records[0].value"),
        (r#"{"records":[{"vlaue":"x"}]}"#, "", "records[0].vlaue"),
        (r#"{"records":[]}"#, "", "records"),
        (r#"{"records":[{}],"topic":"namespaces/other/topics/x"}"#, "", "topic"),
        (r#"{"records":[{}]}"#, "?key=x", "key"),
    ];
    for (text, query, field) in cases {
        let error = world.data.http_produce(world.http("POST", query, &json, text)).await.expect_err(text);
        assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::InvalidArgument, Some(field)), "{text}");
    }
    let deep = format!(r#"{{"records":[{{"valueJson":{}{}}}]}}"#, "[".repeat(1_000), "]".repeat(1_000));
    for text in [deep.as_str(), "{", "[]", ""] {
        assert!(world.data.http_produce(world.http("POST", "", &json, text.to_owned())).await.is_err(), "{text:.20}");
    }
    assert!(world.read(world.physical.as_str(), 0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_under_a_writer_is_not_found() {
    let world = World::new(1).await;
    world.produce(vec![keyed("k", "v")]).await;
    world.admin.delete_topic(world.physical.as_str(), WITHIN).await.expect("deleted");
    let request = ProduceRequest { topic: NAME.into(), records: vec![keyed("k", "v")] };
    let error = world.data.produce_records(&world.call(), request).await.expect_err("gone");
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::NotFound, Error::not_found(NAME).message.as_str()));
    let request = FetchRequest { encoding: PayloadEncoding::Text.into(), ..Default::default() };
    assert_eq!(world.fetch(request).await.expect_err("gone").kind, ErrorKind::NotFound);
    world.data.forget(&world.physical);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_cluster_is_answered_in_time_and_metered_when_it_thaws() {
    let stack = sluice_devstack::Stack::builder().without_postgres().build().await.expect("stack");
    let kafka = stack.kafka().expect("kafka");
    let world = World::on(kafka.connection(), 1).await;
    world.produce(vec![keyed("k", "before")]).await;
    kafka.pause(1).await.expect("paused");

    let mut told = Vec::new();
    for _ in 0..6 {
        let call = world.call_within(Duration::from_millis(600));
        let request = ProduceRequest { topic: NAME.into(), records: vec![keyed("k", "during")] };
        let answer = world.data.produce_records(&call, request).await.expect("results, not an error");
        assert!(call.context.deadline > Instant::now(), "answered before the deadline");
        told.push(answer.results[0].outcome());
    }
    assert_eq!(told[5], Outcome::NotPersisted, "{told:?}");
    let call = world.call_within(Duration::from_secs(1));
    let request = FetchRequest { topic: NAME.into(), start: Some(Start::Offset(0)), ..Default::default() };
    let error = world.data.fetch_records(&call, request).await.expect_err("nobody answers");
    assert_eq!((error.kind, error.reason), (ErrorKind::Unavailable, Reason::ClusterUnavailable));
    assert!(call.context.deadline > Instant::now(), "answered before the deadline");

    kafka.resume(1).expect("resumed");
    let thawed = Instant::now();
    loop {
        let call = world.call_within(Duration::from_millis(600));
        let request = ProduceRequest { topic: NAME.into(), records: vec![keyed("k", "after")] };
        let answer = world.data.produce_records(&call, request).await.expect("results");
        told.push(answer.results[0].outcome());
        if told.last() == Some(&Outcome::Persisted) {
            break;
        }
        assert!(thawed.elapsed() < Duration::from_secs(5), "{told:?}");
    }
    while world.fetch(FetchRequest::default()).await.is_err() {
        assert!(thawed.elapsed() < Duration::from_secs(5), "reading recovers, too");
    }

    let covered: i64 = world
        .windows()
        .await
        .iter()
        .flat_map(|window| &window.produced)
        .flat_map(|partition| &partition.intervals)
        .map(|interval| interval.end - interval.start)
        .sum();
    let log = world.read(world.physical.as_str(), 0).await;
    assert_eq!(covered, log.len() as i64, "late acknowledgements count: {told:?}");
    stack.stop().await;
}
