//! What every call and every job shares: the database, the settings, and how they wake one another.

use std::sync::Arc;
use std::time::Duration;

use sluice_db::Database;
use sluice_types::api_key::HashKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Defaults, Limits, TenantDefaults, Unknown};
use crate::crash::CrashPoint;
use crate::domain::page::Pages;
use crate::jobs::comparison::Comparison;
use crate::jobs::members::Members;
use crate::jobs::revisions::Revisions;
use crate::metrics::PlaneMetrics;

/// Shared by all calls and jobs.
pub(crate) struct Plane {
    pub(crate) db: Database,
    pub(crate) settings: Settings,
    pub(crate) pages: Pages,
    pub(crate) wakes: Wakes,
    pub(crate) revisions: Revisions,
    pub(crate) members: Members,
    pub(crate) comparison: Comparison,
    pub(crate) metrics: PlaneMetrics,
    pub(crate) crash: CrashPoint,
    /// Cancelled when the process begins to end: who waits for something that may come is answered.
    pub(crate) closing: CancellationToken,
}

/// What does not change while the process runs.
pub(crate) struct Settings {
    /// This start of this instance, in leases: two processes of one instance never hold one together.
    pub(crate) holder: String,
    pub(crate) environment: String,
    pub(crate) hash_key: HashKey,
    pub(crate) limits: Limits,
    pub(crate) defaults: Defaults,
    pub(crate) tenant_defaults: TenantDefaults,
    /// Replicas of internal topics, if the operator said.
    pub(crate) replication: Option<u8>,
    /// What becomes of resources that the control log knows and the database does not.
    pub(crate) unknown: Unknown,
    /// How long a mutation waits for gateways.
    pub(crate) barrier_max: Duration,
    /// How long a mutation of a topic waits to be done.
    pub(crate) operation_wait: Duration,
}

/// Wakes, by cause. Losing one costs a poll interval, never a change.
pub(crate) struct Wakes {
    /// Something is in the outbox.
    pub(crate) outbox: Wake,
    /// The relay published something.
    pub(crate) published: Wake,
    /// An intent changed.
    pub(crate) intent: Wake,
    /// An operation ended.
    pub(crate) operation: Wake,
}

/// A counter that can be waited on; whoever subscribed before a wake sees it.
pub(crate) struct Wake(watch::Sender<u64>);

impl Wakes {
    pub(crate) fn new() -> Self {
        Self { outbox: Wake::new(), published: Wake::new(), intent: Wake::new(), operation: Wake::new() }
    }
}

impl Wake {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Wakes all that wait.
    pub(crate) fn wake(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Take this before looking at what one waits for.
    pub(crate) fn subscribe(&self) -> Sleeper {
        Sleeper(self.0.subscribe())
    }
}

/// One who waits.
pub(crate) struct Sleeper(watch::Receiver<u64>);

impl Sleeper {
    /// Until woken, at most so long.
    pub(crate) async fn sleep(&mut self, at_most: Duration) {
        // The sender lives as long as the plane; an error would only make this return early.
        let _ = tokio::time::timeout(at_most, self.0.changed()).await;
    }
}

pub(crate) type SharedPlane = Arc<Plane>;
