//! Billing's figures, under `sluice_billing_`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Which partition of which internal log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LogLabels {
    /// The topic.
    pub topic: &'static str,
    /// The partition.
    pub partition: i32,
}

/// Handles; clones are the same figures.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Records not read yet.
    pub lag_records: Family<LogLabels, Gauge>,
    /// Windows added.
    pub windows_added: Counter,
    /// Windows that had been added before.
    pub windows_repeated: Counter,
    /// Records that are no sound windows.
    pub windows_rejected: Counter,
    /// Intervals that were counted before.
    pub intervals_repeated: Counter,
    /// Intervals counted in part, to be read from the log.
    pub intervals_overlapping: Counter,
    /// Windows that are missing, and not declared lost.
    pub windows_missing: Gauge,
    /// Windows that were declared lost and did not come since.
    pub windows_lost: Gauge,
    /// Records older than the grace that no gateway reported.
    pub uncovered_records: Gauge,
    /// Partitions that have some.
    pub uncovered_partitions: Gauge,
    /// Times that an internal log was another one, or shorter than what was read of it.
    pub logs_replaced: Counter,
    /// Times that records of an internal log were gone before they were read.
    pub log_gaps: Counter,
    /// Times that the position had been moved by somebody else.
    pub reloads: Counter,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        registry.register("lag_records", "Records of an internal log not read yet", it.lag_records.clone());
        registry.register("windows_added", "Usage windows added", it.windows_added.clone());
        registry.register("windows_repeated", "Usage windows that were there already", it.windows_repeated.clone());
        registry.register("windows_missing", "Usage windows that did not come yet", it.windows_missing.clone());
        registry.register("windows_lost", "Usage windows declared lost", it.windows_lost.clone());
        registry.register("uncovered_records", "Records that no gateway reported", it.uncovered_records.clone());
        registry.register("uncovered_partitions", "Partitions with such records", it.uncovered_partitions.clone());
        registry.register("logs_replaced", "Internal logs that were another one or shorter", it.logs_replaced.clone());
        registry.register("windows_rejected", "Usage windows that are not sound", it.windows_rejected.clone());
        registry.register("intervals_repeated", "Intervals that were covered", it.intervals_repeated.clone());
        registry.register("intervals_overlapping", "Intervals to be reread", it.intervals_overlapping.clone());
        registry.register("log_gaps", "Internal log records gone before they were read", it.log_gaps.clone());
        registry.register("reloads", "Positions moved by somebody else", it.reloads.clone());
        it
    }
}
