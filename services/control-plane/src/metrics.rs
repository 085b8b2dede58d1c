//! What is counted and timed.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Handles; clones are the same metrics.
#[derive(Debug, Clone)]
pub(crate) struct PlaneMetrics {
    /// Changes that wait for their publication.
    pub(crate) outbox_backlog: Gauge,
    /// Age of the oldest of them.
    pub(crate) relay_lag_ms: Gauge,
    /// Records published, repetitions included.
    pub(crate) published: Counter,
    /// States published again because the control log and the database differed.
    pub(crate) republished: Counter,
    /// Resources in service in the control log that the database does not know.
    pub(crate) unknown_resources: Gauge,
    /// From a change's commit until gateways had applied it, or the wait was over.
    pub(crate) barrier_seconds: Histogram,
    /// Gateways that had not confirmed a change when its wait was over.
    pub(crate) barrier_pending: Counter,
    /// Gateways registered.
    pub(crate) members: Gauge,
    /// Rows removed, or given a tombstone, by the sweeper.
    pub(crate) swept_rows: Counter,
    /// Steps of sweeping that failed.
    pub(crate) sweep_failures: Counter,
}

impl PlaneMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let buckets = [0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 3.0];
        let metrics = Self {
            outbox_backlog: Gauge::default(),
            relay_lag_ms: Gauge::default(),
            published: Counter::default(),
            republished: Counter::default(),
            unknown_resources: Gauge::default(),
            barrier_seconds: Histogram::new(buckets),
            barrier_pending: Counter::default(),
            members: Gauge::default(),
            swept_rows: Counter::default(),
            sweep_failures: Counter::default(),
        };
        registry.register("outbox_backlog", "Changes not yet published", metrics.outbox_backlog.clone());
        registry.register("relay_lag_ms", "Age of the oldest change not yet published", metrics.relay_lag_ms.clone());
        registry.register("published", "Records published to the control log", metrics.published.clone());
        registry.register(
            "republished",
            "States published again because control log and database differed",
            metrics.republished.clone(),
        );
        registry.register(
            "unknown_resources",
            "Resources in service in the control log that the database does not know",
            metrics.unknown_resources.clone(),
        );
        registry.register_with_unit(
            "barrier",
            "Time from commit until gateways had applied a change",
            Unit::Seconds,
            metrics.barrier_seconds.clone(),
        );
        registry.register(
            "barrier_pending",
            "Gateways that had not confirmed in time",
            metrics.barrier_pending.clone(),
        );
        registry.register("swept_rows", "Rows that time removed", metrics.swept_rows.clone());
        registry.register("sweep_failures", "Steps of sweeping that failed", metrics.sweep_failures.clone());
        registry.register("members", "Gateways registered", metrics.members.clone());
        metrics
    }
}
