//! Reading the logs of a real Kafka: positions, replaced topics, names.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;
use sluice_billing::jobs::log_feed::LogFeed;
use sluice_billing::jobs::usage_feed;
use sluice_billing::metrics::Metrics;
use sluice_billing::store::log_position::{Log, log_position_load};
use sluice_db::Database;
use sluice_runtime::FailPoints;
use sluice_runtime::Health;
use sluice_types::Uid;
use sluice_wire::Client;
use tokio_util::sync::CancellationToken;

use crate::support::{
    CALL, Place, SOON, append, encode, eventually, fresh_database, kafka, make_topic, make_topic_with, window,
};

pub(crate) fn fresh_log() -> Log {
    Log { topic: Box::leak(format!("test-usage-{}", Uid::random()).into_boxed_str()), partition: 0 }
}

pub(crate) fn feed<S>(log: Log, kafka: Client, database: Database, sink: Arc<S>) -> LogFeed<S> {
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
async fn a_log_that_was_made_anew_is_read_from_its_beginning_and_nothing_counts_twice() {
    let (database, kafka, log) = (fresh_database().await, kafka().await, fresh_log());
    make_topic(&kafka, log.topic, 1).await;
    let place = Place::fresh();
    let read = |number: i64| {
        let at = number - 1;
        let mut window = window("gw/1", number, 1, vec![place.produced(0, &[(at, at + 1, 3)])]);
        window.delivered.push(place.delivered(0, 10, 1));
        encode(&window)
    };
    append(&kafka, log.topic, 0, &[read(1), read(2), read(3)]).await;
    let stop = CancellationToken::new();
    let reader = tokio::spawn(usage(&log, &kafka, &database.database, FailPoints::default()).run(stop.clone()));
    let counted = "SELECT sum(ingress_records), sum(egress_records) FROM billing.hourly";
    eventually("windows counted", SOON, || async { database.sql(counted).await == "3|3" }).await;

    kafka.delete_topic(log.topic, CALL).await.unwrap();
    eventually("topic gone", SOON, || async {
        kafka.metadata(&[log.topic], CALL).await.unwrap().topics[0].error.is_some()
    })
    .await;
    make_topic(&kafka, log.topic, 1).await;
    // One that was sent again, and the source goes on; the fourth died with the log.
    append(&kafka, log.topic, 0, &[read(3), read(5)]).await;
    eventually("the new log is read", SOON, || async { database.sql(counted).await == "4|4" }).await;
    let holes = "SELECT first_window, end_window FROM billing.source_hole";
    assert_eq!(database.sql(holes).await, "4|5");
    assert_eq!(database.sql("SELECT read_to FROM billing.log_replaced").await, "3");
    stop.cancel();
    reader.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_log_that_lost_its_end_is_read_again() {
    let (database, kafka, log) = (fresh_database().await, kafka().await, fresh_log());
    make_topic(&kafka, log.topic, 1).await;
    let place = Place::fresh();
    let values: Vec<_> = (1..=2)
        .map(|number| encode(&window("gw/1", number, 1, vec![place.produced(0, &[(number, number + 1, 3)])])))
        .collect();
    append(&kafka, log.topic, 0, &values).await;
    // As after a read of records that the log has no more.
    let id = kafka.topic(log.topic, CALL).await.unwrap().topic_id;
    log_position_load(database.database.system(), &log, id).await.unwrap();
    database.sql("UPDATE billing.ingest_offset SET next = 9").await;
    let stop = CancellationToken::new();
    let reader = tokio::spawn(usage(&log, &kafka, &database.database, FailPoints::default()).run(stop.clone()));
    let counted = "SELECT sum(ingress_records) FROM billing.hourly";
    eventually("the log is read again", SOON, || async { database.sql(counted).await == "2" }).await;
    assert_eq!(database.sql("SELECT read_to FROM billing.log_replaced").await, "9");
    stop.cancel();
    reader.await.unwrap().unwrap();
}

#[tokio::test]
async fn usage_is_of_the_hour_in_which_the_log_got_it_whatever_the_gateways_clock_says() {
    let (database, kafka, log) = (fresh_database().await, kafka().await, fresh_log());
    make_topic_with(&kafka, log.topic, 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let place = Place::fresh();
    let now_hour = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3_600).unwrap();
    let before = now_hour();
    // A gateway whose clock is ten years ahead, and one that lives in 1970.
    let (ahead, behind) = (before + 87_600, 1);
    let windows = [
        encode(&window("gw/ahead", 1, ahead, vec![place.produced(0, &[(0, 1, 3)])])),
        encode(&window("gw/behind", 1, behind, vec![place.produced(0, &[(1, 2, 3)])])),
    ];
    append(&kafka, log.topic, 0, &windows).await;
    let stop = CancellationToken::new();
    let reader = tokio::spawn(usage(&log, &kafka, &database.database, FailPoints::default()).run(stop.clone()));
    eventually("counted", SOON, || async {
        database.sql("SELECT sum(ingress_records) FROM billing.hourly").await == "2"
    })
    .await;
    let hours = database.sql("SELECT min(hour), max(hour) FROM billing.hourly").await;
    let after = now_hour();
    let (first, last) = hours.split_once('|').unwrap();
    let within = |hour: &str| (before..=after).contains(&hour.parse().unwrap());
    assert!(within(first) && within(last), "{hours} is not within {before}..={after}");
    stop.cancel();
    reader.await.unwrap().unwrap();
}
