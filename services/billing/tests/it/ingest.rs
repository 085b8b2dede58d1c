//! One transaction per batch: once, all or nothing, in any interleaving.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sluice_billing::domain::window::Window;
use sluice_billing::jobs::source_watch::LOST_AFTER;
use sluice_billing::store::ingest::{Ingested, Received, ingest};
use sluice_billing::store::log_position::{Log, Position, log_position_load};
use sluice_billing::store::migrations::MIGRATIONS;
use sluice_billing::store::sources::{Missing, hole_count, hole_declare_lost};
use sluice_db::{Migrations, sqlx};
use sluice_runtime::FailPoints;
use sluice_types::TenantScope;
use sluice_wire::KafkaTopicId;

use crate::support::{Place, TestDatabase, fresh_database, migrated, url, window};

const HOLES: &str =
    "SELECT source, first_window, end_window, lost_at IS NOT NULL FROM billing.source_hole ORDER BY 1, 2";
const TOPIC_ID: KafkaTopicId = KafkaTopicId([7; 16]);

fn log(partition: i32) -> Log {
    Log { topic: "sluice.usage", partition }
}

fn received(offset: i64, window: &Window) -> Received {
    Received { offset, appended_ms: window.close_time_ms, window: Ok(window.clone()) }
}

/// Adds windows as the records from `from` on; returns the position after.
async fn add(database: &TestDatabase, log: &Log, from: i64, windows: &[Window]) -> Option<Ingested> {
    let system = database.database.system();
    let at = Position { next: from, ..log_position_load(system, log, TOPIC_ID).await.unwrap() };
    let records: Vec<Received> = (from..).zip(windows).map(|(offset, window)| received(offset, window)).collect();
    let to = from + records.len() as i64;
    ingest(system, log, at, to, &records, &FailPoints::default()).await.expect("no deadlock, no lock timeout")
}

#[tokio::test]
async fn a_batch_is_added_once_however_often_it_is_tried() {
    let database = fresh_database().await;
    let place = Place::fresh();
    let mut first = window("gw/1", 1, 5, vec![place.produced(0, &[(0, 10, 1000), (12, 14, 40)])]);
    first.delivered.push(place.delivered(0, 77, 3));
    let second = window("gw/1", 2, 6, vec![place.produced(0, &[(10, 12, 20)])]);
    let batch = [first, second];

    let done = add(&database, &log(0), 0, &batch).await.unwrap();
    assert_eq!((done.added, done.repeated), (2, 0));
    let rows = database.counted().await;
    // The same records at the same position: somebody was here.
    assert!(add(&database, &log(0), 0, &batch).await.is_none());
    // The same windows once more in the log, as after a resend.
    let again = add(&database, &log(0), 2, &batch).await.unwrap();
    assert_eq!((again.added, again.repeated), (0, 2));
    assert_eq!(database.counted().await, rows);

    let topic = place.topic.as_i64();
    let coverage = r#"SELECT "start", "end", bytes FROM billing.coverage"#;
    assert_eq!(database.sql(&format!("{coverage} WHERE topic_uid = {topic}")).await, "0|14|1060");
    let hours =
        "SELECT hour, ingress_bytes, ingress_records, egress_bytes, egress_records FROM billing.hourly ORDER BY 1";
    assert_eq!(database.sql(hours).await, "5|1040|12|77|3\n6|20|2|0|0");
    let sums = "SELECT covered_bytes, covered_records, covered_end FROM billing.topic_partition";
    assert_eq!(database.sql(sums).await, "1060|14|14");
}

#[tokio::test]
async fn an_overlap_and_a_broken_window_are_on_record_and_their_sources_go_on() {
    let database = fresh_database().await;
    let (place, stranger) = (Place::fresh(), Place::fresh());
    let stolen = Place { tenant: stranger.tenant, ..place };
    let system = database.database.system();
    let at = log_position_load(system, &log(0), TOPIC_ID).await.unwrap();
    let records = [
        received(0, &window("a/1", 1, 1, vec![place.produced(0, &[(0, 10, 10)])])),
        received(1, &window("a/1", 2, 1, vec![place.produced(0, &[(5, 15, 10)])])),
        received(2, &window("a/1", 4, 1, vec![place.produced(0, &[(20, 30, 10)])])),
        received(3, &window("b/1", 1, 1, vec![stolen.produced(0, &[(30, 31, 1)])])),
        Received { offset: 4, appended_ms: 3_600_000, window: Err("window is empty".into()) },
        received(5, &window("b/1", 2, 1, vec![stranger.produced(0, &[(0, 1, 100)])])),
    ];
    let done = ingest(system, &log(0), at, 6, &records, &FailPoints::default()).await.unwrap().unwrap();
    assert_eq!(done, Ingested { added: 4, jumped: 1, rejected: 2, overlaps: 1, ..Ingested::default() });
    assert_eq!(database.sql("SELECT ingress_bytes FROM billing.hourly ORDER BY 1").await, "20\n100");
    let reread = r#"SELECT "start", "end", claimed_bytes, source, window_number FROM billing.reread"#;
    assert_eq!(database.sql(reread).await, "5|15|10|a/1|2");
    assert_eq!(database.sql(r#"SELECT "offset" FROM billing.rejected_window ORDER BY 1"#).await, "3\n4");
    assert_eq!(database.sql(HOLES).await, "a/1|3|4|f\nb/1|1|2|f");
}

#[tokio::test]
async fn a_missing_window_is_an_alarm_until_it_comes_or_is_declared_lost() {
    let database = fresh_database().await;
    let (place, system) = (Place::fresh(), database.database.system());
    let egress = "SELECT sum(egress_records) FROM billing.hourly";
    let read = |number: i64| {
        let mut window = window("gw/1", number, 1, vec![]);
        window.delivered.push(place.delivered(0, 10, 1));
        window
    };
    // As from an empty database, where a gateway goes on with its next window.
    let done = add(&database, &log(0), 0, &[read(8), read(9)]).await.unwrap();
    assert_eq!((done.added, done.jumped), (2, 7));
    assert_eq!(database.sql(egress).await, "2", "nothing is held back");
    assert_eq!(hole_count(system).await.unwrap(), Missing { sources: 1, windows: 7, lost: 0 });

    // In the middle of the hole: what is left of it is as old as it was.
    database.sql("UPDATE billing.source_hole SET found_at = found_at - interval '9 minutes'").await;
    assert_eq!(add(&database, &log(0), 2, &[read(4), read(4), read(20)]).await.unwrap().added, 2);
    assert_eq!(database.sql(HOLES).await, "gw/1|1|4|f\ngw/1|5|8|f\ngw/1|10|20|f");
    assert_eq!(hole_declare_lost(system, LOST_AFTER).await.unwrap(), 0);
    assert_eq!(hole_declare_lost(system, Duration::from_secs(500)).await.unwrap(), 6, "the old ones");
    assert_eq!(hole_count(system).await.unwrap(), Missing { sources: 1, windows: 10, lost: 6 });

    // What was lost counts when it is found after all, once.
    assert_eq!(add(&database, &log(0), 5, &[read(7), read(2), read(7)]).await.unwrap().added, 2);
    assert_eq!(database.sql(HOLES).await, "gw/1|1|2|t\ngw/1|3|4|t\ngw/1|5|7|t\ngw/1|10|20|f");
    assert_eq!(database.sql(egress).await, "6");
    assert_eq!(hole_count(system).await.unwrap(), Missing { sources: 1, windows: 10, lost: 4 });
}

#[tokio::test]
async fn what_an_older_version_held_back_is_a_hole_after_the_upgrade() {
    let older = Migrations { schema: MIGRATIONS.schema, files: &MIGRATIONS.files[..5] };
    let database = migrated(&older).await;
    database.sql("INSERT INTO billing.source VALUES ('gw/1', 3, 7, false, 9), ('gw/2', 4, 7, true, 4)").await;
    MIGRATIONS.apply(&url(&database.name, "owner").await.into()).await.unwrap();
    assert_eq!(database.sql(HOLES).await, "gw/1|4|10|f");
    let place = Place::fresh();
    let next = [window("gw/1", 5, 1, vec![place.produced(0, &[(0, 1, 5)])]), window("gw/2", 4, 1, vec![])];
    let done = add(&database, &log(0), 0, &next).await.unwrap();
    assert_eq!((done.added, done.repeated), (1, 1));
    assert_eq!(database.sql(HOLES).await, "gw/1|4|5|f\ngw/1|6|10|f");
}

#[tokio::test]
async fn readers_of_different_logs_that_meet_at_one_topic_add_up() {
    let database = fresh_database().await;
    let places = [Place::fresh(), Place::fresh(), Place::fresh()];
    const WINDOWS: i64 = 40;
    let reader = |gateway: i64| {
        let database = &database;
        async move {
            let source = format!("gw-{gateway}/1");
            for number in 1..=WINDOWS {
                // Gateways write to the same partitions in turns, so each one's intervals lie between the others'.
                let at = (number - 1) * 4 + gateway;
                let mut produced: Vec<_> = places
                    .iter()
                    .flat_map(|p| [p.produced(0, &[(at, at + 1, 10)]), p.produced(1, &[(at, at + 1, 1)])])
                    .collect();
                if gateway % 2 == 1 {
                    produced.reverse();
                }
                add(database, &log(gateway as i32), number - 1, &[window(&source, number, 1, produced)]).await.unwrap();
            }
        }
    };
    tokio::join!(reader(0), reader(1), reader(2), reader(3));
    let coverage = r#"SELECT DISTINCT "start", "end", bytes, partition FROM billing.coverage ORDER BY partition"#;
    assert_eq!(database.sql(coverage).await, "0|160|1600|0\n0|160|160|1");
    assert_eq!(database.sql("SELECT count(*), sum(ingress_records) FROM billing.hourly").await, "6|960");
}

#[tokio::test]
async fn replay_from_an_empty_database_gives_identical_rows() {
    let seed = 20_261_121;
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let places = [Place::fresh(), Place::fresh()];
    let mut windows = Vec::new();
    for number in 1..=60 {
        let produced = places
            .iter()
            .map(|place| {
                let start = random.random_range(0..400);
                let end = start + random.random_range(1..20);
                place.produced(random.random_range(0..2), &[(start, end, (end - start) as u64 * 5)])
            })
            .collect();
        windows.push(window("gw/1", number, number / 20, produced));
        if random.random_bool(0.2) {
            windows.push(windows[random.random_range(0..windows.len())].clone());
        }
    }
    let mut dumps = Vec::new();
    for largest_batch in [1, 7, 1_000] {
        let database = fresh_database().await;
        let mut rest = windows.as_slice();
        let mut from = 0;
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(random.random_range(1..=largest_batch).min(rest.len()));
            add(&database, &log(0), from, batch).await.unwrap();
            (rest, from) = (behind, from + batch.len() as i64);
        }
        assert_ne!(database.sql("SELECT count(*) FROM billing.reread").await, "0", "the windows overlap somewhere");
        dumps.push(database.counted().await);
    }
    assert_eq!(dumps[0], dumps[1]);
    assert_eq!(dumps[0], dumps[2]);
}

#[tokio::test]
async fn a_tenants_transaction_sees_its_own_rows_only_and_cannot_write() {
    let database = fresh_database().await;
    let (mine, theirs) = (Place::fresh(), Place::fresh());
    let batch = [window("gw/1", 1, 1, vec![mine.produced(0, &[(0, 1, 1)]), theirs.produced(0, &[(0, 1, 1)])])];
    add(&database, &log(0), 0, &batch).await.unwrap();
    let scope = TenantScope::from_verified(mine.tenant, "acme".parse().unwrap());
    for table in ["topic_partition", "coverage", "hourly"] {
        let mut tx = database.database.tenant(&scope).await.unwrap();
        let sql = format!("SELECT DISTINCT tenant_uid FROM billing.{table}");
        let seen: Vec<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(tx.conn()).await.unwrap();
        assert_eq!(seen, vec![mine.tenant.as_i64()], "{table}");
        let sql = format!("UPDATE billing.{table} SET partition = 9");
        let refused = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(tx.conn()).await;
        assert!(refused.unwrap_err().to_string().contains("permission denied"), "{table}");
    }
}
