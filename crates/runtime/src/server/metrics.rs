//! Figures of a listener's connections.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Counts connections; clones are the same. Whoever watches a listener sees in `refused` and `evicted` that its places are taken.
#[derive(Clone, Debug, Default)]
pub struct ConnMetrics {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections closed at once: there was no place.
    pub refused: Counter,
    /// Connections closed because another wanted their place.
    pub evicted: Counter,
}

impl ConnMetrics {
    /// Makes them known to a registry as `connections_accepted`, `connections_refused` and `connections_evicted`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("connections_accepted", "Connections accepted", metrics.accepted.clone());
        registry.register("connections_refused", "Connections closed at once: no place", metrics.refused.clone());
        let evicted = metrics.evicted.clone();
        registry.register("connections_evicted", "Connections closed because another wanted their place", evicted);
        metrics
    }
}
