//! kill -9 anywhere: a reader process dies at each fail point and at random moments; the rows are those of a quiet run.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sluice_billing::FAIL_POINTS;
use sluice_billing::domain::window::Window;
use sluice_billing::store::log_position::Log;
use sluice_devstack::Signal;
use sluice_runtime::FailPoints;
use tokio_util::sync::CancellationToken;

use crate::feed::{fresh_log, usage};
use crate::support::{Place, SOON, append, encode, eventually, fresh_database, kafka, make_topic, open, window};

const DATABASE: &str = "SLUICE_TEST_BILLING_DATABASE";
const TOPIC: &str = "SLUICE_TEST_BILLING_TOPIC";
const CRASH_AT: &str = "SLUICE_TEST_BILLING_CRASH_AT";
const STACK: &str = "SLUICE_TEST_STACK";

/// Not a test: the reader process that the test below starts and kills.
#[tokio::test]
#[ignore = "started by kill_nine_anywhere_leaves_the_rows_of_a_quiet_run"]
#[allow(clippy::disallowed_methods, reason = "this is the main of a process, and the environment its arguments")]
async fn reader() {
    let Ok(database) = std::env::var(DATABASE) else { return };
    let topic = Box::leak(std::env::var(TOPIC).unwrap().into_boxed_str());
    let fail_points = FailPoints::new(&FAIL_POINTS, std::env::var(CRASH_AT).ok());
    let log = Log { topic, partition: 0 };
    usage(&log, &kafka().await, &open(&database).await, fail_points).run(CancellationToken::new()).await.unwrap();
}

fn start(database: &str, log: &Log, stack_file: &std::path::Path, crash_at: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::reader", "--ignored"]);
    command.env(DATABASE, database).env(TOPIC, log.topic).env(STACK, stack_file);
    if let Some(place) = crash_at {
        command.env(CRASH_AT, place);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn kill_nine_anywhere_leaves_the_rows_of_a_quiet_run() {
    let seed = 4_711;
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (killed, quiet, kafka, log) = (fresh_database().await, fresh_database().await, kafka().await, fresh_log());
    make_topic(&kafka, log.topic, 1).await;
    let stack_file = crate::support::stack().await.dir.join("stack.json");
    let places = [Place::fresh(), Place::fresh()];
    let mut number = 0;
    let mut more = async |count: i64| {
        for _ in 0..count {
            number += 1;
            let at = (number - 1) * 5;
            let mut window: Window = window(
                "gw/1",
                number,
                number / 50,
                places.iter().map(|p| p.produced(0, &[(at, at + 5, 50)])).collect(),
            );
            window.delivered.push(places[0].delivered(0, 9, 1));
            append(&kafka, log.topic, 0, &[encode(&window)]).await;
        }
    };

    more(20).await;
    for place in FAIL_POINTS {
        let mut child = start(&killed.name, &log, &stack_file, Some(place));
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "the reader dies at {place}");
        more(20).await;
    }
    for _ in 0..5 {
        let mut child = start(&killed.name, &log, &stack_file, None);
        more(random.random_range(5..40)).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }

    let stop = CancellationToken::new();
    let quiet_reader = tokio::spawn(usage(&log, &kafka, &quiet.database, FailPoints::default()).run(stop.clone()));
    let last_reader = tokio::spawn(usage(&log, &kafka, &killed.database, FailPoints::default()).run(stop.clone()));
    let read = format!("SELECT next = {number} FROM billing.ingest_offset");
    for database in [&killed, &quiet] {
        eventually("log read", SOON, || async { database.sql(&read).await == "t" }).await;
    }
    stop.cancel();
    quiet_reader.await.unwrap().unwrap();
    last_reader.await.unwrap().unwrap();
    assert_eq!(killed.counted().await, quiet.counted().await);
    let sum = format!("SELECT sum(ingress_records) = {} FROM billing.hourly", number * 10);
    assert_eq!(killed.sql(&sum).await, "t");
}
