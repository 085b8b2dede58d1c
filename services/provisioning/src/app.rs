//! The process: what is built, what runs, and in which order it stops.
//!
//! Shutdown: not ready any more, begin no further run and wait for those under way, and last of all the admin listener.

use std::net::SocketAddr;
use std::time::Duration;

use sluice_runtime::config::KafkaConfig;
use sluice_runtime::internal::internal_channel;
use sluice_runtime::tls::InternalTls;
use sluice_runtime::{AdminServer, ComponentStatus, FailPoints, Health, TaskSet};
use sluice_types::ClusterUid;
use sluice_wire::{Client, ClientConfig, ScramSha512, Security};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::{Config, FAIL_POINTS};
use crate::error::{BuildError, RunError};
use crate::intents::Intents;
use crate::jobs::forgetting;
use crate::jobs::lease::Lease;
use crate::jobs::reconcile::{Reconciler, run_within};
use crate::jobs::work::WorkLoop;
use crate::metrics::Metrics;

/// The role, in certificates.
pub const ROLE: &str = "provisioning";
/// The role of the server that we call.
const CONTROL_PLANE: &str = "control-plane";
const KAFKA_CHECK_EVERY: Duration = Duration::from_secs(2);
/// Of an instance's name in the lease.
const INSTANCE_BYTES: usize = 90;
/// A run ends by itself in this time.
const STOP: Duration = run_within().saturating_add(Duration::from_secs(5));

/// Provisioning, built and not yet running.
pub struct App {
    instance: String,
    concurrency: usize,
    reconciler: Reconciler,
    admin: AdminServer,
    health: Health,
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addrs {
    /// Health and metrics.
    pub admin: SocketAddr,
}

impl App {
    /// Reads secrets, binds listeners. Waits for nobody: Kafka and the control plane may come later.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let tls = InternalTls::load(&config.internal_tls)?;
        let channel = internal_channel(&config.control_plane, &tls, CONTROL_PLANE)?;
        let registry = sluice_runtime::Metrics::new();
        let metrics = registry.register(ROLE, Metrics::register);
        let health = Health::new();
        let reconciler = Reconciler {
            cluster: Cluster::new(ClusterUid::FIRST, kafka_client(&config.kafka)?, config.replication),
            intents: Intents::new(channel),
            lease: Lease::default(),
            fail_points: FailPoints::new(&FAIL_POINTS, config.testing.crash_at),
            metrics,
        };
        let admin =
            AdminServer::bind(config.admin_listen.addr(), health.clone(), registry, axum::Router::new()).await?;
        Ok(Self { instance: config.instance, concurrency: config.concurrency, reconciler, admin, health })
    }

    /// Where it listens.
    pub fn addrs(&self) -> Addrs {
        Addrs { admin: self.admin.local_addr() }
    }

    /// How it fares.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Reconciles until the shutdown, then gives the lease back.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let admin_stop = CancellationToken::new();
        let admin = tokio::spawn(self.admin.run(admin_stop.clone()));
        let tasks = TaskSet::new(ROLE, shutdown.clone());
        let (intents, metrics) = (self.reconciler.intents.clone(), self.reconciler.metrics.clone());
        // The lease outlives the shutdown, so that runs under way can finish with it.
        let keep = self.reconciler.lease.clone().keep(
            holder(&self.instance),
            intents,
            self.health.clone(),
            metrics,
            admin_stop.clone(),
        );
        let lease = tokio::spawn(keep);
        tasks.spawn_critical(
            "kafka check",
            check(self.reconciler.cluster.clone(), self.health.clone(), shutdown.clone()),
        );
        tasks.spawn_critical("deleted groups", forgetting::run(self.reconciler.clone(), shutdown.clone()));
        let work = WorkLoop { reconciler: self.reconciler, concurrency: self.concurrency, health: self.health.clone() };
        tasks.spawn_critical("work loop", work.run(shutdown.clone()));
        self.health.set_ready(true);
        shutdown.cancelled().await;
        self.health.set_ready(false);
        let drained = tasks.drain(STOP).await;
        admin_stop.cancel();
        for ended in [lease.await, admin.await] {
            if let Err(error) = ended {
                tracing::warn!(%error, "task of the frame");
            }
        }
        drained.failure.map_or(Ok(()), |reason| Err(RunError(reason)))
    }
}

/// This start of an instance, in at most 128 bytes: two processes of one instance must not hold the lease together.
fn holder(instance: &str) -> String {
    let instance = &instance[..instance.floor_char_boundary(INSTANCE_BYTES)];
    format!("{instance}/{}", uuid::Uuid::now_v7().simple())
}

/// Asks Kafka how it is, for `/health/kafka`.
async fn check(cluster: Cluster, health: Health, stop: CancellationToken) {
    loop {
        let status = match cluster.brokers().await {
            Ok(brokers) => ComponentStatus::ok(format!("{brokers} brokers")),
            Err(error) => ComponentStatus::failing(error.to_string()),
        };
        health.set_component("kafka", status);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(KAFKA_CHECK_EVERY) => {}
        }
    }
}

fn kafka_client(config: &KafkaConfig) -> Result<Client, BuildError> {
    let sasl = ScramSha512 { user: config.username.clone(), password: config.password()? };
    let security = Security { tls: Some(config.rustls_client_config()?), sasl: Some(sasl) };
    let config =
        ClientConfig::new(config.bootstrap.clone()).with_security(security).with_client_id("sluice-provisioning");
    Ok(Client::new(config)?)
}
