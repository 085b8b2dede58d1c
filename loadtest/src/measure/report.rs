//! Medians of the repetitions, as a page with the machine's description.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::load::Throughput;
use super::{Args, VALUE_BYTES};

/// One throughput row of one repetition.
pub(super) struct Row {
    name: &'static str,
    records_per_second: f64,
    cpu_us_per_record: f64,
    /// Throughput and CPU over the bare client's.
    ratios: Option<(f64, f64)>,
}

impl Row {
    pub(super) fn bare(name: &'static str, run: &Throughput) -> Self {
        Self { name, records_per_second: rate(run), cpu_us_per_record: cpu(run), ratios: None }
    }

    pub(super) fn beside(name: &'static str, run: &Throughput, bare: &Throughput) -> Self {
        let ratios = Some((rate(run) / rate(bare), cpu(run) / cpu(bare)));
        Self { name, records_per_second: rate(run), cpu_us_per_record: cpu(run), ratios }
    }
}

/// Latencies of one repetition.
pub(super) struct Latency {
    name: &'static str,
    p50_ms: f64,
    p99_ms: f64,
}

impl Latency {
    pub(super) fn new(name: &'static str, mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        let at = |share: f64| nanos.get(((nanos.len() as f64 - 1.0) * share) as usize).map_or(0.0, |n| *n as f64 / 1e6);
        Self { name, p50_ms: at(0.5), p99_ms: at(0.99) }
    }
}

/// All of it.
pub(super) struct Report {
    head: String,
    rows: Vec<Row>,
    latencies: Vec<Latency>,
    idle_rss: u64,
    loaded: Vec<(u64, u64)>,
}

impl Report {
    pub(super) fn new(args: &Args, idle_rss: u64) -> Self {
        let head = format!(
            "{}\n\n{} records of {VALUE_BYTES} bytes a throughput run, {} repetitions, medians. Broker, gateways, PostgreSQL and the load \
             generator share the machine. One broker, replication 1, SASL/SCRAM over TLS towards Kafka, no TLS on the public listener.",
            machine(),
            args.records,
            args.repetitions
        );
        Self { head, rows: Vec::new(), latencies: Vec::new(), idle_rss, loaded: Vec::new() }
    }

    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(super) fn latency(&mut self, latency: Latency) {
        self.latencies.push(latency);
    }

    pub(super) fn loaded_rss(&mut self, now: u64, peak: u64) {
        self.loaded.push((now, peak));
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("# Measurements\n\n{}\n\n", self.head);
        text.push_str(
            "| Produce | records/s | throughput / bare | CPU µs a record | CPU / bare |\n|---|---|---|---|---|\n",
        );
        for (name, rows) in grouped(&self.rows, |row| row.name) {
            let of = |pick: fn(&Row) -> Option<f64>| median(rows.iter().filter_map(|row| pick(row)).collect());
            let shown =
                |value: Option<f64>, digits: usize| value.map_or("–".into(), |value| format!("{value:.digits$}"));
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {} |",
                shown(of(|row| Some(row.records_per_second)), 0),
                shown(of(|row| row.ratios.map(|ratios| ratios.0)), 2),
                shown(of(|row| Some(row.cpu_us_per_record)), 1),
                shown(of(|row| row.ratios.map(|ratios| ratios.1)), 2),
            );
        }
        text.push_str("\n| Latency | p50 ms | p99 ms |\n|---|---|---|\n");
        for (name, rows) in grouped(&self.latencies, |row| row.name) {
            let p50 = median(rows.iter().map(|row| row.p50_ms).collect()).unwrap_or_default();
            let p99 = median(rows.iter().map(|row| row.p99_ms).collect()).unwrap_or_default();
            let _ = writeln!(text, "| {name} | {p50:.2} | {p99:.2} |");
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let after = self.loaded.iter().map(|(now, _)| *now).max().unwrap_or_default();
        let peak = self.loaded.iter().map(|(_, peak)| *peak).max().unwrap_or_default();
        let _ = writeln!(
            text,
            "\nGateway's memory: {:.0} MiB idle, {:.0} MiB after load, {:.0} MiB peak.",
            mib(self.idle_rss),
            mib(after),
            mib(peak)
        );
        text
    }
}

fn rate(run: &Throughput) -> f64 {
    run.records as f64 / run.seconds
}

fn cpu(run: &Throughput) -> f64 {
    run.cpu_seconds * 1e6 / run.records as f64
}

/// In order of first appearance.
fn grouped<T>(rows: &[T], name: impl Fn(&T) -> &'static str) -> Vec<(&'static str, Vec<&T>)> {
    let mut order = Vec::new();
    let mut groups: BTreeMap<&'static str, Vec<&T>> = BTreeMap::new();
    for row in rows {
        let name = name(row);
        if !order.contains(&name) {
            order.push(name);
        }
        groups.entry(name).or_default().push(row);
    }
    order.into_iter().map(|name| (name, groups.remove(name).unwrap_or_default())).collect()
}

pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name).and_then(|rest| rest.split_once(':')))
            .map_or_else(|| "unknown".into(), |(_, value)| value.trim().to_owned())
    };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    format!(
        "Machine: {cpus} cores ({}), memory {memory}, Linux {}.",
        field(&read("/proc/cpuinfo"), "model name"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}
