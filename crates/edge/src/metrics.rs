//! Figures of calls. Labels come from small, fixed sets: RPC, protocol, code.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// From a millisecond to a minute: what a call can take.
const SECONDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0, 60.0];

/// Labels of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    rpc: &'static str,
    protocol: &'static str,
    code: &'static str,
}

/// Labels of a call's time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RpcLabels {
    rpc: &'static str,
}

/// Figures of the calls of one listener; clones are the same.
#[derive(Clone)]
pub struct CallMetrics {
    total: Family<CallLabels, Counter>,
    seconds: Family<RpcLabels, Histogram, fn() -> Histogram>,
    /// Calls without an answer yet.
    pub in_flight: Gauge,
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self {
            total: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            in_flight: Gauge::default(),
        }
    }
}

impl CallMetrics {
    /// Makes them known to a registry: `calls`, `call_seconds`, `calls_in_flight`.
    pub fn register(registry: &mut Registry) -> Self {
        let calls = Self::default();
        registry.register("calls", "Calls by RPC, protocol and code", calls.total.clone());
        registry.register("call_seconds", "Time from the first byte to the answer", calls.seconds.clone());
        registry.register("calls_in_flight", "Calls without an answer yet", calls.in_flight.clone());
        calls
    }

    /// Counts a call that is over.
    pub fn record(&self, rpc: &'static str, protocol: &'static str, code: &'static str, took: Duration) {
        self.total.get_or_create(&CallLabels { rpc, protocol, code }).inc();
        self.seconds.get_or_create(&RpcLabels { rpc }).observe(took.as_secs_f64());
    }
}
