//! What all groups that are dispatched here share, and what those of one cluster do.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;

use sluice_runtime::TaskSet;
use sluice_types::ClusterUid;
use sluice_wire::{Client, Groups, Reader};

use crate::clusters::{Cluster, Clusters};
use crate::groups::dispatch::budget::{Budget, PROCESS_BYTES_MAX};
use crate::groups::dispatch::metrics::DispatchMetrics;
use crate::groups::dispatch::pulse::Pulse;
use crate::groups::owner::MemberOwners;
use crate::metering::Meter;
use crate::view::View;

/// How long things take, and how much they hold; other than the default only in tests.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A group without clients and leases is kept so long.
    pub idle: Duration,
    /// Another member that may be alive gets so long to leave by itself.
    pub patience: Duration,
    /// After a fence or a loss the group is not taken again for so long.
    pub cool_down: Duration,
    /// Bytes that were read and not delivered, over all groups.
    pub cached_bytes: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(30),
            patience: Duration::from_secs(1),
            cool_down: Duration::from_millis(500),
            cached_bytes: PROCESS_BYTES_MAX,
        }
    }
}

/// What a group knows of its process: nothing that does I/O.
pub(super) struct Setting {
    pub(super) gateway_id: Arc<str>,
    pub(super) clock: Clock,
    pub(super) metrics: DispatchMetrics,
    pub(super) timing: Timing,
}

/// What a group reaches the cluster with that it lives on, made when it begins.
pub(super) struct Handles {
    pub(super) cluster: ClusterUid,
    pub(super) wire: Client,
    pub(super) groups: Groups,
    pub(super) reader: Reader,
}

/// With what calls are made for a group.
pub(super) struct Io {
    pub(super) shared: Arc<Shared>,
    pub(super) handles: Handles,
}

impl Io {
    /// For a group that lives there.
    pub(super) fn at(shared: &Arc<Shared>, cluster: &Cluster) -> Self {
        let (wire, groups, reader) = (cluster.wire().clone(), cluster.groups().clone(), cluster.reader().clone());
        Self { shared: Arc::clone(shared), handles: Handles { cluster: cluster.uid(), wire, groups, reader } }
    }
}

/// What all groups share.
pub(super) struct Shared {
    pub(super) boot_id: Arc<str>,
    pub(super) setting: Arc<Setting>,
    pub(super) clusters: Clusters,
    pub(super) meter: Meter,
    pub(super) view: Arc<View>,
    pub(super) owners: Arc<MemberOwners>,
    pub(super) budget: Budget,
    pub(super) pulse: Arc<Pulse>,
    pub(super) key_hasher: RandomState,
    pub(super) tasks: TaskSet,
    /// By when everything must be handed over, once the process ends.
    pub(super) stop: watch::Sender<Option<Instant>>,
}

impl Shared {
    /// A hash that nobody outside can foresee: colliding keys would wait for each other.
    pub(super) fn key_hash(&self, key: &[u8]) -> u64 {
        self.key_hasher.hash_one(key)
    }
}

/// Milliseconds since the epoch that never go back: the wall clock at the start, then monotonic time. It goes on while the
/// process is frozen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    origin: Instant,
    origin_ms: i64,
}

impl Clock {
    /// One that shows these milliseconds at an instant.
    #[cfg(test)]
    pub(super) fn at_origin(origin: Instant, origin_ms: i64) -> Self {
        Self { origin, origin_ms }
    }

    pub(super) fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { origin: Instant::now(), origin_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX) }
    }

    pub(super) fn ms(&self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.origin).as_millis();
        self.origin_ms.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }

    /// Never before that millisecond.
    pub(super) fn at(&self, ms: i64) -> Instant {
        let since = u64::try_from(ms.saturating_sub(self.origin_ms)).unwrap_or(0);
        self.origin + Duration::from_millis(since)
    }
}
