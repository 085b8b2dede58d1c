//! No change is lost and none goes backwards: relays killed at every step, killed at random, two at a time, and one that
//! writes an old state behind a new one.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use prost::Message as _;
use sluice_control_plane::{App, Config};
use sluice_devstack::{ADMIN, Signal, Stack, shared};
use sluice_proto::internal::control::v1::ControlRecord;
use sluice_proto::operator::v1::CreateTenantRequest;
use sluice_types::Uid;
use sluice_types::physical::CONTROL_TOPIC;
use sluice_wire::{Client, Isolation, LogTail, OffsetAt, OutRecord, TailOptions};
use tokio_util::sync::CancellationToken;

use crate::support::{Plant, eventually};

const CONFIG: &str = "SLUICE_TEST_CONTROL_CONFIG";
const CALL: Duration = Duration::from_secs(10);

/// Not a test: the process that the tests below start and kill.
#[tokio::test]
#[ignore = "started by the tests that kill it"]
#[allow(clippy::disallowed_methods, reason = "this is the main of a process, and the environment its arguments")]
async fn control_plane() {
    let Ok(path) = std::env::var(CONFIG) else { return };
    let config: Config = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    App::build(config).await.unwrap().run(CancellationToken::new()).await.unwrap();
}

fn start(plant: &Plant, crash_at: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "relay::control_plane", "--ignored"]).env(CONFIG, plant.write_config(crash_at));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Repeats until the process answers, one way or the other, as the operator's client would.
async fn create_tenant(plant: &Plant) -> Result<String, tonic::Code> {
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        request_id: "6f1c1f9e-5c0e-4b3e-9a43-0d6c7c1f2b11".into(),
        ..Default::default()
    };
    let made = plant.operator().create_tenant(plant.as_operator(request)).await;
    made.map(|tenant| tenant.into_inner().uid).map_err(|status| status.code())
}

#[tokio::test]
async fn a_kill_before_the_commit_leaves_nothing_and_after_it_everything() {
    let mut plant = Plant::prepare(shared().await.unwrap()).await;
    plant.choose_ports();
    let rows = "SELECT (SELECT count(*) FROM control.tenant), (SELECT count(*) FROM control.service_account),
                (SELECT count(*) FROM control.audit_event), (SELECT count(*) FROM control.outbox),
                (SELECT count(*) FROM control.idempotency)";
    for (step, left) in [("change.before_commit", "0|0|0|0|0"), ("change.after_commit", "1|1|1|2|1")] {
        let mut child = start(&plant, Some(step));
        // Until it serves there is no token file, and then nobody at the port.
        eventually("the process dies within the change", || async {
            if plant.dir.path().join("operator.token").exists() {
                assert!(create_tenant(&plant).await.is_err());
            }
            child_ended(&child)
        })
        .await;
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGABRT as i32), "{step}");
        assert_eq!(plant.sql(rows).await, left, "{step}");
    }
    // The repetition gets the answer of the change that nobody heard of.
    plant.run().await;
    let uid = create_tenant(&plant).await.unwrap();
    let known: i64 = plant.sql("SELECT uid FROM control.tenant").await.parse().unwrap();
    assert_eq!(uid, sluice_types::TenantUid::from_i64(known).to_string());
    assert_eq!(plant.sql(rows).await, "1|1|1|2|1");
    all_published(&plant).await;
}

/// Without reaping it, so that the test still sees how.
fn child_ended(child: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z'))
}

/// Adds changes as a transaction would.
async fn change(plant: &Plant, aggregate: Uid, versions: std::ops::RangeInclusive<i64>) {
    for version in versions {
        let record = ControlRecord { version, tenant_uid: "test".into(), ..Default::default() };
        let payload: String = record.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
        plant
            .sql(&format!(
                "INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload)
                 VALUES (1, {}, {version}, '\\x{payload}')",
                aggregate.as_u64() as i64
            ))
            .await;
    }
}

async fn all_published(plant: &Plant) {
    eventually("all changes published", || async {
        plant.sql("SELECT count(*) FROM control.outbox WHERE published_offset IS NULL").await == "0"
    })
    .await;
}

/// The versions of these aggregates as they stand in the log, by key.
async fn log(kafka: &Client, keys: &[Uid]) -> BTreeMap<String, Vec<(i64, ControlRecord)>> {
    let mut tail = LogTail::new(
        kafka.clone(),
        CONTROL_TOPIC,
        0,
        OffsetAt::Earliest,
        TailOptions { isolation: Isolation::ReadUncommitted, ..TailOptions::default() },
    );
    let mut found: BTreeMap<String, Vec<(i64, ControlRecord)>> = BTreeMap::new();
    loop {
        let batch = tail.next(CALL).await.unwrap();
        for record in &batch.records {
            let key = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
            if keys.iter().any(|wanted| wanted.to_string() == key) {
                let value = ControlRecord::decode(record.value.clone().unwrap()).unwrap();
                found.entry(key).or_default().push((record.offset, value));
            }
        }
        if batch.is_caught_up() {
            return found;
        }
    }
}

/// Every version is there, and once lower ones are dropped they only go up, by one.
fn assert_whole(found: &BTreeMap<String, Vec<(i64, ControlRecord)>>, key: Uid, last: i64) {
    let mut held = 0;
    for (_, record) in &found[&key.to_string()] {
        assert!(record.outbox_id > 0);
        if record.version > held {
            assert_eq!(record.version, held + 1, "a version was left out");
            held = record.version;
        }
    }
    assert_eq!(held, last);
}

#[tokio::test]
async fn a_relay_killed_at_each_step_loses_nothing() {
    let plant = Plant::prepare(shared().await.unwrap()).await;
    let kafka = plant.connection.kafka().unwrap().client(ADMIN).unwrap();
    let keys = [Uid::random(), Uid::random()];
    let mut last = 0;
    for step in ["relay.before_publish", "relay.after_publish"] {
        for key in keys {
            change(&plant, key, last + 1..=last + 3).await;
        }
        last += 3;
        let mut child = start(&plant, Some(step));
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "dies at {step}");
    }
    for _ in 0..3 {
        let mut child = start(&plant, None);
        for key in keys {
            change(&plant, key, last + 1..=last + 4).await;
        }
        last += 4;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut child = start(&plant, None);
    all_published(&plant).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let found = log(&kafka, &keys).await;
    for key in keys {
        assert_whole(&found, key, last);
    }
    // What the outbox says is where it stands.
    for (key, records) in &found {
        for (offset, record) in records.iter().rev().take(1) {
            let sql = format!("SELECT published_offset FROM control.outbox WHERE id = {}", record.outbox_id);
            assert_eq!(plant.sql(&sql).await, offset.to_string(), "{key}");
        }
    }
}

#[tokio::test]
async fn two_relays_and_a_change_of_hands_lose_nothing() {
    let mut plant = Plant::prepare(shared().await.unwrap()).await;
    plant.run().await;
    let second = plant.sibling("control-plane-2").await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(second.run(stop.clone()));
    let kafka = plant.connection.kafka().unwrap().client(ADMIN).unwrap();
    let keys = [Uid::random(), Uid::random()];
    for key in keys {
        change(&plant, key, 1..=10).await;
    }
    plant.stop().await;
    for key in keys {
        change(&plant, key, 11..=20).await;
    }
    all_published(&plant).await;
    let found = log(&kafka, &keys).await;
    for key in keys {
        assert_whole(&found, key, 20);
    }
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_old_state_behind_a_new_one_is_mended() {
    let mut plant = Plant::prepare(shared().await.unwrap()).await;
    plant.run().await;
    let kafka = plant.connection.kafka().unwrap().client(ADMIN).unwrap();
    let key = Uid::random();
    change(&plant, key, 1..=2).await;
    all_published(&plant).await;
    // As a relay would that was stopped between reading and writing.
    let stale = ControlRecord { version: 1, outbox_id: 1, ..Default::default() };
    let record = OutRecord {
        key: Some(key.to_string().into()),
        value: Some(stale.encode_to_vec().into()),
        ..Default::default()
    };
    kafka.produce_batch(CONTROL_TOPIC, 0, &[record], CALL).await.unwrap();
    eventually("the newest state is last again", || async {
        let found = log(&kafka, &[key]).await;
        let versions: Vec<i64> = found[&key.to_string()].iter().map(|(_, record)| record.version).collect();
        versions.len() >= 4 && versions.last() == Some(&2)
    })
    .await;
}

#[tokio::test]
async fn a_new_log_gets_every_state_again() {
    let stack = Stack::builder().build().await.unwrap();
    let mut plant = Plant::prepare(stack.connection()).await;
    plant.run().await;
    let kafka = stack.connection().kafka().unwrap().client(ADMIN).unwrap();
    let key = Uid::random();
    change(&plant, key, 1..=3).await;
    all_published(&plant).await;
    kafka.delete_topic(CONTROL_TOPIC, CALL).await.unwrap();
    eventually("the newest state is in the new log", || async {
        let known = kafka.metadata(&[CONTROL_TOPIC], CALL).await.unwrap();
        if known.topics[0].error.is_some() || known.topics[0].partitions.get(&0).is_none_or(|p| p.leader.is_none()) {
            return false;
        }
        log(&kafka, &[key]).await.get(&key.to_string()).is_some_and(|found| found.last().unwrap().1.version == 3)
    })
    .await;
    plant.stop().await;
    stack.stop().await;
}
