//! Brokers that stand still, for less and for more time than Kafka waits for them, and come back: all of them, and some.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sluice_e2e::{Api, Http, wait};
use sluice_proto::stream::v1::Outcome;
use sluice_wire::OutRecord;

use super::{CALL, NAMESPACE, World};
use crate::kill_gateway::{self, Reported};

const PARTITIONS: i32 = 6;
/// Which brokers stand still, and for how long each time.
const STANDSTILLS: [(&[u32], &[u64]); 2] = [(&[1, 2, 3], &[7, 12]), (&[1, 3], &[12])];
/// For Kafka to serve all partitions again.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// From when another client writes: a producer that is of no use is replaced after some seconds.
const BACK_WITHIN: Duration = Duration::from_secs(15);
const PROBE: &str = "probe";

pub(super) async fn producers_go_on_after_brokers_stood_still(world: &World<'_>) -> Result<()> {
    world.replicas(3).await?;
    let topic = world.api.create_topic(NAMESPACE, "frozen", PARTITIONS).await?;
    let physical = world.it.physical(&world.namespace.uid, &topic.uid)?;
    let process = world.it.process("gateway-1")?.pid();
    let mut told = HashMap::new();
    for (brokers, times) in STANDSTILLS {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write(world.api.clone(), topic.name.clone(), stop.clone()));
        for seconds in times {
            for &broker in brokers {
                world.kafka.pause(broker).await?;
            }
            tokio::time::sleep(Duration::from_secs(*seconds)).await;
            for &broker in brokers {
                world.kafka.resume(broker)?;
            }
        }
        kafka_serves(world, &physical).await?;
        let since = Instant::now();
        let mut left: BTreeSet<i32> = (0..PARTITIONS).collect();
        wait::until("every partition to take a record", BACK_WITHIN, async || {
            told.extend(write_once(&world.api, &topic.name, &mut left).await);
            ensure!(left.is_empty(), "partitions {left:?} take nothing");
            Ok(Some(()))
        })
        .await?;
        println!(
            "{brokers:?} stood still for {times:?} s: all partitions take records {:?} after Kafka",
            since.elapsed()
        );
        stop.store(true, Ordering::Release);
        told.extend(writer.await?);
    }
    let admin = Http::new(&world.it.instance("gateway-1")?.admin, None);
    wait::until("the gateway to be ready", BACK_WITHIN, async || {
        Ok((admin.get("/readyz").await?.status == 200).then_some(()))
    })
    .await?;
    ensure!(world.it.process("gateway-1")?.pid() == process, "another process");
    let log = kill_gateway::read_log(world.it.kafka()?.clone(), physical).await?;
    let log: Vec<_> = log.into_iter().filter(|raw| raw.key.as_deref() != Some(PROBE.as_bytes())).collect();
    kill_gateway::check_answers(&log, &told)
}

/// Another client writes to every partition.
async fn kafka_serves(world: &World<'_>, physical: &str) -> Result<()> {
    let probe = OutRecord {
        key: Some(PROBE.into()),
        value: Some(PROBE.into()),
        timestamp_ms: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64,
        ..OutRecord::default()
    };
    for partition in 0..PARTITIONS {
        wait::until("Kafka to serve", SERVES_WITHIN, async || {
            world.admin.produce_batch(physical, partition, std::slice::from_ref(&probe), CALL).await?;
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

/// Writes to all partitions, whatever becomes of it, until told to stop.
async fn write(api: Api, topic: String, stop: Arc<AtomicBool>) -> HashMap<String, Reported> {
    let mut told = HashMap::new();
    while !stop.load(Ordering::Acquire) {
        told.extend(write_once(&api, &topic, &mut (0..PARTITIONS).collect()).await);
        // A gateway that refuses at once is not to be asked at the speed of the machine.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    told
}

/// Writes a record to each of these partitions; those that took it leave.
async fn write_once(api: &Api, topic: &str, left: &mut BTreeSet<i32>) -> HashMap<String, Reported> {
    let mut api = api.clone();
    api.timeout = Duration::from_secs(2);
    let values: Vec<String> = left.iter().map(|partition| format!("{partition}/{}", rand::random::<u64>())).collect();
    let records = left.iter().zip(&values).map(|(partition, value)| {
        let mut one = kill_gateway::one(value);
        one.partition = Some(*partition);
        one
    });
    let Ok(results) = api.produce(topic, records.collect()).await else {
        return values.into_iter().map(|value| (value, Reported::Unknown)).collect();
    };
    let told = results.iter().map(|result| match result.outcome() {
        Outcome::Persisted => Reported::Persisted { partition: result.partition, offset: result.offset },
        Outcome::NotPersisted => Reported::NotPersisted,
        _ => Reported::Unknown,
    });
    let told = values.into_iter().zip(told).collect();
    for result in results.iter().filter(|result| result.outcome() == Outcome::Persisted) {
        left.remove(&result.partition);
    }
    told
}
