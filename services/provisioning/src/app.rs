//! The role: what is built, what runs, and in which order it stops.
//!
//! Shutdown: not ready any more, begin no further run and wait for those under way, give the lease back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_process::{ClusterAccess, Error, Frame, Life, Process, Role, Stops};
use sluice_reconcile::{Driver, Lease};
use sluice_runtime::internal::internal_channel;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::intents::Intents;
use crate::jobs::forgetting::DeletedGroups;
use crate::jobs::reconcile::{Reconciler, run_within};
use crate::metrics::Metrics;

/// The role, in certificates.
pub const ROLE: &str = "provisioning";
/// The role of the server that we call.
const CONTROL_PLANE: &str = "control-plane";
/// Of an instance's name in the lease.
const INSTANCE_BYTES: usize = 90;
/// Deleted groups worked on at a time.
const GROUPS_AT_ONCE: usize = 8;
/// A run ends by itself in this time.
const STOP: Duration = run_within().saturating_add(Duration::from_secs(5));
/// A question under way, and the one to take the lease back.
const LEASE_STOP: Duration = Duration::from_secs(11);

/// Provisioning as a process.
pub type App = Process<Provisioning>;

/// Provisioning, built and not yet running.
pub struct Provisioning {
    instance: String,
    concurrency: usize,
    reconciler: Reconciler,
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addrs {
    /// Health and metrics.
    pub admin: SocketAddr,
}

impl Role for Provisioning {
    const NAME: &'static str = ROLE;
    const ABOUT: &'static str = "Makes Kafka match the intent";
    type Config = Config;
    type Addrs = Addrs;

    async fn build(config: Config, frame: &mut Frame) -> Result<Self, Error> {
        let channel = internal_channel(&config.control_plane, &frame.internal_tls, CONTROL_PLANE)?;
        let cluster = |of: &ClusterAccess| (of.uid, Cluster::new(of.uid, of.client.clone(), config.replication));
        let clusters = frame.clusters.iter().map(cluster).collect();
        let reconciler = Reconciler {
            clusters: Arc::new(clusters),
            intents: Intents::new(channel),
            lease: Lease::default(),
            fail_points: frame.fail_points.clone(),
            metrics: frame.metrics.register(ROLE, Metrics::register),
        };
        Ok(Self { instance: config.instance, concurrency: config.concurrency, reconciler })
    }

    fn addrs(&self, admin: SocketAddr) -> Addrs {
        Addrs { admin }
    }

    fn start(self, life: &Life) -> Stops {
        let (tasks, health) = (&life.tasks, &life.health);
        let (intents, metrics) = (self.reconciler.intents.clone(), self.reconciler.metrics.clone());
        // The lease outlives the tasks, so that runs under way can finish with it.
        let stop_lease = CancellationToken::new();
        let lease = self.reconciler.lease.clone();
        let told = move |held| {
            metrics.lease_held.set(i64::from(held));
        };
        let keep = lease.keep(holder(&self.instance), intents, health.clone(), told, stop_lease.clone());
        let lease = tokio::spawn(keep);
        life.check_kafka();
        let lease_of_work = self.reconciler.lease.clone();
        let groups = Driver {
            resource: DeletedGroups(self.reconciler.clone()),
            lease: lease_of_work.clone(),
            at_once: GROUPS_AT_ONCE,
            health: health.clone(),
        };
        tasks.spawn_critical("deleted groups", groups.run(tasks.shutdown()));
        let topics = Driver {
            resource: self.reconciler,
            lease: lease_of_work,
            at_once: self.concurrency,
            health: health.clone(),
        };
        tasks.spawn_critical("topics", topics.run(tasks.shutdown()));
        health.set_ready(true);
        Stops::new().tasks(tasks, STOP).then("lease", LEASE_STOP, async move {
            stop_lease.cancel();
            if let Err(error) = lease.await {
                tracing::warn!(%error, "the lease");
            }
        })
    }
}

/// This start of an instance, in at most 128 bytes: two processes of one instance must not hold the lease together.
fn holder(instance: &str) -> String {
    let instance = &instance[..instance.floor_char_boundary(INSTANCE_BYTES)];
    format!("{instance}/{}", uuid::Uuid::now_v7().simple())
}
