//! What every call and every job shares: the database, the settings, and how they wake one another.

use std::sync::Arc;
use std::time::Duration;

use sluice_db::{Database, DbConfig, DbError, SystemScope, Turns};
use sluice_process::TenantDefaults;
use sluice_runtime::FailPoints;
use sluice_types::api_key::HashKey;
use tokio_util::sync::CancellationToken;

use crate::config::{Defaults, Limits, Unknown};
use crate::domain::page::Pages;
use crate::jobs::comparison::Comparison;
use crate::jobs::members::Members;
use crate::jobs::revisions::Revisions;
use crate::metrics::PlaneMetrics;
pub(crate) use crate::wakes::{Wake, Wakes};

/// Shared by all calls and jobs.
pub(crate) struct Plane {
    pub(crate) db: Database,
    /// The system role's connections of those who must not wait for one another.
    pub(crate) scopes: Scopes,
    /// Who of a tenant may have a connection.
    pub(crate) turns: Turns,
    pub(crate) settings: Settings,
    pub(crate) pages: Pages,
    pub(crate) wakes: Wakes,
    pub(crate) revisions: Revisions,
    pub(crate) members: Members,
    pub(crate) comparison: Comparison,
    pub(crate) metrics: PlaneMetrics,
    pub(crate) fail_points: FailPoints,
    /// Cancelled when the process begins to end: who waits for something that may come is answered.
    pub(crate) closing: CancellationToken,
}

/// Connections of the system role, by purpose. What has none here (the operator, the sweeper, health) shares
/// [`Database::system`].
pub(crate) struct Scopes {
    /// The relay reads and marks the outbox.
    pub(crate) relay: SystemScope,
    /// Leases are taken and renewed.
    pub(crate) leases: SystemScope,
    /// Calls look whether their change is published.
    pub(crate) barrier: SystemScope,
    /// Gateways ask for keys.
    pub(crate) lookup: SystemScope,
    /// Provisioning asks for work and reports.
    pub(crate) reports: SystemScope,
}

impl Scopes {
    /// Reserves them all.
    pub(crate) fn reserve(db: &mut Database, config: &DbConfig) -> Result<Self, DbError> {
        Ok(Self {
            relay: db.reserve(config, 2)?,
            leases: db.reserve(config, 2)?,
            barrier: db.reserve(config, 3)?,
            lookup: db.reserve(config, 3)?,
            reports: db.reserve(config, 4)?,
        })
    }
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

pub(crate) type SharedPlane = Arc<Plane>;
