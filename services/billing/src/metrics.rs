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
    /// Windows held back behind a missing one.
    pub windows_behind_gap: Counter,
    /// Records that are no sound windows.
    pub windows_rejected: Counter,
    /// Intervals that were counted before.
    pub intervals_repeated: Counter,
    /// Intervals counted in part, to be read from the log.
    pub intervals_overlapping: Counter,
    /// Sources that stand still.
    pub sources_stopped: Gauge,
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
        registry.register("windows_behind_gap", "Usage windows held back by a gap", it.windows_behind_gap.clone());
        registry.register("windows_rejected", "Usage windows that are not sound", it.windows_rejected.clone());
        registry.register("intervals_repeated", "Intervals that were covered", it.intervals_repeated.clone());
        registry.register("intervals_overlapping", "Intervals to be reread", it.intervals_overlapping.clone());
        registry.register("sources_stopped", "Usage sources stopped at a gap", it.sources_stopped.clone());
        registry.register("log_gaps", "Internal log records gone before they were read", it.log_gaps.clone());
        registry.register("reloads", "Positions moved by somebody else", it.reloads.clone());
        it
    }
}
