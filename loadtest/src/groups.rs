//! `groups`: consumers of groups beside a bare librdkafka consumer, on the same broker, in the same minutes.
//!
//! Throughput and CPU of `Consume` and `Pull`, time from publishing to delivery, many idle groups on one gateway, and the time
//! a survivor needs after a kill. Ratios in one run, medians of repetitions; the report names the machine.

mod bare;
mod idle;
mod latency;
mod takeover;
mod throughput;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};
use sluice_devstack::Tuning;
use sluice_e2e::tenant::record;
use sluice_e2e::{Api, Installation, Options};

use crate::measure::lift_limits;
use crate::measure::report::{machine, median};
use crate::measure::values;

pub(crate) const NAMESPACE: &str = "load";
const PARTITIONS: i32 = 6;

/// Options of the measurement.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Records of a throughput run
    #[arg(long, default_value_t = 200_000)]
    records: usize,
    /// Repetitions; the median counts
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Records of a latency run
    #[arg(long, default_value_t = 500)]
    calls: usize,
    /// Idle groups, one consumer each
    #[arg(long, default_value_t = 1_000)]
    groups: usize,
    /// Dispatchers to kill
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Where the report goes
    #[arg(long, default_value = "loadtest/results/groups.md")]
    report: PathBuf,
    /// Only these parts; no report is written then
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Consume and Pull beside a bare consumer
    Throughput,
    /// From publishing to delivery
    Latency,
    /// Many idle groups
    Idle,
    /// After a kill
    Takeover,
}

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
}

impl Run {
    fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    fn cpu_per_gb(&self) -> f64 {
        self.cpu_seconds * 1e9 / self.bytes as f64
    }
}

/// Runs everything and writes the report.
pub(crate) async fn run(args: Args) -> Result<bool> {
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    let mut text = format!(
        "# Consumer groups\n\n{}\n\nBroker, gateways, PostgreSQL and the load generator share the machine. One broker, SASL/SCRAM \
         over TLS towards Kafka, no TLS on the public listener. Medians of {} repetitions.\n",
        machine(),
        args.repetitions
    );
    if wants(Part::Throughput) || wants(Part::Latency) {
        let it = start(1).await?;
        if wants(Part::Throughput) {
            throughputs(&it, &args, &mut text).await?;
        }
        if wants(Part::Latency) {
            latencies(&it, &args, &mut text).await?;
        }
        it.stop().await?;
    }
    if wants(Part::Idle) {
        let it = start(1).await?;
        text.push_str(&idle::run(&it, args.groups).await?);
        it.stop().await?;
    }
    if wants(Part::Takeover) {
        let it = start(2).await?;
        text.push_str(&takeover::run(&it, args.kills).await?);
        it.stop().await?;
    }
    println!("{text}");
    if args.only.is_empty() {
        if let Some(folder) = args.report.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&args.report, text)?;
    }
    Ok(true)
}

async fn start(gateways: usize) -> Result<Installation> {
    let options =
        Options { gateways, binaries: Some(crate::binaries()), tuning: Tuning::Durable, ..Options::default() };
    let it = Installation::start(options).await?;
    let tenant = it.tenant("measure").await?;
    lift_limits(&it).await?;
    it.api(0, &tenant.key)?.create_namespace(NAMESPACE).await?;
    // The later parts sign in again with a key of their own.
    std::fs::write(it.local.dir.join("measure.key"), tenant.key)?;
    Ok(it)
}

/// Calls of the measuring tenant.
pub(crate) fn api(it: &Installation, gateway: usize) -> Result<Api> {
    it.api(gateway, std::fs::read_to_string(it.local.dir.join("measure.key"))?.trim())
}

/// Publishes records of 1 KiB without keys, evenly over the partitions.
pub(crate) async fn fill(api: &Api, topic: &str, count: usize) -> Result<u64> {
    let values = values();
    let mut bytes = 0;
    for from in (0..count).step_by(1_000) {
        let records = (from..count.min(from + 1_000)).map(|i| {
            let mut one = record(None, &values[i % values.len()]);
            one.partition = Some(i as i32 % PARTITIONS);
            bytes += values[i % values.len()].len() as u64;
            one
        });
        api.produce_all(topic, records.collect()).await?;
    }
    Ok(bytes)
}

async fn throughputs(it: &Installation, args: &Args, text: &mut String) -> Result<()> {
    let api = api(it, 0)?;
    let mut rows: [Vec<Run>; 3] = Default::default();
    // The first one warms up: Kafka's code is compiled on the way.
    for repetition in 0..=args.repetitions {
        eprintln!("throughput, repetition {repetition} of {}", args.repetitions);
        let topic = api.create_topic(NAMESPACE, &format!("read{repetition}"), PARTITIONS).await?;
        let bytes = fill(&api, &topic.name, args.records).await?;
        let namespace = sluice_e2e::tenant::namespace_uid(&api, NAMESPACE).await?;
        let physical = it.physical(&namespace, &topic.uid)?;
        let runs = [
            bare::throughput(it.kafka()?, &physical, args.records, bytes).await?,
            throughput::consume(it, &api, &format!("c{repetition}"), &topic, args.records, bytes).await?,
            throughput::pull(it, &api, &format!("p{repetition}"), &topic, args.records, bytes).await?,
        ];
        if repetition > 0 {
            rows.iter_mut().zip(runs).for_each(|(row, run)| row.push(run));
        }
    }
    text.push_str(
        "\n| Consuming 1 KiB records | records/s | throughput / bare | CPU s a GB | CPU / bare |\n|---|---|---|---|---|\n",
    );
    let names = [
        "bare librdkafka consumer",
        "gRPC Consume, batches of up to 500, every record acknowledged",
        "gRPC Pull, 1,000 a call, 4 callers, every record acknowledged",
    ];
    for (name, runs) in names.iter().zip(&rows) {
        let of = |pick: &dyn Fn(&Run, &Run) -> f64| {
            median(runs.iter().zip(&rows[0]).map(|(run, bare)| pick(run, bare)).collect()).unwrap_or_default()
        };
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.2} | {:.2} | {:.2} |",
            of(&|run, _| run.rate()),
            of(&|run, bare| run.rate() / bare.rate()),
            of(&|run, _| run.cpu_per_gb()),
            of(&|run, bare| run.cpu_per_gb() / bare.cpu_per_gb()),
        );
    }
    Ok(())
}

async fn latencies(it: &Installation, args: &Args, text: &mut String) -> Result<()> {
    let api = api(it, 0)?;
    let mut rows: [Vec<(f64, f64)>; 2] = Default::default();
    for repetition in 0..args.repetitions {
        eprintln!("latency, repetition {} of {}", repetition + 1, args.repetitions);
        let topic = api.create_topic(NAMESPACE, &format!("late{repetition}"), 1).await?;
        let namespace = sluice_e2e::tenant::namespace_uid(&api, NAMESPACE).await?;
        let physical = it.physical(&namespace, &topic.uid)?;
        rows[0].push(percentiles(bare::latency(it.kafka()?, &physical, args.calls).await?));
        rows[1].push(percentiles(latency::run(&api, &format!("l{repetition}"), &topic, args.calls).await?));
    }
    text.push_str("\n| From publishing to delivery, one record at a time | p50 ms | p99 ms |\n|---|---|---|\n");
    for (name, runs) in ["bare librdkafka, linger 0", "gRPC Produce to gRPC Consume"].iter().zip(&rows) {
        let p50 = median(runs.iter().map(|run| run.0).collect()).unwrap_or_default();
        let p99 = median(runs.iter().map(|run| run.1).collect()).unwrap_or_default();
        let _ = writeln!(text, "| {name} | {p50:.2} | {p99:.2} |");
    }
    Ok(())
}

/// The 50th and the 99th of these nanoseconds, in milliseconds.
pub(crate) fn percentiles(mut nanos: Vec<u64>) -> (f64, f64) {
    nanos.sort_unstable();
    let at = |share: f64| nanos.get(((nanos.len() as f64 - 1.0) * share) as usize).map_or(0.0, |n| *n as f64 / 1e6);
    (at(0.5), at(0.99))
}
