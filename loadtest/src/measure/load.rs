//! The load on the gateway: closed loops of a few callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use base64::Engine as _;
use bytes::Bytes;
use sluice_e2e::{Api, Http};
use sluice_proto::stream::v1::{ProduceRecord, produce_record};
use tokio::task::JoinSet;

use super::usage::Process;
use super::{PARTITIONS, values};

/// One throughput run. CPU is that of the process that speaks to Kafka: the gateway, or the bare client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Throughput {
    pub(super) records: u64,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
}

/// Batches over gRPC.
pub(super) async fn grpc(
    api: &Api,
    gateway: &Process,
    topic: &str,
    records: usize,
    batch: usize,
    callers: usize,
) -> Result<Throughput> {
    let values = Arc::new(values());
    let (api, topic) = (api.clone(), topic.to_owned());
    closed_loop(gateway, records, batch, callers, move |call| {
        let (api, topic, values) = (api.clone(), topic.clone(), values.clone());
        async move {
            let records = (0..batch).map(|i| one(&values, call * batch + i)).collect();
            api.produce_all(&topic, records).await?;
            Ok(())
        }
    })
    .await
}

/// Bodies made beforehand, so that making them is not measured.
const BODIES: usize = 64;

/// Batches over HTTP as JSON with base64 values.
pub(super) async fn http_batches(
    http: &Http,
    gateway: &Process,
    topic: &str,
    records: usize,
    batch: usize,
    callers: usize,
) -> Result<Throughput> {
    // The same values in the same order as over gRPC: one body again and again would compress away on its way to Kafka.
    let values = values();
    let body = |call: usize| {
        let parts = (call * batch..(call + 1) * batch)
            .map(|i| json(&values[i % values.len()], i as i32 % PARTITIONS))
            .collect::<Vec<_>>();
        Bytes::from(format!(r#"{{"records":[{}]}}"#, parts.join(",")))
    };
    let bodies: Arc<[Bytes]> = (0..BODIES).map(body).collect();
    let path = format!("/v1/{topic}/records");
    let http = http.clone();
    closed_loop(gateway, records, batch, callers, move |call| {
        post(http.clone(), path.clone(), "application/json", bodies[call % BODIES].clone())
    })
    .await
}

/// One record a call, as a raw body.
pub(super) async fn http_singles(
    http: &Http,
    gateway: &Process,
    topic: &str,
    records: usize,
    callers: usize,
) -> Result<Throughput> {
    let values = values();
    let (http, topic) = (http.clone(), topic.to_owned());
    closed_loop(gateway, records, 1, callers, move |call| {
        let path = format!("/v1/{topic}/records?partition={}", call as i32 % PARTITIONS);
        post(http.clone(), path, "application/octet-stream", values[call % values.len()].clone())
    })
    .await
}

/// Nanoseconds of each Produce of one record, one after the other.
pub(super) async fn latency(api: &Api, topic: &str, calls: usize) -> Result<Vec<u64>> {
    let values = values();
    let mut took = Vec::with_capacity(calls);
    for call in 0..calls {
        let started = Instant::now();
        api.produce_all(topic, vec![one(&values, call)]).await?;
        took.push(started.elapsed().as_nanos() as u64);
    }
    Ok(took)
}

fn one(values: &[Bytes], i: usize) -> ProduceRecord {
    ProduceRecord {
        value_kind: Some(produce_record::ValueKind::Value(values[i % values.len()].clone())),
        partition: Some(i as i32 % PARTITIONS),
        ..Default::default()
    }
}

fn json(value: &[u8], partition: i32) -> String {
    let value = base64::engine::general_purpose::STANDARD.encode(value);
    format!(r#"{{"value":"{value}","partition":{partition}}}"#)
}

async fn post(http: Http, path: String, content_type: &'static str, body: Bytes) -> Result<()> {
    let request = http.request(reqwest::Method::POST, &path).header("content-type", content_type).body(body);
    let answer = http.send(request).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.message());
    if answer.body.windows(13).any(|part| part == b"NOT_PERSISTED") {
        bail!("a record was not persisted");
    }
    Ok(())
}

async fn closed_loop<F>(
    gateway: &Process,
    records: usize,
    batch: usize,
    callers: usize,
    call: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result<Throughput>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let calls = records.div_ceil(batch);
    let next = Arc::new(AtomicUsize::new(0));
    let (cpu, started) = (gateway.cpu_seconds()?, Instant::now());
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..callers {
        let (next, call) = (next.clone(), call.clone());
        tasks.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= calls {
                    return Ok(());
                }
                call(i).await?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(Throughput {
        records: (calls * batch) as u64,
        seconds: started.elapsed().as_secs_f64(),
        cpu_seconds: gateway.cpu_seconds()? - cpu,
    })
}
