//! `measure`: the gateway beside a bare librdkafka producer, on the same broker, in the same minutes.
//!
//! Figures are ratios in one run, because the machine is shared and small: broker, gateway and load generator have the same
//! cores. Each row is repeated and the median is kept; the report names the machine.

mod bare;
mod load;
pub(crate) mod report;
pub(crate) mod usage;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use clap::{Args as ClapArgs, ValueEnum};
use sluice_devstack::Tuning;
use sluice_e2e::{Api, Installation, Options};
use sluice_proto::admin::v1::TenantLimits;
use sluice_proto::operator::v1::{Tenant, UpdateTenantRequest};
use sluice_proto::wkt::FieldMask;
use sluiced::role::Role;

use report::{Latency, Report, Row};
use usage::Process;

/// Bytes of a record's value.
const VALUE_BYTES: usize = 1024;
const PARTITIONS: i32 = 6;
/// Different values: more than a compressor's window holds.
const VALUES: usize = 256;

/// Values: text that compresses to about half, and different enough that one batch does not compress away.
pub(crate) fn values() -> Vec<Bytes> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut digit = || {
        // xorshift64 (Marsaglia): the same bytes in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b"0123456789abcdef"[(state >> 60) as usize]
    };
    (0..VALUES).map(|_| (0..VALUE_BYTES).map(|_| digit()).collect::<Vec<u8>>().into()).collect()
}

/// Options of the measurement.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Records of a throughput run
    #[arg(long, default_value_t = 200_000)]
    records: usize,
    /// Repetitions; the median counts
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Calls of a latency run, and topics of the barrier's
    #[arg(long, default_value_t = 500)]
    calls: usize,
    /// Where the report goes
    #[arg(long, default_value = "loadtest/results/latest.md")]
    report: PathBuf,
    /// Only these parts, beside the bare client's throughput; no report is written then
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Lines for the gateways' configuration, to see what a setting does; no report is written then
    #[arg(long, default_value = "", hide_default_value = true)]
    gateway_config: String,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Batches over gRPC
    Grpc,
    /// Batches as JSON
    Http,
    /// One record a call
    Single,
    /// One call at a time
    Latency,
    /// CreateTopic
    Topics,
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Runs everything and writes the report.
pub(crate) async fn run(args: Args) -> Result<bool> {
    let mut options =
        Options { gateways: 2, binaries: Some(crate::binaries()), tuning: Tuning::Durable, ..Options::default() };
    if !args.gateway_config.is_empty() {
        options.extra.push((Role::Gateway, args.gateway_config.clone()));
    }
    let it = Installation::start(options).await?;
    let pid = it.process("gateway-1")?.pid();
    eprintln!("the gateway is process {pid}");
    let gateway = Process::of(pid);
    let idle_rss = gateway.rss_bytes()?;
    let tenant = it.tenant("measure").await?;
    lift_limits(&it).await?;
    let api = it.api(0, &tenant.key)?;
    let http = it.http(0, Some(&tenant.key));
    let namespace = api.create_namespace("load").await?;

    // Kafka's code is compiled on the way.
    eprintln!("warming up");
    let warm = api.create_topic("load", "warm", PARTITIONS).await?;
    bare::throughput(it.kafka()?, &it.physical(&namespace.uid, &warm.uid)?, args.records).await?;
    load::grpc(&api, &gateway, &warm.name, args.records, 100, 8).await?;

    let mut report = Report::new(&args, idle_rss);
    for repetition in 0..args.repetitions {
        eprintln!("repetition {} of {}", repetition + 1, args.repetitions);
        let bare_topic = api.create_topic("load", &format!("bare{repetition}"), PARTITIONS).await?;
        let bare_name = it.physical(&namespace.uid, &bare_topic.uid)?;
        let topic = api.create_topic("load", &format!("gateway{repetition}"), PARTITIONS).await?.name;
        let bare = bare::throughput(it.kafka()?, &bare_name, args.records).await?;
        report.add(Row::bare("bare librdkafka, batches by itself", &bare));
        let n = args.records;
        if args.wants(Part::Grpc) {
            // Eight callers wait for each other's round trips; more keep the broker as busy as the bare client does.
            let run = load::grpc(&api, &gateway, &topic, n, 100, 8).await?;
            report.add(Row::beside("gRPC, 100 a call, 8 callers", &run, &bare));
            let run = load::grpc(&api, &gateway, &topic, n, 100, 24).await?;
            report.add(Row::beside("gRPC, 100 a call, 24 callers", &run, &bare));
        }
        if args.wants(Part::Http) {
            let run = load::http_batches(&http, &gateway, &topic, n / 4, 100, 8).await?;
            report.add(Row::beside("HTTP JSON, 100 a call, 8 callers", &run, &bare));
        }
        if args.wants(Part::Single) {
            let run = load::http_singles(&http, &gateway, &topic, n / 40, 16).await?;
            report.add(Row::beside("HTTP, 1 a call, 16 callers", &run, &bare));
        }
        report.loaded_rss(gateway.rss_bytes()?, gateway.peak_rss_bytes()?);
        if args.wants(Part::Latency) {
            let took = bare::latency(it.kafka()?, &bare_name, args.calls).await?;
            report.latency(Latency::new("bare librdkafka, linger 0, one at a time", took));
            let took = load::latency(&api, &topic, args.calls).await?;
            report.latency(Latency::new("gRPC Produce of one record, one at a time", took));
        }
        if args.wants(Part::Topics) {
            let took = barrier(&api, repetition, args.calls / 5).await?;
            report.latency(Latency::new("CreateTopic with two gateways", took));
        }
    }
    let text = report.text();
    println!("{text}");
    if args.only.is_empty() && args.gateway_config.is_empty() {
        if let Some(folder) = args.report.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&args.report, text)?;
    }
    it.stop().await?;
    Ok(true)
}

/// Nanoseconds of each CreateTopic.
async fn barrier(api: &Api, repetition: usize, count: usize) -> Result<Vec<u64>> {
    let mut took = Vec::with_capacity(count);
    for i in 0..count {
        let started = Instant::now();
        let topic = api.create_topic("load", &format!("barrier{repetition}-{i}"), 1).await?;
        took.push(started.elapsed().as_nanos() as u64);
        api.delete_topic(&topic.name).await?;
    }
    Ok(took)
}

/// The limits are not what is measured here.
pub(crate) async fn lift_limits(it: &Installation) -> Result<()> {
    let (mut operator, token) = it.operator()?;
    let limits = TenantLimits {
        requests_per_second: 1_000_000,
        ingress_bytes_per_second: 8 << 30,
        egress_bytes_per_second: 8 << 30,
        bytes_in_flight: 256 << 20,
        topics: 10_000,
        partitions: 50_000,
        ..Default::default()
    };
    let request = UpdateTenantRequest {
        tenant: Some(Tenant { name: "tenants/measure".into(), limits: Some(limits), ..Default::default() }),
        update_mask: Some(FieldMask { paths: vec!["limits".into()] }),
        ..Default::default()
    };
    operator.update_tenant(Installation::operator_request(request, &token)?).await?;
    Ok(())
}
