//! What several of these tests need: a migrated database of their own, topics of their own, windows.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use sluice_billing::domain::coverage::Interval;
use sluice_billing::domain::window::{Delivered, Owner, PartitionKey, Produced, Window};
use sluice_billing::store::migrations::MIGRATIONS;
use sluice_db::{Database, DbConfig, Migrations};
use sluice_devstack::{ADMIN, Connection, shared};
use sluice_installation::postgres::{Roles, bootstrap};
use sluice_proto::internal::usage::v1 as pb;
use sluice_types::{NamespaceUid, TenantUid, TopicUid};
use sluice_wire::{Client, NewTopic, OutRecord};

/// Bound of single Kafka calls.
pub(crate) const CALL: Duration = Duration::from_secs(10);
/// Bound of what should happen soon, on a machine under load.
pub(crate) const SOON: Duration = Duration::from_secs(30);
const PASSWORD: &str = "for-tests";

/// A database of one test.
pub(crate) struct TestDatabase {
    pub(crate) name: String,
    pub(crate) database: Database,
}

pub(crate) async fn stack() -> &'static Connection {
    shared().await.unwrap()
}

pub(crate) async fn url(name: &str, part: &str) -> String {
    stack().await.postgres().unwrap().url_as(&format!("sluice_billing_{part}"), PASSWORD, name)
}

pub(crate) async fn open(name: &str) -> Database {
    Database::open(&DbConfig::new("test", url(name, "app").await.into(), url(name, "system").await.into())).unwrap()
}

pub(crate) async fn fresh_database() -> TestDatabase {
    migrated(&MIGRATIONS).await
}

/// With these migrations only.
pub(crate) async fn migrated(migrations: &Migrations) -> TestDatabase {
    let postgres = stack().await.postgres().unwrap();
    let name = postgres.fresh_name("billing").unwrap();
    let roles = Roles {
        service: "billing",
        owner_password: PASSWORD.into(),
        app_password: PASSWORD.into(),
        system_password: PASSWORD.into(),
    };
    bootstrap(&postgres.url("postgres").into(), &name, &roles).await.unwrap();
    migrations.apply(&url(&name, "owner").await.into()).await.unwrap();
    TestDatabase { database: open(&name).await, name }
}

impl TestDatabase {
    /// Rows as the super user sees them, columns parted by `|`.
    pub(crate) async fn sql(&self, sql: &str) -> String {
        stack().await.postgres().unwrap().execute(&self.name, sql).await.unwrap()
    }

    /// All that counting wrote, to be compared.
    pub(crate) async fn counted(&self) -> String {
        let mut rows = String::new();
        for (table, order) in [
            ("topic_partition", "1, 2"),
            ("coverage", "1, 2, 3"),
            ("hourly", "3, 4, 5"),
            ("source", "1"),
            ("reread", "1, 2, 3, 4, 6, 7"),
        ] {
            rows +=
                &format!("{table}\n{}\n", self.sql(&format!("SELECT * FROM billing.{table} ORDER BY {order}")).await);
        }
        rows
    }
}

/// Kafka as the super user.
pub(crate) async fn kafka() -> Client {
    stack().await.kafka().unwrap().client(ADMIN).unwrap()
}

/// Makes a topic unless it is there; returns when it is served.
pub(crate) async fn make_topic(kafka: &Client, name: &str, partitions: i32) {
    make_topic_with(kafka, name, partitions, &[]).await;
}

/// The same with settings.
pub(crate) async fn make_topic_with(kafka: &Client, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    // Most records here are of 1970.
    let configs = configs.iter().chain(&[("retention.ms", "-1")]);
    let configs = configs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let topic = NewTopic { name: name.to_owned(), partitions, replication: 1, configs };
    match kafka.create_topic(&topic, CALL).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kafka_code(), Some(sluice_wire::code::TOPIC_ALREADY_EXISTS), "{error}"),
    }
    eventually("topic served", SOON, || async {
        let topic = kafka.metadata(&[name], CALL).await.unwrap().topics.remove(0);
        topic.error.is_none()
            && topic.partitions.len() >= partitions as usize
            && topic.partitions.values().all(|partition| partition.leader.is_some())
    })
    .await;
}

pub(crate) async fn append(kafka: &Client, topic: &str, partition: i32, values: &[Vec<u8>]) -> i64 {
    let record = |value: &Vec<u8>| OutRecord { value: Some(Bytes::copy_from_slice(value)), ..Default::default() };
    append_records(kafka, topic, partition, &values.iter().map(record).collect::<Vec<_>>()).await
}

/// The same with all that a record has.
pub(crate) async fn append_records(kafka: &Client, topic: &str, partition: i32, records: &[OutRecord]) -> i64 {
    let start = Instant::now();
    loop {
        match kafka.produce_batch(topic, partition, records, CALL).await {
            Ok(produced) => return produced.base_offset,
            Err(error) => assert!(start.elapsed() < SOON, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks until it holds; fails the test after `within`.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, within: Duration, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < within, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A topic of a tenant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) tenant: TenantUid,
    pub(crate) namespace: NamespaceUid,
    pub(crate) topic: TopicUid,
}

impl Place {
    pub(crate) fn fresh() -> Self {
        Self { tenant: TenantUid::random(), namespace: NamespaceUid::random(), topic: TopicUid::random() }
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner { tenant: self.tenant, namespace: self.namespace }
    }

    pub(crate) fn key(&self, partition: i32) -> PartitionKey {
        PartitionKey { topic: self.topic, partition }
    }

    pub(crate) fn produced(&self, partition: i32, intervals: &[(i64, i64, u64)]) -> Produced {
        let intervals =
            intervals.iter().map(|&(start, end, bytes)| Interval::new(start, end, bytes).unwrap()).collect();
        Produced { owner: self.owner(), key: self.key(partition), intervals }
    }

    pub(crate) fn delivered(&self, partition: i32, bytes: u64, records: u64) -> Delivered {
        Delivered { owner: self.owner(), key: self.key(partition), bytes, records }
    }
}

pub(crate) fn window(source: &str, number: i64, hour: i64, produced: Vec<Produced>) -> Window {
    Window { source: source.into(), number, close_time_ms: hour * 3_600_000, produced, delivered: vec![], last: false }
}

/// As a gateway writes it.
pub(crate) fn encode(window: &Window) -> Vec<u8> {
    let interval = |i: &Interval| pb::Interval { start: i.start(), end: i.end(), bytes: i.bytes() };
    let produced = |p: &Produced| pb::ProducedPartition {
        tenant_uid: p.owner.tenant.to_string(),
        namespace_uid: p.owner.namespace.to_string(),
        topic_uid: p.key.topic.to_string(),
        partition: p.key.partition,
        intervals: p.intervals.iter().map(interval).collect(),
    };
    let delivered = |d: &Delivered| pb::DeliveredPartition {
        tenant_uid: d.owner.tenant.to_string(),
        namespace_uid: d.owner.namespace.to_string(),
        topic_uid: d.key.topic.to_string(),
        partition: d.key.partition,
        bytes: d.bytes,
        records: d.records,
    };
    pb::UsageWindow {
        source: window.source.clone(),
        number: window.number,
        close_time_ms: window.close_time_ms,
        produced: window.produced.iter().map(produced).collect(),
        delivered: window.delivered.iter().map(delivered).collect(),
        last: window.last,
    }
    .encode_to_vec()
}
