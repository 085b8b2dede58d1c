//! Puts the layers of tenants' calls together.

use std::sync::Arc;

use sluice_edge::authenticate::Credentials;
use sluice_edge::failures::Failures;
use sluice_edge::metrics::CallMetrics;
use sluice_edge::{CommonParts, Inner, Stack, common};
use sluice_types::api_key::HashKey;

use crate::auth::KeyLookup;
use crate::auth::api_keys::{ApiKeys, NOUN};
use crate::layers::audit::{Audit, AuditSink};
use crate::layers::authorize::Authorize;
use crate::layers::quota::Quota;
use crate::layers::tenant::Tenant;
use crate::quota::ProcessBytes;
use crate::view::View;
use crate::view::applied::Applied;
use crate::view::freshness::Freshness;

/// What the layers work with.
pub struct StackParts {
    /// The view.
    pub view: Arc<View>,
    /// What is applied of it.
    pub applied: Applied,
    /// Whether it may be old.
    pub freshness: Freshness,
    /// Key of the secrets' hashes.
    pub hash_key: HashKey,
    /// Who is asked for unknown keys.
    pub lookup: KeyLookup,
    /// Counts failed authentications.
    pub failures: Failures,
    /// Where denials go.
    pub audit: Arc<dyn AuditSink>,
    /// Where calls are counted.
    pub metrics: CallMetrics,
    /// Calls at a time.
    pub calls_max: usize,
    /// Calls at a time of one peer.
    pub calls_per_peer_max: usize,
    /// Bytes of a body.
    pub body_bytes_max: u64,
    /// Bytes of all bodies at a time.
    pub in_flight_bytes_max: u64,
}

/// The layers around `handler`. Those of tenants come first, because a stack is built from the inside.
pub fn stack(parts: StackParts, handler: impl Inner) -> Stack<impl Inner> {
    let (view, hash_key) = (parts.view, parts.hash_key);
    let own = Stack::of(handler)
        .within(Authorize { view: Arc::clone(&view) })
        .within(Audit { sink: parts.audit })
        .within(Quota { process: ProcessBytes::new(parts.in_flight_bytes_max) })
        .within(Tenant { view: Arc::clone(&view), applied: parts.applied, hash_key: hash_key.clone() });
    let keys = ApiKeys { view, freshness: parts.freshness, hash_key, lookup: parts.lookup };
    let credentials = Credentials {
        chain: vec![Box::new(keys)],
        failures: parts.failures,
        wanted: "authorization: Bearer <API key>",
        noun: NOUN,
        for_common: false,
    };
    let common_parts = CommonParts {
        listener: "tenants",
        metrics: parts.metrics,
        calls_max: parts.calls_max,
        calls_per_peer_max: parts.calls_per_peer_max,
        body_bytes_max: parts.body_bytes_max,
        credentials,
    };
    common(common_parts, own)
}

#[cfg(test)]
mod tests;
