//! The gateway's own figures. Labels come from small, fixed sets: RPC, protocol, code, reason.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use sluice_runtime::server::ConnMetrics;

use crate::layers::audit::{AuditSink, Denial};

/// From a millisecond to a minute: what a call can take.
const SECONDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0, 60.0];

/// All of them.
#[derive(Clone, Default)]
pub struct GatewayMetrics {
    /// Calls.
    pub calls: CallMetrics,
    /// Key look-ups.
    pub lookups: LookupMetrics,
    /// The view.
    pub view: ViewMetrics,
    /// Denials.
    pub denials: Denials,
    /// Connections of the public listener.
    pub connections: ConnMetrics,
}

impl GatewayMetrics {
    /// Makes them known to a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self { connections: ConnMetrics::register(registry), ..Self::default() };
        let calls = &metrics.calls;
        registry.register("calls", "Calls by RPC, protocol and code", calls.total.clone());
        registry.register("call_seconds", "Time from the first byte to the answer", calls.seconds.clone());
        registry.register("calls_in_flight", "Calls without an answer yet", calls.in_flight.clone());
        let lookups = &metrics.lookups;
        registry.register("key_lookups", "Unknown keys asked of the control plane", lookups.asked.clone());
        registry.register("key_lookups_refused", "Unknown keys over the budget", lookups.over_budget.clone());
        registry.register("key_lookups_cached", "Unknown keys known to be absent", lookups.absent_cached.clone());
        registry.register("applied_offset", "Offset of the control log that is applied", metrics.view.applied.clone());
        registry.register("view_age_ms", "Age of what the view holds", metrics.view.age_ms.clone());
        registry.register("denials", "Calls denied by authorization", metrics.denials.total.clone());
        metrics
    }
}

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

/// Figures of calls.
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
    /// Counts a call that is over.
    pub fn record(&self, rpc: &'static str, protocol: &'static str, code: &'static str, took: Duration) {
        self.total.get_or_create(&CallLabels { rpc, protocol, code }).inc();
        self.seconds.get_or_create(&RpcLabels { rpc }).observe(took.as_secs_f64());
    }
}

/// Figures of key look-ups.
#[derive(Clone, Default)]
pub struct LookupMetrics {
    /// Asked of the control plane.
    pub asked: Counter,
    /// Not asked: over the budget.
    pub over_budget: Counter,
    /// Not asked: known to be absent.
    pub absent_cached: Counter,
}

/// Figures of the view.
#[derive(Clone, Default)]
pub struct ViewMetrics {
    /// The applied offset.
    pub applied: Gauge<i64, AtomicI64>,
    /// Age of what it holds.
    pub age_ms: Gauge<i64, AtomicI64>,
}

/// Counts denials and logs who was denied what.
#[derive(Clone, Default)]
pub struct Denials {
    total: Counter,
}

impl Denials {
    /// As a sink.
    pub fn sink(&self) -> Arc<dyn AuditSink> {
        Arc::new(self.clone())
    }
}

impl AuditSink for Denials {
    fn denied(&self, denial: Denial<'_>) {
        self.total.inc();
        tracing::info!(
            target: "audit",
            tenant = %denial.context.tenant.uid(),
            account = %denial.context.principal.account,
            request_id = %denial.context.request_id,
            permission = denial.permission,
            "denied"
        );
    }
}
