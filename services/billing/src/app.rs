//! The process: what is built before the first byte is served, what runs, and in which order it stops.
//!
//! Shutdown: not ready any more, stop accepting and finish calls, let the feeds finish their transaction, close the
//! database, and last of all the admin listener. Every step has a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use sluice_db::{Database, DbConfig};
use sluice_proto::billing::v1::usage_service_server::UsageServiceServer;
use sluice_runtime::config::KafkaConfig;
use sluice_runtime::internal::{CallerLayer, CallerVerifier};
use sluice_runtime::server::{Edge, bind, serve};
use sluice_runtime::tls::InternalTls;
use sluice_runtime::{AdminServer, ComponentStatus, FailPoints, Health, TaskSet};
use sluice_wire::{Client, ClientConfig, ScramSha512, Security};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Layer as _;

use crate::api::usage::Usage;
use crate::config::{Config, FAIL_POINTS};
use crate::domain::page_token::TokenKey;
use crate::error::{BuildError, RunError};
use crate::jobs::coverage_watch::CoverageWatch;
use crate::jobs::log_feed::{FeedError, LogFeed};
use crate::jobs::{control_feed, source_watch, usage_feed};
use crate::metrics::Metrics;
use crate::store::log_position::Log;
use crate::store::migrations::MIGRATIONS;

/// The role, in certificates and caller tokens.
pub const ROLE: &str = "billing";
const DRAIN: Duration = Duration::from_secs(10);
const FEEDS_STOP: Duration = Duration::from_secs(8);
const DATABASE_CLOSE: Duration = Duration::from_secs(5);
const KAFKA_CHECK_EVERY: Duration = Duration::from_secs(2);

/// Billing, built and not yet running.
pub struct App {
    database: Database,
    owner_url: Option<SecretString>,
    kafka: Client,
    token_key: TokenKey,
    fail_points: FailPoints,
    tls: InternalTls,
    internal: TcpListener,
    admin: AdminServer,
    addrs: Addrs,
    health: Health,
    metrics: Metrics,
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addrs {
    /// `sluice.billing.v1`, mutual TLS.
    pub internal: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
}

impl App {
    /// Reads secrets, binds listeners. Waits for nobody: Kafka and PostgreSQL may come later.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let app_url = config.database.app_url_file.read()?;
        let system_url = config.database.system_url_file.read()?;
        let owner_url = config.database.owner_url_file.as_ref().map(|file| file.read()).transpose()?;
        let database = Database::open(&DbConfig::new("sluice-billing", app_url, system_url))?;
        let health = Health::new();
        health.require("database");
        let registry = sluice_runtime::Metrics::new();
        let metrics = registry.register(ROLE, Metrics::register);
        let internal = bind(config.internal_listen.addr()).await?;
        let admin =
            AdminServer::bind(config.admin_listen.addr(), health.clone(), registry, axum::Router::new()).await?;
        let addrs = Addrs { internal: internal.local_addr()?, admin: admin.local_addr() };
        Ok(Self {
            database,
            owner_url,
            kafka: kafka_client(&config.kafka)?,
            token_key: TokenKey::new(config.page_token_key_file.read_key()?),
            fail_points: FailPoints::new(&FAIL_POINTS, config.testing.crash_at),
            tls: InternalTls::load(&config.internal_tls)?,
            internal,
            admin,
            addrs,
            health,
            metrics,
        })
    }

    /// Where it listens.
    pub fn addrs(&self) -> Addrs {
        self.addrs
    }

    /// How it fares.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves and counts until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let admin_stop = CancellationToken::new();
        let admin = tokio::spawn(self.admin.run(admin_stop.clone()));
        let outcome = Running {
            database: self.database,
            owner_url: self.owner_url,
            kafka: self.kafka,
            fail_points: self.fail_points,
            health: self.health,
            metrics: self.metrics,
        }
        .run(self.internal, &self.tls, self.token_key, shutdown)
        .await;
        admin_stop.cancel();
        if let Err(error) = admin.await {
            tracing::warn!(%error, "admin listener");
        }
        outcome
    }
}

struct Running {
    database: Database,
    owner_url: Option<SecretString>,
    kafka: Client,
    fail_points: FailPoints,
    health: Health,
    metrics: Metrics,
}

impl Running {
    async fn run(
        self,
        internal: TcpListener,
        tls: &InternalTls,
        token_key: TokenKey,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        if !self.migrate(&shutdown).await? {
            return Ok(());
        }
        let server_tls = tls.server_tls().map_err(|error| RunError::Task(format!("internal listener: {error}")))?;
        let api = Usage::new(self.database.clone(), self.kafka.clone(), token_key);
        let caller = CallerLayer::new(CallerVerifier::new(ROLE));
        let routes = Routes::new(caller.layer(UsageServiceServer::new(api))).prepare();
        let tasks = TaskSet::new(ROLE, shutdown.clone());
        self.start_jobs(&tasks);
        self.health.set_ready(true);
        let report =
            serve(internal, Some(server_tls), Edge::internal(), move |_| routes.clone(), shutdown.clone(), DRAIN).await;
        self.health.set_ready(false);
        tracing::info!(?report, "internal listener closed");
        let drained = tasks.drain(FEEDS_STOP).await;
        self.database.close(DATABASE_CLOSE).await;
        drained.failure.map_or(Ok(()), |reason| Err(RunError::Task(reason)))
    }

    /// Brings the schema up to date as soon as the database answers; false when the shutdown came first.
    async fn migrate(&self, shutdown: &CancellationToken) -> Result<bool, RunError> {
        let Some(owner_url) = &self.owner_url else { return Ok(true) };
        let waiting = || self.health.set_component("database", ComponentStatus::failing("waiting to migrate"));
        MIGRATIONS.apply_when_possible(owner_url, shutdown, waiting).await.map_err(RunError::Migrate)
    }

    fn start_jobs(&self, tasks: &TaskSet) {
        let stop = tasks.shutdown();
        let names =
            self.feed(control_feed::LOG, "control-feed", control_feed::NameSink::new(self.database.system().clone()));
        tasks.spawn_critical("control feed", control_feed::follow(names, stop.clone()));
        tasks.spawn_critical("usage feeds", self.start_usage_feeds(tasks));
        let watch = source_watch::run(self.database.clone(), self.health.clone(), self.metrics.clone(), stop.clone());
        tasks.spawn_critical("source watch", watch);
        let coverage = CoverageWatch::new(self.database.clone(), self.kafka.clone());
        let watch = coverage.run(self.health.clone(), self.metrics.clone(), stop.clone());
        tasks.spawn_critical("coverage watch", watch);
        tasks.spawn_critical(
            "dependency checks",
            checks(self.database.clone(), self.kafka.clone(), self.health.clone(), stop),
        );
    }

    /// Finds out how many partitions the usage log has, then reads each.
    fn start_usage_feeds(&self, tasks: &TaskSet) -> impl Future<Output = Result<(), FeedError>> + Send + 'static {
        let sink = usage_feed::sink(self.database.system().clone(), self.fail_points.clone(), self.metrics.clone());
        let stop = tasks.shutdown();
        let (kafka, tasks) = (self.kafka.clone(), tasks.clone());
        let feed = self.feed(Log { topic: "", partition: 0 }, "usage-feed", sink);
        async move {
            let Some(partitions) = usage_feed::partition_count(&kafka, &stop).await else { return Ok(()) };
            for log in usage_feed::logs(partitions) {
                tasks.spawn_critical("usage feed", feed.with_log(log).run(stop.clone()));
            }
            stop.cancelled().await;
            Ok(())
        }
    }

    fn feed<S>(&self, log: Log, component: &'static str, sink: Arc<S>) -> LogFeed<S> {
        LogFeed {
            log,
            kafka: self.kafka.clone(),
            database: self.database.clone(),
            sink,
            health: self.health.clone(),
            component,
            metrics: self.metrics.clone(),
        }
    }
}

/// Asks PostgreSQL and Kafka how they are, for `/readyz` and `/health/…`.
async fn checks(database: Database, kafka: Client, health: Health, stop: CancellationToken) {
    loop {
        let status = match database.ping().await {
            Ok(()) => ComponentStatus::ok("answers"),
            Err(error) => ComponentStatus::failing(error.to_string()),
        };
        health.set_component("database", status);
        let status = match kafka.metadata(&[], KAFKA_CHECK_EVERY).await {
            Ok(cluster) => ComponentStatus::ok(format!("{} brokers", cluster.brokers.len())),
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
    let config = ClientConfig::new(config.bootstrap.clone()).with_security(security).with_client_id("sluice-billing");
    Ok(Client::new(config)?)
}
