//! Provisioning's figures, under `sluice_provisioning_`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// One of few words.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// The word.
    pub kind: &'static str,
}

/// Handles; clones are the same figures.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Changes made to Kafka: `create`, `extend`, `alter`, `delete`, `delete-group`.
    pub changes: Family<Kind, Counter>,
    /// Reports, by what was observed.
    pub reports: Family<Kind, Counter>,
    /// Topics that were as wanted once and were found otherwise.
    pub drifted: Counter,
    /// Physical topics in our name's form that no intent names.
    pub orphans: Gauge,
    /// Topics waiting or worked on.
    pub busy: Gauge,
    /// Topics whose last attempt failed.
    pub failing: Gauge,
    /// Deleted groups that Kafka still held in the last round.
    pub groups_left: Gauge,
    /// 1 while we hold the lease.
    pub lease_held: Gauge,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        registry.register("changes", "Changes made to Kafka", it.changes.clone());
        registry.register("reports", "Reports to the control plane", it.reports.clone());
        registry.register("drifted", "Topics found otherwise than they were left", it.drifted.clone());
        registry.register("orphans", "Physical topics that no intent names", it.orphans.clone());
        registry.register("busy", "Topics waiting or worked on", it.busy.clone());
        registry.register("failing", "Topics whose last attempt failed", it.failing.clone());
        registry.register("groups_left", "Deleted groups that Kafka still holds", it.groups_left.clone());
        registry.register("lease_held", "1 while this process holds the lease", it.lease_held.clone());
        it
    }

    /// Counts a change.
    pub fn changed(&self, kind: &'static str) {
        self.changes.get_or_create(&Kind { kind }).inc();
    }
}
