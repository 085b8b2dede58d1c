//! A group reads a whole topic and acknowledges every record.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_e2e::consumer::{ack_ids, group_of};
use sluice_e2e::{Api, Installation};
use sluice_proto::admin::v1::Topic;
use sluice_proto::stream::v1::SettleOutcome;
use sluice_proto::stream::v1::consume_response::Message;

use super::{NAMESPACE, Run};
use crate::measure::usage::Process;

const CREDIT: i32 = 10_000;
const PULLERS: usize = 4;

fn gateway(it: &Installation) -> Result<Process> {
    Ok(Process::of(it.process("gateway-1")?.pid()))
}

async fn group(api: &Api, id: &str, topic: &Topic) -> Result<String> {
    let topic = topic.name.rsplit_once('/').map_or("", |(_, id)| id);
    Ok(api.create_group(NAMESPACE, id, group_of(NAMESPACE, &[topic])).await?.name)
}

/// One stream.
pub(super) async fn consume(
    it: &Installation,
    api: &Api,
    id: &str,
    topic: &Topic,
    records: usize,
    bytes: u64,
) -> Result<Run> {
    let group = group(api, id, topic).await?;
    let gateway = gateway(it)?;
    let (cpu, started) = (gateway.cpu_seconds()?, Instant::now());
    let mut stream = api.consume(&group, CREDIT).await?;
    let mut acked = 0;
    let mut open = HashSet::new();
    while acked < records {
        let message = tokio::time::timeout(Duration::from_secs(60), stream.next()).await.context("silent for 60 s")?;
        match message?.context("the stream ended")?.message {
            Some(Message::Records(taken)) => {
                open.insert(stream.ack(ack_ids(&taken.records)).await?);
                stream.credit(i32::try_from(taken.records.len())?).await?;
            }
            Some(Message::Settled(settled)) => {
                open.remove(&settled.sequence);
                let bad = settled.results.iter().find(|result| result.outcome() != SettleOutcome::Ok);
                ensure!(bad.is_none(), "{bad:?}");
                acked += settled.results.len();
            }
            Some(Message::Notice(_)) | None => {}
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Run { records: acked as u64, bytes, seconds, cpu_seconds: gateway.cpu_seconds()? - cpu })
}

/// Four callers, each pulling and acknowledging in turn.
pub(super) async fn pull(
    it: &Installation,
    api: &Api,
    id: &str,
    topic: &Topic,
    records: usize,
    bytes: u64,
) -> Result<Run> {
    let group = group(api, id, topic).await?;
    let gateway = gateway(it)?;
    let (cpu, started) = (gateway.cpu_seconds()?, Instant::now());
    let acked = Arc::new(AtomicU64::new(0));
    let mut callers = Vec::new();
    for _ in 0..PULLERS {
        let (api, group, acked) = (api.clone(), group.clone(), Arc::clone(&acked));
        callers.push(tokio::spawn(async move {
            while (acked.load(Ordering::Relaxed) as usize) < records {
                let taken = api.pull(&group, 1_000, Duration::from_millis(500)).await?.records;
                if taken.is_empty() {
                    continue;
                }
                let results = api.ack(&group, ack_ids(&taken)).await?;
                let bad = results.iter().find(|result| result.outcome() != SettleOutcome::Ok);
                ensure!(bad.is_none(), "{bad:?}");
                acked.fetch_add(results.len() as u64, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    for caller in callers {
        caller.await??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let records = acked.load(Ordering::Relaxed);
    Ok(Run { records, bytes, seconds, cpu_seconds: gateway.cpu_seconds()? - cpu })
}
