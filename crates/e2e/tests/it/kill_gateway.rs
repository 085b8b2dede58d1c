//! Eight writers while a gateway is killed: what was answered is true, and the bill is the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_devstack::KafkaConnection;
use sluice_e2e::kafka_reader::{self, RawRecord};
use sluice_e2e::tenant::record;
use sluice_e2e::{Api, Installation, Options, long, seed, wait};
use sluice_proto::billing::v1::TopicUsage;
use sluice_proto::stream::v1::{Header, Outcome, ProduceRecord, header};

const WRITERS: u64 = 8;
const BATCH: u64 = 20;

/// What a client was told about one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reported {
    Persisted { partition: i32, offset: Option<i64> },
    NotPersisted,
    Unknown,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_in_the_log_and_the_bill_is_the_log_after_five_kills() -> Result<()> {
    let seed = seed();
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    let namespace = api.create_namespace("prod").await?;
    let topic = api.create_topic("prod", "orders", 4).await?;
    let told = Arc::new(Mutex::new(HashMap::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let apis = [it.api(0, &tenant.key)?, it.api(1, &tenant.key)?];
        writers.push(tokio::spawn(write(writer, apis, topic.name.clone(), told.clone(), stop.clone())));
    }
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..if long() { 25 } else { 5 } {
        let before = told.lock().len();
        let more = random.random_range(500..2_000);
        wait::until("more records", Duration::from_secs(60), async || {
            Ok((told.lock().len() >= before + more).then_some(()))
        })
        .await?;
        let victim = if random.random_bool(0.5) { "gateway-1" } else { "gateway-2" };
        it.process(victim)?.kill9().await;
        it.restart(victim).await?;
    }
    stop.store(true, Ordering::Release);
    for writer in writers {
        writer.await??;
    }

    let log = read_log(it.kafka()?.clone(), it.physical(&namespace.uid, &topic.uid)?).await?;
    let told = told.lock().clone();
    check_answers(&log, &told)?;
    let usage = settled_usage(&api, &topic.name).await?;
    check_coverage(&log, &usage)?;
    it.stop().await
}

pub(crate) async fn write(
    writer: u64,
    apis: [Api; 2],
    topic: String,
    told: Arc<Mutex<HashMap<String, Reported>>>,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    for batch in 0_u64.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let values: Vec<String> = (0..BATCH).map(|i| format!("{writer}/{batch}/{i}")).collect();
        let records = values.iter().map(|value| one(value)).collect();
        let api = &apis[(writer + batch) as usize % 2];
        let answer = api.produce(&topic, records).await;
        let mut told = told.lock();
        match answer {
            Ok(results) => {
                for (value, result) in values.into_iter().zip(results) {
                    let what = match result.outcome() {
                        Outcome::Persisted => {
                            Reported::Persisted { partition: result.partition, offset: result.offset }
                        }
                        Outcome::NotPersisted => Reported::NotPersisted,
                        _ => Reported::Unknown,
                    };
                    told.insert(value, what);
                }
            }
            // The gateway died on us: nobody knows.
            Err(_) => told.extend(values.into_iter().map(|value| (value, Reported::Unknown))),
        }
    }
    Ok(())
}

pub(crate) fn one(value: &str) -> ProduceRecord {
    let mut record = record(Some(value.as_bytes()), value.as_bytes());
    record.headers = vec![
        Header { name: "h".into(), value: Some(header::Value::Text(value.into())) },
        Header { name: "h".into(), value: Some(header::Value::Bytes(vec![0, 255].into())) },
    ];
    record
}

pub(crate) async fn read_log(kafka: KafkaConnection, topic: String) -> Result<Vec<RawRecord>> {
    let read = move || {
        let mut log = Vec::new();
        kafka_reader::read_topic(&kafka, &topic, |raw| log.push(raw))?;
        Ok(log)
    };
    tokio::task::spawn_blocking(read).await?
}

pub(crate) fn check_answers(log: &[RawRecord], told: &HashMap<String, Reported>) -> Result<()> {
    let mut places: HashMap<String, Vec<&RawRecord>> = HashMap::new();
    for raw in log {
        let value = String::from_utf8(raw.value.clone().unwrap_or_default())?;
        ensure!(raw.key.as_deref() == Some(value.as_bytes()), "another key at {raw:?}");
        let headers = vec![("h".to_owned(), Some(value.clone().into_bytes())), ("h".to_owned(), Some(vec![0, 255]))];
        ensure!(raw.client_headers() == headers, "other headers at {raw:?}");
        places.entry(value).or_default().push(raw);
    }
    let (mut persisted, mut unknown) = (0, 0);
    for (value, what) in told {
        let found = places.remove(value).unwrap_or_default();
        match *what {
            Reported::Persisted { partition, offset } => {
                persisted += 1;
                ensure!(found.len() == 1, "{value} was persisted and is there {} times", found.len());
                ensure!(found[0].partition == partition, "{value}: in another partition");
                ensure!(offset.is_none_or(|offset| offset == found[0].offset), "{value}: at another offset");
            }
            Reported::NotPersisted => ensure!(found.is_empty(), "{value} was not persisted and is there"),
            Reported::Unknown => {
                unknown += 1;
                ensure!(found.len() <= 1, "{value} is there {} times", found.len());
            }
        }
    }
    ensure!(places.is_empty(), "records that nobody sent: {:?}", places.keys().take(5).collect::<Vec<_>>());
    println!("{persisted} persisted, {unknown} unknown, {} in the log", log.len());
    if persisted == 0 {
        bail!("nothing was persisted");
    }
    Ok(())
}

/// Usage once it has stopped growing and knows every end.
pub(crate) async fn settled_usage(api: &Api, topic: &str) -> Result<TopicUsage> {
    let mut last = None;
    wait::until("usage at rest", Duration::from_secs(60), async || {
        let usage = api.usage(topic).await?.into_iter().next().context("no usage")?;
        let same = last.as_ref() == Some(&usage) && usage.coverage.iter().all(|partition| partition.end_offset_known);
        last = Some(usage.clone());
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        Ok(same.then_some(usage))
    })
    .await
}

/// Covered bytes are the log's over the same ranges; covered and uncovered are exactly `[0, end)`.
pub(crate) fn check_coverage(log: &[RawRecord], usage: &TopicUsage) -> Result<()> {
    let mut bytes_at: BTreeMap<(i32, i64), u64> = BTreeMap::new();
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    for raw in log {
        bytes_at.insert((raw.partition, raw.offset), raw.logical_bytes());
        let end = ends.entry(raw.partition).or_default();
        *end = (*end).max(raw.offset + 1);
    }
    let (mut all_bytes, mut all_records, mut uncovered_records) = (0, 0, 0);
    for partition in &usage.coverage {
        ensure!(!partition.truncated, "more ranges than listed");
        let mut ranges: Vec<(i64, i64)> =
            partition.covered.iter().chain(&partition.uncovered).map(|range| (range.start, range.end)).collect();
        ranges.sort_unstable();
        let mut at = 0;
        for (start, end) in ranges {
            ensure!(start == at && end > start, "partition {}: a gap or overlap at {at}", partition.partition);
            at = end;
        }
        ensure!(
            at == partition.end_offset,
            "partition {}: up to {at} of {}",
            partition.partition,
            partition.end_offset
        );
        ensure!(Some(&partition.end_offset) == ends.get(&partition.partition), "another end than the log's");
        let mut bytes = 0;
        let mut records = 0;
        for range in &partition.covered {
            for (_, size) in bytes_at.range((partition.partition, range.start)..(partition.partition, range.end)) {
                bytes += size;
                records += 1;
            }
        }
        ensure!(
            bytes == partition.covered_bytes,
            "partition {}: {} billed, {bytes} in the log",
            partition.partition,
            partition.covered_bytes
        );
        ensure!(records == partition.covered_records, "partition {}: records differ", partition.partition);
        all_bytes += bytes;
        all_records += records;
        uncovered_records += partition.uncovered.iter().map(|range| range.end - range.start).sum::<i64>();
    }
    let totals = usage.totals.unwrap_or_default();
    ensure!(totals.ingress_bytes == all_bytes && totals.ingress_records == all_records, "totals differ: {totals:?}");
    println!("covered {all_records} records, {all_bytes} bytes; not yet covered {uncovered_records}");
    Ok(())
}
