//! The process's metrics: one registry, a part of it for each role, and figures of the process itself.
//!
//! Labels are for small, fixed sets (routes, codes, reasons). Tenant ids are never labels.

use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// All metrics of a process; clones are the same.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<RwLock<Registry>>);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// An empty registry with the process's own figures.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        Self(Arc::new(RwLock::new(registry)))
    }

    /// Registers a part's metrics under `sluice_{part}_` and returns what `f` returns, usually the handles.
    pub fn register<R>(&self, part: &str, f: impl FnOnce(&mut Registry) -> R) -> R {
        f(self.0.write().sub_registry_with_prefix(format!("sluice_{part}")))
    }

    /// Everything in OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.0.read()).is_err() {
            tracing::error!("encode metrics");
        }
        text
    }
}

/// Memory, processor time and descriptors, read from `/proc` when asked for.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name, help, value: Option<u64>| -> Result<(), std::fmt::Error> {
            let Some(value) = value.and_then(|value| i64::try_from(value).ok()) else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("process_resident_memory_bytes", "Resident memory", resident_bytes())?;
        gauge("process_open_fds", "Open file descriptors", open_fds())?;
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            counter.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                "User and system time",
                None,
                counter.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

fn open_fds() -> Option<u64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}

fn cpu_seconds() -> Option<f64> {
    /// Linux reports processor time in hundredths of a second to all programs.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; the fields after it begin with the third.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn parts_are_prefixed_and_the_process_shows_itself() {
        let metrics = Metrics::new();
        let hits: Counter = metrics.register("gateway", |registry| {
            let hits = Counter::default();
            registry.register("hits", "Hits", hits.clone());
            hits
        });
        hits.inc();
        let text = metrics.encode();
        assert!(text.contains("sluice_gateway_hits_total 1"), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.contains("process_cpu_seconds_total "), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
