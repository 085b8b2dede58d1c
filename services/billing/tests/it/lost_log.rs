//! Logs that lost what was read of them, on a Kafka of its own, whose disk it damages.

use std::time::Duration;

use sluice_billing::store::log_position::Log;
use sluice_devstack::{ADMIN, Stack};
use sluice_runtime::FailPoints;
use tokio_util::sync::CancellationToken;

use crate::feed::usage;
use crate::names::World;
use crate::support::{Place, SOON, append, encode, eventually, fresh_database, make_topic, window};

/// A broker starts in about 3 s alone; others may start beside it.
const RESTARTED: Duration = Duration::from_secs(60);
const LOG: Log = Log { topic: "usage", partition: 0 };
const CONTROL: Log = Log { topic: "control", partition: 0 };
const COUNTED: &str = "SELECT coalesce(sum(ingress_records), 0) FROM billing.hourly";
const HOLES: &str =
    "SELECT string_agg(first_window || '-' || end_window, ' ' ORDER BY first_window) FROM billing.source_hole";

/// Lets the position stand still, and so the reader.
const HOLD: &str = "
    CREATE FUNCTION billing.hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'held'; END $$;
    CREATE TRIGGER hold BEFORE UPDATE ON billing.ingest_offset FOR EACH ROW EXECUTE FUNCTION billing.hold();";

#[tokio::test]
async fn a_usage_log_that_was_cut_off_and_has_grown_since_is_read_again_without_a_crash() {
    let stack = Stack::builder().without_postgres().build().await.unwrap();
    let broker = stack.kafka().unwrap();
    let kafka = broker.connection().client(ADMIN).unwrap();
    let database = fresh_database().await;
    make_topic(&kafka, LOG.topic, 1).await;
    let place = Place::fresh();
    let read = |number: i64| encode(&window("gw/1", number, 1, vec![place.produced(0, &[(number, number + 1, 3)])]));
    append(&kafka, LOG.topic, 0, &[read(1), read(2)]).await;
    let feed = usage(&LOG, &kafka, &database.database, FailPoints::default());
    let (health, stop) = (feed.health.clone(), CancellationToken::new());
    let reader = tokio::spawn(feed.run(stop.clone()));
    let counted = |records: &'static str| {
        let database = &database;
        async move { database.sql(COUNTED).await == records }
    };
    eventually("both windows are counted", SOON, || counted("2")).await;

    // The third is read, and before it is stored the disk is lost and the log grows beyond it without the fourth.
    database.sql(HOLD).await;
    append(&kafka, LOG.topic, 0, &[read(3)]).await;
    eventually("the reader stands still", SOON, || async {
        health.component("feed").is_some_and(|status| !status.ok && status.detail.starts_with("store"))
    })
    .await;
    broker.stop(1).await.unwrap();
    std::fs::remove_dir_all(stack.dir().join("kafka/node-1/data/usage-0")).unwrap();
    broker.start_broker(1).await.unwrap();
    append(&kafka, LOG.topic, 0, &[read(5), read(6), read(7), read(8)]).await;
    database.sql("DROP TRIGGER hold ON billing.ingest_offset").await;

    // What stands where other windows stood is counted, too; what is missing is told; later windows go on.
    eventually("the log is read again", RESTARTED, || counted("7")).await;
    append(&kafka, LOG.topic, 0, &[read(9)]).await;
    eventually("later windows are counted", SOON, || counted("8")).await;
    assert_eq!(database.sql(HOLES).await, "4-5");
    assert_eq!(database.sql("SELECT read_to FROM billing.log_replaced").await, "3");
    stop.cancel();
    reader.await.unwrap().unwrap();
    stack.stop().await;
}

#[tokio::test]
async fn logs_that_lost_their_end_and_grew_again_while_nobody_read_them_are_read_again() {
    let stack = Stack::builder().without_postgres().build().await.unwrap();
    let broker = stack.kafka().unwrap();
    let kafka = broker.connection().client(ADMIN).unwrap();
    let world = World::on(kafka.clone(), CONTROL).await;
    let (database, place) = (&world.database, &world.place);
    make_topic(&kafka, LOG.topic, 1).await;
    let read = |number: i64| encode(&window("gw/1", number, 1, vec![place.produced(0, &[(number, number + 1, 3)])]));
    append(&kafka, LOG.topic, 0, &[read(1), read(2)]).await;
    world.append(vec![world.tenant("acme", 9), world.complete().await]).await;
    let feeds = || {
        let stop = CancellationToken::new();
        let feed = usage(&LOG, &kafka, &database.database, FailPoints::default());
        (world.read(), tokio::spawn(feed.run(stop.clone())), stop)
    };
    let counted = |records: &'static str| async move { database.sql(COUNTED).await == records };
    let (names, windows, stop) = feeds();
    eventually("both windows are counted", SOON, || counted("2")).await;
    world.read_to(2).await;
    names.end().await;
    stop.cancel();
    windows.await.unwrap().unwrap();

    // Both lose all, and hold other records where those were that were read, and more.
    broker.stop(1).await.unwrap();
    for log in ["usage-0", "control-0"] {
        std::fs::remove_dir_all(stack.dir().join("kafka/node-1/data").join(log)).unwrap();
    }
    broker.start_broker(1).await.unwrap();
    append(&kafka, LOG.topic, 0, &[read(3), read(5), read(6)]).await;
    world.append(vec![world.tenant("lost", 2), world.tenant("renamed", 3), world.complete().await]).await;

    let (names, windows, stop) = feeds();
    eventually("all windows are counted", RESTARTED, || counted("5")).await;
    assert_eq!(database.sql(HOLES).await, "4-5");
    let tenant = "SELECT id, version FROM billing.tenant";
    eventually("names are those of the log", SOON, || async { database.sql(tenant).await == "renamed|3" }).await;
    let restarts = "SELECT string_agg(topic || ' ' || read_to, ', ' ORDER BY topic) FROM billing.log_replaced";
    assert_eq!(database.sql(restarts).await, "control 2, usage 2");
    names.end().await;
    stop.cancel();
    windows.await.unwrap().unwrap();
    stack.stop().await;
}
