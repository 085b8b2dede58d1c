//! Many groups, each with one idle consumer on an open stream, all on one gateway: what they cost, and how fast one record
//! reaches one of them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream;
use indicatif::ProgressBar;
use sluice_e2e::consumer::{ConsumeStream, group_of};
use sluice_e2e::tenant::record;
use sluice_e2e::{Api, Installation};

use super::latency::arrival;
use super::{NAMESPACE, api, percentiles};
use crate::measure::usage::Process;

/// Streams of one connection.
const STREAMS: usize = 100;
/// Topics that the groups share.
const TOPICS: usize = 50;
/// Groups with a topic of their own, for the latency of one record.
const ALONE: usize = 10;
const PROBES: usize = 300;
const AT_REST: Duration = Duration::from_secs(30);

/// Runs it; the lines of the report.
pub(super) async fn run(it: &Installation, groups: usize) -> Result<String> {
    let first = api(it, 0)?;
    let gateway = Process::of(it.process("gateway-1")?.pid());
    eprintln!("{groups} groups");
    for topic in 0..TOPICS + ALONE {
        let topic = first.create_topic(NAMESPACE, &format!("idle{topic}"), 1).await?;
        first.produce_all(&topic.name, vec![record(None, b"first")]).await?;
    }
    let apis: Vec<Api> = (0..groups.div_ceil(STREAMS)).map(|_| api(it, 0)).collect::<Result<_>>()?;
    let bar = ProgressBar::new(groups as u64);
    let made: Vec<Result<String>> = stream::iter(0..groups)
        .map(|group| {
            let api = &apis[group / STREAMS];
            let bar = &bar;
            async move {
                let topic = if group < ALONE { TOPICS + group } else { group % TOPICS };
                let shape = group_of(NAMESPACE, &[&format!("idle{topic}")]);
                let made = api.create_group(NAMESPACE, &format!("idle{group}"), shape).await?;
                bar.inc(1);
                anyhow::Ok(made.name)
            }
        })
        .buffered(16)
        .collect()
        .await;
    bar.finish_and_clear();
    let names: Vec<String> = made.into_iter().collect::<Result<_>>()?;
    let before = (gateway.rss_bytes()?, gateway.threads()?);

    let started = Instant::now();
    let joined: Vec<Result<ConsumeStream>> = stream::iter(names.iter().enumerate())
        .map(|(group, name)| {
            let api = &apis[group / STREAMS];
            async move {
                let mut stream = api.consume(name, 100).await?;
                arrival(&mut stream).await?;
                anyhow::Ok(stream)
            }
        })
        .buffered(groups)
        .collect()
        .await;
    let mut streams: Vec<ConsumeStream> = joined.into_iter().collect::<Result<_>>()?;
    let joined = started.elapsed();

    // Acknowledgements of the first records settle.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let cpu = gateway.cpu_seconds()?;
    tokio::time::sleep(AT_REST).await;
    let cpu_per_minute = (gateway.cpu_seconds()? - cpu) * 60.0 / AT_REST.as_secs_f64();
    let after = (gateway.rss_bytes()?, gateway.threads()?);

    let mut took = Vec::with_capacity(PROBES);
    for probe in 0..PROBES {
        let group = probe % ALONE.min(groups);
        let topic = format!("namespaces/{NAMESPACE}/topics/idle{}", TOPICS + group);
        let began = Instant::now();
        let both =
            async { tokio::join!(first.produce_all(&topic, vec![record(None, b"one")]), arrival(&mut streams[group])) };
        let (sent, came) = tokio::time::timeout(Duration::from_secs(20), both).await.context("no record arrived")?;
        came?;
        sent?;
        took.push(began.elapsed().as_nanos() as u64);
    }
    let (p50, p99) = percentiles(took);
    let mut text = format!(
        "\n| {groups} groups with one idle gRPC consumer each, on one gateway | |\n|---|---|\n| from the first call until every one had its first record | {:.1} s |\n",
        joined.as_secs_f64()
    );
    let mib = |bytes: u64| bytes >> 20;
    let _ = writeln!(text, "| threads | {} (before: {}) |", after.1, before.1);
    let _ = writeln!(text, "| resident memory | {} MiB (before: {} MiB) |", mib(after.0), mib(before.0));
    let _ = writeln!(text, "| CPU at rest | {cpu_per_minute:.1} s a minute |");
    let _ = writeln!(text, "| one record to one of them, published by gRPC | p50 {p50:.1} ms, p99 {p99:.1} ms |");
    Ok(text)
}
