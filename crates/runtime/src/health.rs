//! What the process says about itself: ready or not, and how each of its components fares.
//!
//! Readiness is for load balancers: the process says when, and components it named with [`Health::require`] must be well.
//! Other components only inform: a gateway whose Kafka is down is still the right place to be told so.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;

/// How a component fares.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ComponentStatus {
    /// Whether it works.
    pub ok: bool,
    /// One line for operators; no secrets, no tenants' names.
    pub detail: String,
}

impl ComponentStatus {
    /// It works.
    pub fn ok(detail: impl Into<String>) -> Self {
        Self { ok: true, detail: detail.into() }
    }

    /// It does not.
    pub fn failing(detail: impl Into<String>) -> Self {
        Self { ok: false, detail: detail.into() }
    }
}

/// The health of a process; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<RwLock<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    ready: bool,
    components: BTreeMap<Cow<'static, str>, ComponentStatus>,
    required: BTreeSet<&'static str>,
}

impl Health {
    /// Not ready, no components.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether the process serves; false is the first step of a shutdown.
    pub fn set_ready(&self, ready: bool) {
        self.0.write().ready = ready;
    }

    /// Says how a component fares.
    pub fn set_component(&self, name: impl Into<Cow<'static, str>>, status: ComponentStatus) {
        let name = name.into();
        let before = self.0.write().components.insert(name.clone(), status.clone());
        if before.as_ref().is_none_or(|before| before.ok != status.ok) {
            tracing::info!(component = %name, ok = status.ok, detail = %status.detail, "component health");
        }
    }

    /// Not ready unless this component is well.
    pub fn require(&self, name: &'static str) {
        self.0.write().required.insert(name);
    }

    /// Whether the process serves and all it requires is well.
    pub fn is_ready(&self) -> bool {
        let inner = self.0.read();
        inner.ready && inner.required.iter().all(|name| inner.components.get(*name).is_some_and(|status| status.ok))
    }

    /// A component's status, if it was ever set.
    pub fn component(&self, name: &str) -> Option<ComponentStatus> {
        self.0.read().components.get(name).cloned()
    }

    /// All as JSON: `{"ready": …, "components": {name: {"ok": …, "detail": …}}}`.
    pub fn to_json(&self) -> serde_json::Value {
        let ready = self.is_ready();
        serde_json::json!({ "ready": ready, "components": self.0.read().components })
    }
}
