//! Much of everything at once, from a seed: refusals, delays, dead consumers, dead gateways. Every record is acknowledged or
//! put aside, none comes again after its acknowledgement, and a second reader of Kafka agrees.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_e2e::consumer::{Ledger, Place, ack_ids, group_of, place, text};
use sluice_e2e::{Api, Installation, Options, long, seed, wait};
use sluice_proto::admin::v1::RetryPolicy;
use sluice_proto::stream::v1::consume_response::Message;
use sluice_proto::stream::v1::{ReceivedRecord, SettleOutcome};

use super::{NAMESPACE, World, gateway_name, is_retriable};
use crate::kill_gateway::read_log;

const CONSUMERS: u64 = 8;
const KEYS: usize = 5_000;

/// What all consumers share.
#[derive(Clone)]
struct Shared {
    group: String,
    ledger: Ledger,
    stop: Arc<AtomicBool>,
    refused: Arc<Mutex<HashMap<Place, u32>>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_acknowledged_or_put_aside_whatever_dies() -> Result<()> {
    let seed = seed();
    let count = if long() { 100_000 } else { 20_000 };
    let it = Installation::start(Options::default()).await?;
    let world = dead_lettered(World::new(&it, 6, |group| group).await?).await?;
    let shared = Shared {
        group: world.group.name.clone(),
        ledger: Ledger::default(),
        stop: Arc::new(AtomicBool::new(false)),
        refused: Arc::default(),
    };
    let mut random = StdRng::seed_from_u64(seed);
    let mut consumers = Vec::new();
    for index in 0..CONSUMERS {
        let random = StdRng::seed_from_u64(random.random());
        let run = match index % 2 {
            0 => tokio::spawn(by_pull(shared.clone(), world.apis.clone(), random)),
            _ => tokio::spawn(by_stream(shared.clone(), world.apis.clone(), random)),
        };
        consumers.push(run);
    }
    let mut places: Vec<Place> = Vec::new();
    let chunk = count / 10;
    for step in 1..=10 {
        let more = wait::until("records to be taken", Duration::from_secs(30), async || {
            Ok(Some(world.publish(chunk, KEYS).await?))
        });
        places.extend(more.await?);
        if step % 3 == 0 {
            let victim = gateway_name(random.random_range(0..2));
            it.process(&victim)?.kill9().await;
            it.restart(&victim).await?;
        }
    }
    let raw_dead = it.physical(&world.namespace.uid, &dead_topic_uid(&world).await?)?;
    let wanted: HashSet<Place> = places.iter().cloned().collect();
    wait::until("every record done", Duration::from_secs(180), async || {
        let status = world.apis[0].group_status(&shared.group).await?;
        ensure!(status.lag == 0, "lag {}: {:?}", status.lag, shared.ledger.outcomes());
        Ok(Some(()))
    })
    .await?;
    shared.stop.store(true, Ordering::Release);
    for consumer in consumers {
        consumer.await??;
    }
    shared.ledger.check(true)?;

    // A second reader tells what was published and what was put aside.
    let raw = it.physical(&world.namespace.uid, &world.topic.uid)?;
    let log = read_log(it.kafka()?.clone(), raw).await?;
    let in_log: HashSet<Place> = log.iter().map(|raw| (world.topic.name.clone(), raw.partition, raw.offset)).collect();
    ensure!(wanted.is_subset(&in_log), "records that were persisted are not in the log");
    let dead: HashSet<Place> =
        read_log(it.kafka()?.clone(), raw_dead).await?.iter().map(origin).collect::<Result<_>>()?;
    let acked = shared.ledger.acked_places();
    let lost: Vec<&Place> = in_log.iter().filter(|place| !acked.contains(place) && !dead.contains(place)).collect();
    let (deliveries, records) = shared.ledger.counts();
    println!(
        "{} records: {} acknowledged, {} put aside, {} delivered again, {:?}",
        in_log.len(),
        acked.len(),
        dead.len(),
        deliveries - records,
        shared.ledger.outcomes()
    );
    // An acknowledgement whose answer a dying gateway swallowed may have been stored: such a record is done, too.
    let unanswered = shared.ledger.unanswered();
    let lost: Vec<_> = lost.into_iter().filter(|place| !unanswered.contains(*place)).collect();
    ensure!(lost.is_empty(), "{} neither acknowledged nor put aside, e.g. {:?}", lost.len(), lost.first());
    ensure!(!dead.is_empty(), "nothing was put aside: the poison did not work");
    it.stop().await
}

/// Where a dead letter came from.
fn origin(letter: &sluice_e2e::kafka_reader::RawRecord) -> Result<Place> {
    let header = |name: &str| -> Result<String> {
        let found = letter.headers.iter().find(|(known, _)| known == name).with_context(|| format!("no {name}"))?;
        Ok(String::from_utf8(found.1.clone().unwrap_or_default())?)
    };
    Ok((header("sluice-dlq-topic")?, header("sluice-dlq-partition")?.parse()?, header("sluice-dlq-offset")?.parse()?))
}

async fn dead_lettered(mut world: World) -> Result<World> {
    world.apis[0].create_topic(NAMESPACE, "failed", 1).await?;
    let group = sluice_proto::admin::v1::Group {
        ack_deadline: Some(Duration::from_secs(10).into()),
        retry_policy: Some(RetryPolicy {
            max_attempts: 5,
            minimum_backoff: Some(Duration::from_millis(100).into()),
            ..RetryPolicy::default()
        }),
        dead_letter_topic: format!("namespaces/{NAMESPACE}/topics/failed"),
        ..group_of(NAMESPACE, &["orders"])
    };
    world.group = world.apis[0].create_group(NAMESPACE, "soak", group).await?;
    Ok(world)
}

async fn dead_topic_uid(world: &World) -> Result<String> {
    let topic = world.apis[0].get_topic(&format!("namespaces/{NAMESPACE}/topics/failed")).await?;
    Ok(topic.uid)
}

/// Whether this record is one that always fails: every 500th value.
fn is_poison(record: &ReceivedRecord) -> bool {
    let text = text(record);
    let number = text.strip_prefix("value-").and_then(|text| text.split_once('/'));
    number.and_then(|(number, _)| number.parse::<u64>().ok()).is_some_and(|n| n % 500 == 7)
}

/// Sorts records into those to refuse and those to acknowledge; some are forgotten.
fn decide(records: Vec<ReceivedRecord>, random: &mut StdRng) -> (Vec<ReceivedRecord>, Vec<ReceivedRecord>) {
    let mut done = Vec::new();
    let mut refused = Vec::new();
    for record in records {
        match random.random_range(0..1_000) {
            _ if is_poison(&record) => refused.push(record),
            0..20 => refused.push(record),
            20..22 => {} // Forgotten: its lease will end.
            _ => done.push(record),
        }
    }
    (done, refused)
}

async fn by_pull(shared: Shared, apis: Vec<Api>, mut random: StdRng) -> Result<()> {
    while !shared.stop.load(Ordering::Acquire) {
        let api = &apis[random.random_range(0..apis.len())];
        let records = match api.pull(&shared.group, random.random_range(1..300), Duration::from_secs(1)).await {
            Ok(answer) => answer.records,
            Err(status) => {
                ensure!(is_retriable(&status), "{status:?}");
                continue;
            }
        };
        records.iter().for_each(|record| shared.ledger.delivered(record));
        // A consumer that dies here takes what it holds with it.
        if random.random_range(0..60) == 0 {
            continue;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..10))).await;
        let (done, refused) = decide(records, &mut random);
        let api = &apis[random.random_range(0..apis.len())];
        if !done.is_empty() {
            let places: Vec<Place> = done.iter().map(place).collect();
            shared.ledger.asked(&places);
            match api.ack(&shared.group, ack_ids(&done)).await {
                Ok(results) => shared.ledger.acked(&places, &results),
                Err(status) => ensure!(is_retriable(&status), "{status:?}"),
            }
        }
        if !refused.is_empty() {
            match api.nack(&shared.group, ack_ids(&refused), None, "refused").await {
                Ok(results) => count(&shared, &refused, &results.iter().map(|r| r.outcome()).collect::<Vec<_>>()),
                Err(status) => ensure!(is_retriable(&status), "{status:?}"),
            }
        }
    }
    Ok(())
}

fn count(shared: &Shared, records: &[ReceivedRecord], outcomes: &[SettleOutcome]) {
    let mut refused = shared.refused.lock();
    for (record, outcome) in records.iter().zip(outcomes) {
        if *outcome == SettleOutcome::Ok {
            *refused.entry(place(record)).or_default() += 1;
        }
    }
}

async fn by_stream(shared: Shared, apis: Vec<Api>, mut random: StdRng) -> Result<()> {
    while !shared.stop.load(Ordering::Acquire) {
        let api = &apis[random.random_range(0..apis.len())];
        let mut stream = match api.consume(&shared.group, 500).await {
            Ok(stream) => stream,
            Err(status) => {
                ensure!(is_retriable(&status), "{status:?}");
                continue;
            }
        };
        let lives_for = Duration::from_millis(random.random_range(200..6_000));
        let mut waiting: HashMap<i64, Vec<Place>> = HashMap::new();
        let live = async {
            while !shared.stop.load(Ordering::Acquire) {
                let message = match stream.next().await {
                    Ok(Some(message)) => message,
                    Ok(None) => return Ok(()),
                    Err(status) => {
                        ensure!(is_retriable(&status), "{status:?}");
                        return Ok(());
                    }
                };
                match message.message {
                    Some(Message::Records(records)) => {
                        let records = records.records;
                        records.iter().for_each(|record| shared.ledger.delivered(record));
                        let taken = i32::try_from(records.len())?;
                        let (done, refused) = decide(records, &mut random);
                        let places: Vec<Place> = done.iter().map(place).collect();
                        shared.ledger.asked(&places);
                        // The stream may end under us; then nobody knows.
                        if !done.is_empty() {
                            let Ok(sequence) = stream.ack(ack_ids(&done)).await else { return Ok(()) };
                            waiting.insert(sequence, places);
                        }
                        if !refused.is_empty() && stream.nack(ack_ids(&refused), None).await.is_err() {
                            return Ok(());
                        }
                        if stream.credit(taken).await.is_err() {
                            return Ok(());
                        }
                    }
                    Some(Message::Settled(settled)) => {
                        if let Some(places) = waiting.remove(&settled.sequence) {
                            shared.ledger.acked(&places, &settled.results);
                        }
                    }
                    Some(Message::Notice(_)) | None => {}
                }
            }
            anyhow::Ok(())
        };
        // Dropped in the middle of whatever it does.
        if let Ok(outcome) = tokio::time::timeout(lives_for, live).await {
            outcome?;
        }
    }
    Ok(())
}
