//! Consumer groups: whatever fails, no record is skipped, and none comes again after its acknowledgement was answered OK.

mod brokers;
mod clients;
mod deletion;
mod doors;
mod moves;
mod outage;
mod retry;
mod soak;
mod takeover;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::consumer::{Ledger, Place, ack_ids, group_of, place, settled_dispatcher};
use sluice_e2e::tenant::record;
use sluice_e2e::{Api, Installation, wait};
use sluice_proto::admin::v1::{Group, Namespace, Topic};
use sluice_proto::stream::v1::record::ValueKind;
use sluice_proto::stream::v1::{ProduceRecord, Record, RecordResult, SettleOutcome};
use tonic::{Code, Status};

const NAMESPACE: &str = "prod";

/// A tenant with a topic and a group.
struct World {
    namespace: Namespace,
    topic: Topic,
    group: Group,
    /// The owner's.
    key: String,
    /// Through each gateway.
    apis: Vec<Api>,
}

impl World {
    async fn new(it: &Installation, partitions: i32, shape: impl FnOnce(Group) -> Group) -> Result<Self> {
        let tenant = it.tenant("acme").await?;
        let apis = (0..it.local.public.len()).map(|index| it.api(index, &tenant.key)).collect::<Result<Vec<_>>>()?;
        let namespace = apis[0].create_namespace(NAMESPACE).await?;
        let topic = apis[0].create_topic(NAMESPACE, "orders", partitions).await?;
        let group = apis[0].create_group(NAMESPACE, "billing", shape(group_of(NAMESPACE, &["orders"]))).await?;
        Ok(Self { key: tenant.key, namespace, topic, group, apis })
    }

    /// Publishes `count` records over `keys` keys; gives their places.
    async fn publish(&self, count: usize, keys: usize) -> Result<Vec<Place>> {
        let mut places = Vec::with_capacity(count);
        let call: u64 = rand::random();
        for from in (0..count).step_by(1_000) {
            let values: Vec<String> =
                (from..count.min(from + 1_000)).map(|i| format!("value-{i}/{call:016x}")).collect();
            let records: Vec<ProduceRecord> = (from..)
                .zip(&values)
                .map(|(i, value)| record(Some(format!("key-{}", i % keys).as_bytes()), value.as_bytes()))
                .collect();
            let results = self.apis[0].produce_all(&self.topic.name, records).await?;
            for (result, value) in results.iter().zip(&values) {
                places.push(self.place_of(result, value).await?);
            }
        }
        Ok(places)
    }

    /// Where a record lies. After a retry of Kafka's it may be persisted at an offset nobody knows: then it is looked for.
    async fn place_of(&self, result: &RecordResult, value: &str) -> Result<Place> {
        let offset = match result.offset {
            Some(offset) => offset,
            None => self.find(result.partition, value).await?,
        };
        Ok((self.topic.name.clone(), result.partition, offset))
    }

    async fn find(&self, partition: i32, value: &str) -> Result<i64> {
        wait::until("the record's offset", Duration::from_secs(10), async || {
            let mut offset = 0;
            loop {
                let read = self.apis[0].fetch(&self.topic.name, partition, offset, Duration::ZERO).await?;
                let is_it = |record: &&Record| matches!(&record.value_kind, Some(ValueKind::Value(bytes)) if bytes[..] == *value.as_bytes());
                if let Some(found) = read.records.iter().find(is_it) {
                    return Ok(Some(found.offset));
                }
                if read.next_offset >= read.end_offset {
                    return Ok(None);
                }
                offset = read.next_offset;
            }
        })
        .await
    }

    /// The gateway that dispatches the group, from 0, once it stays.
    async fn dispatcher(&self, it: &Installation) -> Result<usize> {
        let name = settled_dispatcher(&self.apis[0], &self.group.name).await?;
        let gateways = (0..it.local.public.len()).map(gateway_name);
        gateways.into_iter().position(|gateway| gateway == name).with_context(|| format!("{name} is no gateway"))
    }
}

fn gateway_name(index: usize) -> String {
    format!("gateway-{}", index + 1)
}

/// What the documentation tells a client to do with a failed call: try again.
fn is_retriable(status: &Status) -> bool {
    // A connection that broke under a killed gateway is UNKNOWN or CANCELLED in tonic's words.
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled)
        || status.code() == Code::ResourceExhausted
}

/// Pulls through the gateways in turn and acknowledges what came, until told to stop.
async fn pull_and_ack(apis: Vec<Api>, group: String, ledger: Ledger, stop: Arc<AtomicBool>, batch: i32) -> Result<()> {
    for turn in 0_usize.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let api = &apis[turn % apis.len()];
        let records = match api.pull(&group, batch, Duration::from_secs(2)).await {
            Ok(answer) => answer.records,
            Err(status) => {
                ensure!(is_retriable(&status), "{status:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if records.is_empty() {
            continue;
        }
        records.iter().for_each(|record| ledger.delivered(record));
        let places: Vec<Place> = records.iter().map(place).collect();
        // Through another one than they came from.
        settle(&apis, turn + 1, &group, &ledger, ack_ids(&records), places).await?;
    }
    Ok(())
}

/// Acknowledges, trying again what could not be decided: through the next gateway, as the documentation tells.
async fn settle(
    apis: &[Api],
    first: usize,
    group: &str,
    ledger: &Ledger,
    mut ids: Vec<String>,
    mut places: Vec<Place>,
) -> Result<()> {
    for turn in first..first + 10 {
        match apis[turn % apis.len()].ack(group, ids.clone()).await {
            Ok(results) => {
                ledger.acked(&places, &results);
                let mut undecided = results.iter().map(|result| result.outcome() == SettleOutcome::Unavailable);
                let left = ids.into_iter().zip(places).filter(|_| undecided.next().unwrap_or(false));
                (ids, places) = left.unzip();
                if ids.is_empty() {
                    return Ok(());
                }
            }
            Err(status) => ensure!(is_retriable(&status), "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Waits until each of these was acknowledged with OK.
async fn all_acked(ledger: &Ledger, places: &[Place], within: Duration) -> Result<()> {
    let wanted: HashSet<Place> = places.iter().cloned().collect();
    wait::until("all acknowledged", within, async || {
        let acked = ledger.acked_places();
        let missing: Vec<&Place> = wanted.difference(&acked).take(3).collect();
        ensure!(missing.is_empty(), "{} of {} acknowledged; e.g. {missing:?} are not", acked.len(), wanted.len());
        Ok(Some(()))
    })
    .await
}

/// Pulls until so many came, through one gateway.
async fn pull_exactly(
    api: &Api,
    group: &str,
    count: usize,
    ledger: &Ledger,
    within: Duration,
) -> Result<Vec<sluice_proto::stream::v1::ReceivedRecord>> {
    let mut records = Vec::new();
    wait::until("records to come", within, async || {
        let more = i32::try_from(count - records.len())?.min(1_000);
        let answer = api.pull(group, more, Duration::from_secs(1)).await?;
        answer.records.iter().for_each(|record| ledger.delivered(record));
        let state = answer.state();
        records.extend(answer.records);
        ensure!(records.len() >= count, "{} of {count}, last {state:?}", records.len());
        Ok(Some(()))
    })
    .await?;
    Ok(records)
}

/// Pulls and acknowledges here and now until each of these was acknowledged with OK.
async fn all_acked_by_pulling(
    apis: &[Api],
    group: &str,
    ledger: &Ledger,
    places: &[Place],
    within: Duration,
) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let worker = tokio::spawn(pull_and_ack(apis.to_vec(), group.to_owned(), ledger.clone(), stop.clone(), 500));
    let outcome = all_acked(ledger, places, within).await;
    stop.store(true, Ordering::Release);
    worker.await??;
    outcome
}
