//! Reading the logs of a real Kafka: positions, replaced topics, names.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use prost::Message as _;
use sluice_billing::fail_point::FailPoints;
use sluice_billing::jobs::control_feed::NameSink;
use sluice_billing::jobs::log_feed::{LogFeed, Sink};
use sluice_billing::jobs::usage_feed;
use sluice_billing::metrics::Metrics;
use sluice_billing::store::log_position::Log;
use sluice_db::Database;
use sluice_proto::internal::control::v1::{ControlRecord, Life, TopicState, control_record::Resource};
use sluice_runtime::Health;
use sluice_types::Uid;
use sluice_wire::Client;
use tokio_util::sync::CancellationToken;

use crate::support::{CALL, Place, SOON, append, encode, eventually, fresh_database, kafka, make_topic, window};

pub(crate) fn fresh_log() -> Log {
    Log { topic: Box::leak(format!("test-usage-{}", Uid::random()).into_boxed_str()), partition: 0 }
}

pub(crate) fn feed<S: Sink>(log: Log, kafka: Client, database: Database, sink: Arc<S>) -> LogFeed<S> {
    let metrics = Metrics::register(&mut Registry::default());
    LogFeed { log, kafka, database, sink, health: Health::new(), component: "feed", metrics }
}

pub(crate) fn usage(
    log: &Log,
    kafka: &Client,
    database: &Database,
    fail_points: FailPoints,
) -> LogFeed<usage_feed::UsageSink> {
    let sink = usage_feed::sink(database.system().clone(), fail_points, Metrics::default());
    feed(log.clone(), kafka.clone(), database.clone(), sink)
}

#[tokio::test]
async fn two_readers_of_one_partition_count_everything_once() {
    let (database, kafka, log) = (fresh_database().await, kafka().await, fresh_log());
    make_topic(&kafka, log.topic, 1).await;
    let place = Place::fresh();
    let stop = CancellationToken::new();
    let readers = [(); 2]
        .map(|()| tokio::spawn(usage(&log, &kafka, &database.database, FailPoints::default()).run(stop.clone())));
    for number in 1..=100 {
        let at = number - 1;
        append(
            &kafka,
            log.topic,
            0,
            &[encode(&window("gw/1", number, 1, vec![place.produced(0, &[(at, at + 1, 3)])]))],
        )
        .await;
    }
    let all = "SELECT covered_records FROM billing.topic_partition";
    eventually("all windows counted", SOON, || async { database.sql(all).await == "100" }).await;
    stop.cancel();
    for reader in readers {
        reader.await.unwrap().unwrap();
    }
    let hourly = "SELECT ingress_bytes, ingress_records FROM billing.hourly";
    assert_eq!(database.sql(hourly).await, "300|100");
}

#[tokio::test]
async fn a_replaced_log_is_read_from_its_beginning_and_nothing_is_counted_twice() {
    let (database, kafka, log) = (fresh_database().await, kafka().await, fresh_log());
    make_topic(&kafka, log.topic, 1).await;
    let place = Place::fresh();
    let window_of = |number, records: std::ops::Range<i64>| {
        encode(&window("gw/1", number, 1, vec![place.produced(0, &[(records.start, records.end, 3)])]))
    };
    append(&kafka, log.topic, 0, &[window_of(1, 0..1), window_of(2, 1..2)]).await;
    let stop = CancellationToken::new();
    let reader = tokio::spawn(usage(&log, &kafka, &database.database, FailPoints::default()).run(stop.clone()));
    let counted = "SELECT covered_records FROM billing.topic_partition";
    eventually("windows counted", SOON, || async { database.sql(counted).await == "2" }).await;

    kafka.delete_topic(log.topic, CALL).await.unwrap();
    eventually("topic gone", SOON, || async {
        kafka.metadata(&[log.topic], CALL).await.unwrap().topics[0].error.is_some()
    })
    .await;
    make_topic(&kafka, log.topic, 1).await;
    append(&kafka, log.topic, 0, &[window_of(2, 1..2), window_of(3, 2..3)]).await;
    eventually("the new log's window counted", SOON, || async { database.sql(counted).await == "3" }).await;
    stop.cancel();
    reader.await.unwrap().unwrap();
    let hourly = "SELECT sum(ingress_bytes), sum(ingress_records) FROM billing.hourly";
    assert_eq!(database.sql(hourly).await, "9|3", "the window that came again counts once");
}

#[tokio::test]
async fn a_log_that_was_cut_off_is_read_from_its_beginning() {
    let (database, kafka, log) = (fresh_database().await, kafka().await, fresh_log());
    make_topic(&kafka, log.topic, 1).await;
    let place = Place::fresh();
    let window = encode(&window("gw/1", 1, 1, vec![place.produced(0, &[(0, 1, 3)])]));
    append(&kafka, log.topic, 0, &[window]).await;
    let topic = kafka.topic(log.topic, CALL).await.unwrap().topic_id;
    let position = format!(
        "INSERT INTO billing.ingest_offset (topic, partition, topic_id, next) VALUES ('{}', 0, '{topic}', 500)",
        log.topic
    );
    database.sql(&position).await;
    let stop = CancellationToken::new();
    let reader = tokio::spawn(usage(&log, &kafka, &database.database, FailPoints::default()).run(stop.clone()));
    let counted = "SELECT covered_records FROM billing.topic_partition";
    eventually("the window counted", SOON, || async { database.sql(counted).await == "1" }).await;
    stop.cancel();
    reader.await.unwrap().unwrap();
}

#[tokio::test]
async fn names_follow_the_control_log_and_older_versions_change_nothing() {
    let (database, kafka, log) = (fresh_database().await, kafka().await, fresh_log());
    make_topic(&kafka, log.topic, 1).await;
    let place = Place::fresh();
    let record = |version: i64, life: Life, partitions: i32, ends: &[i64]| {
        let topic = TopicState {
            uid: place.topic.to_string(),
            id: "orders".into(),
            namespace_uid: place.namespace.to_string(),
            namespace_id: "prod".into(),
            life: life.into(),
            partitions,
            final_end_offsets: ends.to_vec(),
            ..Default::default()
        };
        let record = ControlRecord {
            version,
            tenant_uid: place.tenant.to_string(),
            resource: Some(Resource::Topic(topic)),
            ..Default::default()
        };
        record.encode_to_vec()
    };
    let values = [
        record(1, Life::Pending, 0, &[]),
        record(2, Life::Active, 2, &[]),
        b"not a record".to_vec(),
        record(4, Life::Gone, 0, &[5, 6]),
        record(3, Life::Active, 9, &[]),
    ];
    append(&kafka, log.topic, 0, &values).await;
    let stop = CancellationToken::new();
    let sink = NameSink::new(database.database.system().clone());
    let reader = tokio::spawn(feed(log.clone(), kafka.clone(), database.database.clone(), sink).run(stop.clone()));
    let position = format!("SELECT next FROM billing.ingest_offset WHERE topic = '{}'", log.topic);
    eventually("log read", SOON, || async { database.sql(&position).await == "5" }).await;
    stop.cancel();
    reader.await.unwrap().unwrap();
    let row = "SELECT namespace_id, id, life, partitions, final_end_offsets, version FROM billing.topic";
    assert_eq!(database.sql(row).await, "prod|orders|3|2|{5,6}|4");
}
