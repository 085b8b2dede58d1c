//! The gateway's own figures.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use sluice_edge::metrics::CallMetrics;
use sluice_runtime::server::ConnMetrics;

use crate::layers::audit::{AuditSink, Denial};

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
        let metrics = Self {
            connections: ConnMetrics::register(registry),
            calls: CallMetrics::register(registry),
            ..Self::default()
        };
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
