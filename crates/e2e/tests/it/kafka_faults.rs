//! Kafka stopped, killed, restarted, and down when a gateway starts: every call is answered before its deadline with a
//! result per record, what was answered is true, and all works again within 5 s, without a new gateway.

mod writers;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_e2e::tenant::record;
use sluice_e2e::{Api, Http, Installation, Options, wait};
use sluice_proto::stream::v1::{Outcome, RecordResult};
use tokio::net::TcpStream;

use self::writers::{Phase, Shared, read, told, write_over_grpc, write_over_http};
use crate::kill_gateway::{self, Reported};

const BROKER: u32 = 1;
const PARTITIONS: i32 = 4;
const STOPPED_FOR: Duration = Duration::from_secs(20);
const DOWN_FOR: Duration = Duration::from_secs(6);
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// A gateway that starts without Kafka serves at once what it has on disk.
const READY_WITHIN: Duration = Duration::from_secs(3);

/// Writes to every partition until each has taken a record; how long that took.
async fn until_all_partitions_take(
    api: &Api,
    topic: &str,
    partitions: i32,
    shared: Option<&Shared>,
) -> Result<Duration> {
    let mut api = api.clone();
    api.timeout = Duration::from_millis(1_500);
    let started = Instant::now();
    let mut left: BTreeSet<i32> = (0..partitions).collect();
    for round in 0.. {
        let last;
        let values: Vec<String> =
            left.iter().map(|partition| format!("back/{}/{partition}/{round}", rand::random::<u32>())).collect();
        let records = left
            .iter()
            .zip(&values)
            .map(|(partition, value)| {
                let mut one = kill_gateway::one(value);
                one.partition = Some(*partition);
                one
            })
            .collect();
        match api.produce(topic, records).await {
            Ok(results) => {
                for result in results.iter().filter(|result| result.outcome() == Outcome::Persisted) {
                    left.remove(&result.partition);
                }
                last = format!("{:?}", results.iter().find(|result| result.outcome() != Outcome::Persisted));
                if let Some(shared) = shared {
                    shared.told.lock().extend(values.into_iter().zip(results.iter().map(told)));
                }
            }
            Err(status) => {
                last = format!("{status:?}");
                if let Some(shared) = shared {
                    shared.told.lock().extend(values.into_iter().map(|value| (value, Reported::Unknown)));
                }
            }
        }
        if left.is_empty() {
            break;
        }
        ensure!(started.elapsed() < BACK_WITHIN, "partitions {left:?} take nothing after {BACK_WITHIN:?}: {last}");
    }
    Ok(started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_answered_in_time_and_truly_while_kafka_stands_still_dies_and_comes_back() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    let namespace = api.create_namespace("prod").await?;
    let topic = api.create_topic("prod", "orders", PARTITIONS).await?;
    let kafka = it.stack.kafka()?;
    let pids = [it.process("gateway-1")?.pid(), it.process("gateway-2")?.pid()];
    let shared = Arc::new(Shared::default());
    let mut tasks = Vec::new();
    for writer in 0..6_usize {
        // Short and long deadlines, on both gateways.
        let deadline = Duration::from_millis([700, 2_000, 6_000][writer % 3]);
        let (name, key, gateway) = (format!("w{writer}"), &tenant.key, writer % 2);
        let task = write_over_grpc(shared.clone(), name, it.api(gateway, key)?, topic.name.clone(), deadline);
        tasks.push(tokio::spawn(task));
    }
    for gateway in 0..2 {
        let http = it.http(gateway, Some(&tenant.key));
        let name = format!("h{gateway}");
        tasks.push(tokio::spawn(write_over_http(
            shared.clone(),
            name,
            http,
            topic.name.clone(),
            Duration::from_secs(3),
        )));
        tasks.push(tokio::spawn(read(shared.clone(), it.api(gateway, &tenant.key)?, topic.name.clone())));
    }
    let some = |word| {
        let shared = shared.clone();
        async move {
            wait::until("some records", Duration::from_secs(20), async || {
                Ok((shared.seen(Phase::Up, word) > 2_000).then_some(()))
            })
            .await
        }
    };
    some("persisted").await?;

    kafka.pause(BROKER).await?;
    shared.set(Phase::Stopped);
    tokio::time::sleep(STOPPED_FOR).await;
    kafka.resume(BROKER)?;
    shared.set(Phase::Up);
    for gateway in 0..2 {
        let api = it.api(gateway, &tenant.key)?;
        let took = until_all_partitions_take(&api, &topic.name, PARTITIONS, Some(&shared)).await?;
        println!("gateway {gateway}: all partitions take records {took:?} after SIGCONT");
    }
    shared.seen.lock().remove(&(Phase::Up, "persisted"));
    some("persisted").await?;

    kafka.kill9(BROKER).await?;
    // A call that begins from here on finds nobody to send to.
    tokio::time::sleep(Duration::from_secs(1)).await;
    shared.set(Phase::Down);
    tokio::time::sleep(DOWN_FOR).await;
    shared.set(Phase::Up);
    kafka.start_broker(BROKER).await?;
    for gateway in 0..2 {
        let api = it.api(gateway, &tenant.key)?;
        let took = until_all_partitions_take(&api, &topic.name, PARTITIONS, Some(&shared)).await?;
        println!("gateway {gateway}: all partitions take records {took:?} after the restart");
    }
    shared.seen.lock().remove(&(Phase::Up, "persisted"));
    some("persisted").await?;
    shared.stop.store(true, Ordering::Release);
    for task in tasks {
        task.await?;
    }

    let mut seen: Vec<_> = shared.seen.lock().clone().into_iter().collect();
    seen.sort();
    println!("{seen:?}");
    let faults = shared.faults.lock().clone();
    ensure!(faults.is_empty(), "{faults:#?}");
    ensure!(shared.seen(Phase::Stopped, "persisted") == 0, "persisted by a Kafka that stands still?");
    ensure!(shared.seen(Phase::Stopped, "not persisted") > 0, "nothing was held back from a Kafka that stands still");
    let down = (shared.seen(Phase::Down, "not persisted"), shared.seen(Phase::Down, "possibly persisted"));
    ensure!(down.0 > 0 && down.1 == 0, "never sent, yet not all is NOT_PERSISTED: {down:?}");
    ensure!(pids == [it.process("gateway-1")?.pid(), it.process("gateway-2")?.pid()], "another process");
    for name in ["gateway-1", "gateway-2"] {
        ensure!(it.process(name)?.exit_status().is_none(), "{name} ended");
    }
    let log = kill_gateway::read_log(it.kafka()?.clone(), it.physical(&namespace.uid, &topic.uid)?).await?;
    let told = shared.told.lock().clone();
    kill_gateway::check_answers(&log, &told)?;
    it.stop().await
}

/// Calls with a short deadline from the moment the second gateway listens until it says that it is ready: each is answered in
/// time, with a result per record.
async fn is_told_per_record_from_the_start(it: &Installation, key: &str, topic: &str) -> Result<()> {
    let admin = Http::new(&it.instance("gateway-2")?.admin, None);
    let mut api = it.api(1, key)?;
    api.timeout = Duration::from_secs(1);
    let started = Instant::now();
    for calls in 1.. {
        let began = Instant::now();
        let records = vec![record(None, b"while starting"), record(Some(b"k"), b"while starting")];
        let answer = api.produce(topic, records).await;
        ensure!(began.elapsed() < api.timeout, "{:?}: {answer:?}", began.elapsed());
        let results = answer.with_context(|| format!("call {calls}, {:?} after the start", started.elapsed()))?;
        let told = |result: &RecordResult| result.outcome() == Outcome::NotPersisted && result.retriable;
        ensure!(results.len() == 2 && results.iter().all(told), "{results:?}");
        if admin.get("/readyz").await?.status == 200 {
            println!("ready within {:?} without Kafka; {calls} calls meanwhile", started.elapsed());
            break;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_without_kafka_answers_in_time_and_serves_when_kafka_comes() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    let namespace = api.create_namespace("prod").await?;
    let topic = api.create_topic("prod", "orders", PARTITIONS).await?;
    // It has served, so it knows its tenants.
    let second = it.api(1, &tenant.key)?;
    second.produce_all(&topic.name, vec![record(None, b"before")]).await?;
    let stopped = it.process("gateway-2")?.stop(Duration::from_secs(35)).await;
    ensure!(stopped.success(), "{stopped}");
    let kafka = it.stack.kafka()?;
    kafka.kill9(BROKER).await?;
    let process = it.spawn("gateway-2")?;
    wait::until("the gateway to listen", Duration::from_secs(15), async || {
        Ok(TcpStream::connect(it.gateway(1)).await.is_ok().then_some(()))
    })
    .await?;
    let told = is_told_per_record_from_the_start(&it, &tenant.key, &topic.name);
    tokio::time::timeout(READY_WITHIN, told).await.context("not ready without Kafka")??;
    let shared = Arc::new(Shared::default());
    shared.set(Phase::Down);
    let mut tasks = Vec::new();
    for (writer, deadline) in [700, 3_000].into_iter().map(Duration::from_millis).enumerate() {
        let task = write_over_grpc(
            shared.clone(),
            format!("w{writer}"),
            it.api(1, &tenant.key)?,
            topic.name.clone(),
            deadline,
        );
        tasks.push(tokio::spawn(task));
    }
    let http = it.http(1, Some(&tenant.key));
    tasks.push(tokio::spawn(write_over_http(
        shared.clone(),
        "h".into(),
        http,
        topic.name.clone(),
        Duration::from_secs(2),
    )));
    tasks.push(tokio::spawn(read(shared.clone(), it.api(1, &tenant.key)?, topic.name.clone())));
    tokio::time::sleep(DOWN_FOR).await;
    shared.set(Phase::Up);
    kafka.start_broker(BROKER).await?;
    let took = until_all_partitions_take(&it.api(1, &tenant.key)?, &topic.name, PARTITIONS, Some(&shared)).await?;
    println!("all partitions take records {took:?} after the start");
    shared.stop.store(true, Ordering::Release);
    for task in tasks {
        task.await?;
    }
    println!("{:?}", shared.seen.lock());
    let faults = shared.faults.lock().clone();
    ensure!(faults.is_empty(), "{faults:#?}");
    ensure!(shared.seen(Phase::Down, "not persisted") > 0, "no call was answered");
    ensure!(shared.seen(Phase::Down, "possibly persisted") == 0, "never sent, yet not all is NOT_PERSISTED");
    ensure!(process.exit_status().is_none(), "the gateway ended");
    it.ready("gateway-2").await.context("the gateway says it is ready")?;
    let log = kill_gateway::read_log(it.kafka()?.clone(), it.physical(&namespace.uid, &topic.uid)?).await?;
    let log: Vec<_> = log.into_iter().filter(|raw| raw.value.as_deref() != Some(b"before")).collect();
    let told = shared.told.lock().clone();
    kill_gateway::check_answers(&log, &told)?;
    it.stop().await
}
