//! Names from a real control log, also from one that says older things than are held.

use prost::Message as _;
use sluice_billing::jobs::control_feed::{NameSink, follow};
use sluice_billing::jobs::log_feed::FeedError;
use sluice_billing::store::log_position::Log;
use sluice_proto::internal::control::v1::{
    ControlRecord, Life, LogComplete, TenantState, TopicState, control_record::Resource,
};
use sluice_runtime::Health;
use sluice_types::Uid;
use sluice_types::physical::CONTROL_COMPLETE_KEY;
use sluice_wire::{Client, OutRecord};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::feed::{feed, fresh_log};
use crate::support::{
    CALL, Place, SOON, TestDatabase, append_records, eventually, fresh_database, kafka, make_topic_with,
};

/// As the control log is made.
const SETTINGS: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")];
const TOPICS: &str = "SELECT id, life, partitions, final_end_offsets, version FROM billing.topic ORDER BY id";

/// A control log, and billing that reads it.
pub(crate) struct World {
    pub(crate) database: TestDatabase,
    kafka: Client,
    log: Log,
    pub(crate) place: Place,
}

/// A reader under way.
pub(crate) struct Reading {
    health: Health,
    stop: CancellationToken,
    done: JoinHandle<Result<(), FeedError>>,
}

impl Reading {
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.done.await.unwrap().unwrap();
    }
}

impl World {
    async fn new() -> Self {
        Self::on(kafka().await, fresh_log()).await
    }

    /// On this Kafka, with a log that is to be made.
    pub(crate) async fn on(kafka: Client, log: Log) -> Self {
        let database = fresh_database().await;
        make_topic_with(&kafka, log.topic, 1, &SETTINGS).await;
        Self { database, kafka, log, place: Place::fresh() }
    }

    pub(crate) fn read(&self) -> Reading {
        let sink = NameSink::new(self.database.database.system().clone());
        let feed = feed(self.log.clone(), self.kafka.clone(), self.database.database.clone(), sink);
        let (health, stop) = (feed.health.clone(), CancellationToken::new());
        Reading { health, done: tokio::spawn(follow(feed, stop.clone())), stop }
    }

    fn topic(&self, uid: Uid, id: &str, version: i64, life: Life, partitions: i32, ends: &[i64]) -> (String, Vec<u8>) {
        let topic = TopicState {
            uid: uid.to_string(),
            id: id.into(),
            namespace_uid: self.place.namespace.to_string(),
            namespace_id: "prod".into(),
            life: life.into(),
            partitions,
            final_end_offsets: ends.to_vec(),
            ..Default::default()
        };
        self.record(uid, version, Resource::Topic(topic))
    }

    pub(crate) fn tenant(&self, id: &str, version: i64) -> (String, Vec<u8>) {
        let (uid, life) = (self.place.tenant.to_string(), Life::Active.into());
        let tenant = TenantState { uid, id: id.into(), life, ..Default::default() };
        self.record(self.place.tenant.uid(), version, Resource::Tenant(tenant))
    }

    fn record(&self, uid: Uid, version: i64, resource: Resource) -> (String, Vec<u8>) {
        let tenant_uid = self.place.tenant.to_string();
        let record = ControlRecord { version, tenant_uid, resource: Some(resource), ..Default::default() };
        (uid.to_string(), record.encode_to_vec())
    }

    /// What the control plane says when all is in the log.
    pub(crate) async fn complete(&self) -> (String, Vec<u8>) {
        let control_topic_id = self.kafka.topic(self.log.topic, CALL).await.unwrap().topic_id.to_string();
        let complete = LogComplete { control_topic_id, ..Default::default() };
        let record = ControlRecord { resource: Some(Resource::Complete(complete)), ..Default::default() };
        (CONTROL_COMPLETE_KEY.to_owned(), record.encode_to_vec())
    }

    pub(crate) async fn append(&self, records: Vec<(String, Vec<u8>)>) {
        let record = |(key, value): (String, Vec<u8>)| OutRecord {
            key: Some(key.into()),
            value: Some(value.into()),
            ..Default::default()
        };
        let records: Vec<OutRecord> = records.into_iter().map(record).collect();
        append_records(&self.kafka, self.log.topic, 0, &records).await;
    }

    /// Waits until this is the next offset to be read.
    pub(crate) async fn read_to(&self, next: i64) {
        let sql = format!("SELECT next FROM billing.ingest_offset WHERE topic = '{}'", self.log.topic);
        eventually("the log is read", SOON, || async { self.database.sql(&sql).await == next.to_string() }).await;
    }

    /// The log is lost, and another one is made under its name.
    async fn make_log_anew(&self) {
        self.kafka.delete_topic(self.log.topic, CALL).await.unwrap();
        eventually("topic gone", SOON, || async {
            self.kafka.metadata(&[self.log.topic], CALL).await.unwrap().topics[0].error.is_some()
        })
        .await;
        make_topic_with(&self.kafka, self.log.topic, 1, &SETTINGS).await;
    }
}

#[tokio::test]
async fn names_follow_the_control_log_and_older_versions_change_nothing() {
    let world = World::new().await;
    let uid = world.place.topic.uid();
    let values = vec![
        world.topic(uid, "orders", 1, Life::Pending, 0, &[]),
        world.topic(uid, "orders", 2, Life::Active, 2, &[]),
        (Uid::random().to_string(), b"not a record".to_vec()),
        world.topic(uid, "orders", 4, Life::Gone, 0, &[5, 6]),
        world.topic(uid, "orders", 3, Life::Active, 9, &[]),
    ];
    world.append(values).await;
    let reading = world.read();
    world.read_to(5).await;
    reading.end().await;
    let row = "SELECT namespace_id, id, life, partitions, final_end_offsets, version FROM billing.topic";
    assert_eq!(world.database.sql(row).await, "prod|orders|3|2|{5,6}|4");
}

#[tokio::test]
async fn a_log_and_a_database_that_were_restored_older_are_right_once_the_log_is_complete() {
    let world = World::new().await;
    let (kept, ended) = (world.place.topic.uid(), Uid::random());
    world
        .append(vec![
            world.tenant("renamed", 9),
            world.topic(kept, "kept", 7, Life::Gone, 2, &[5, 6]),
            world.topic(ended, "made-later", 3, Life::Active, 1, &[]),
            world.complete().await,
        ])
        .await;
    let reading = world.read();
    world.read_to(4).await;

    // Both are of a time before the tenant was renamed, one topic was deleted and the other was made.
    world.make_log_anew().await;
    world.append(vec![world.tenant("acme", 2), world.topic(kept, "kept", 4, Life::Active, 2, &[])]).await;
    eventually("it waits for a complete log", SOON, || async {
        reading.health.component("feed").is_some_and(|status| status.detail.contains("not complete yet"))
    })
    .await;
    let tenants = "SELECT id, version FROM billing.tenant";
    assert_eq!(world.database.sql(tenants).await, "renamed|9", "the log may be filled still");
    world.append(vec![world.complete().await]).await;
    world.read_to(3).await;
    assert_eq!(world.database.sql(tenants).await, "acme|2");
    assert_eq!(world.database.sql(TOPICS).await, "kept|2|2|{}|4\nmade-later|3|1|{}|0");

    // And it goes on from there, by versions.
    world.append(vec![world.topic(kept, "kept", 5, Life::Active, 3, &[]), world.tenant("early", 1)]).await;
    world.read_to(5).await;
    assert_eq!(world.database.sql(tenants).await, "acme|2");
    assert!(world.database.sql(TOPICS).await.starts_with("kept|2|3|{}|5"));
    reading.end().await;
}

#[tokio::test]
async fn what_was_said_before_a_loss_does_not_make_a_log_complete_also_after_a_restart() {
    let world = World::new().await;
    world.append(vec![world.tenant("acme", 2), world.complete().await, world.tenant("renamed", 9)]).await;
    let reading = world.read();
    world.read_to(3).await;
    reading.end().await;
    // As if more had been read that the log has no more, at the time of the latest record.
    world
        .database
        .sql("UPDATE billing.ingest_offset SET next = 9; UPDATE billing.tenant SET version = 11, id = 'lost'")
        .await;

    let waits = |reading: &Reading| {
        let health = reading.health.clone();
        async move { health.component("feed").is_some_and(|status| status.detail.contains("not complete yet")) }
    };
    for _ in 0..2 {
        let reading = world.read();
        eventually("it waits for a complete log", SOON, || waits(&reading)).await;
        reading.end().await;
    }
    let tenants = "SELECT id, version FROM billing.tenant";
    assert_eq!(world.database.sql(tenants).await, "lost|11");
    let reading = world.read();
    world.append(vec![world.complete().await]).await;
    world.read_to(4).await;
    assert_eq!(world.database.sql(tenants).await, "renamed|9");
    assert_eq!(world.database.sql("SELECT read_to FROM billing.log_replaced").await, "9");
    reading.end().await;
}
