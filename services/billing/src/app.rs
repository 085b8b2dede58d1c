//! The role: what is built before the first byte is served, what runs, and in which order it stops.
//!
//! Shutdown: not ready any more, stop accepting and finish calls, let the feeds finish their transaction, close the
//! database. Every step has a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_db::Database;
use sluice_process::{Error, Frame, Life, Listener, Manner, Process, Role, Stops};
use sluice_proto::billing::v1::usage_service_server::UsageServiceServer;
use sluice_runtime::internal::{CallerLayer, CallerVerifier};
use sluice_runtime::server::{ConnMetrics, Edge};
use sluice_runtime::{FailPoints, Health, TaskSet};
use sluice_wire::Client;
use tonic::service::Routes;
use tower::Layer as _;

use crate::api::usage::Usage;
use crate::config::Config;
use crate::domain::page_token::TokenKey;
use crate::jobs::coverage_watch::CoverageWatch;
use crate::jobs::log_feed::{FeedError, LogFeed};
use crate::jobs::{control_feed, source_watch, usage_feed};
use crate::log_ends::LogEnds;
use crate::metrics::Metrics;
use crate::store::log_position::Log;
use crate::store::migrations::MIGRATIONS;

/// The role, in certificates and caller tokens.
pub const ROLE: &str = "billing";
const DRAIN: Duration = Duration::from_secs(10);
const FEEDS_STOP: Duration = Duration::from_secs(8);
const DATABASE_CLOSE: Duration = Duration::from_secs(5);

/// Billing as a process.
pub type App = Process<Billing>;

/// Billing, built and not yet running.
pub struct Billing {
    internal: Listener,
    internal_addr: SocketAddr,
    jobs: Jobs,
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addrs {
    /// `sluice.billing.v1`, mutual TLS.
    pub internal: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
}

impl Role for Billing {
    const NAME: &'static str = ROLE;
    const ABOUT: &'static str = "Usage";
    type Config = Config;
    type Addrs = Addrs;

    async fn build(config: Config, frame: &mut Frame) -> Result<Self, Error> {
        let (database, _) = frame.database(&config.database, &MIGRATIONS, |_| {})?;
        let token_key = config.page_token_key_file.read_key();
        let token_key = TokenKey::new(token_key.map_err(|error| Error::File("page_token_key_file", error))?);
        let ends = LogEnds::from(&frame.clusters);
        let api = Usage::new(database.clone(), ends.clone(), token_key);
        let caller = CallerLayer::new(CallerVerifier::new(ROLE));
        let routes = Routes::new(caller.layer(UsageServiceServer::new(api))).prepare();
        let (socket, internal_addr) = frame.bind("internal", config.internal_listen.addr()).await?;
        let tls = Some(frame.internal_tls.server_tls()?);
        let manner = Manner { tls, edge: Edge::internal(), drain: DRAIN, metrics: ConnMetrics::default() };
        let jobs = Jobs {
            database,
            kafka: frame.kafka.clone(),
            ends,
            fail_points: frame.fail_points.clone(),
            health: frame.health.clone(),
            metrics: frame.metrics.register(ROLE, Metrics::register),
        };
        Ok(Self { internal: Listener::new("internal", socket, manner, routes), internal_addr, jobs })
    }

    fn addrs(&self, admin: SocketAddr) -> Addrs {
        Addrs { internal: self.internal_addr, admin }
    }

    fn start(self, life: &Life) -> Stops {
        let (database, tasks) = (self.jobs.database.clone(), &life.tasks);
        life.check_kafka();
        life.check_database(database.clone());
        self.jobs.start(tasks);
        let internal = self.internal.start(life.shutdown.clone());
        life.health.set_ready(true);
        let stop_feeds = tasks.shutdown();
        Stops::new()
            .at_once("tell the feeds", move || stop_feeds.cancel())
            .listener(internal)
            .tasks(tasks, FEEDS_STOP)
            .then("database", DATABASE_CLOSE * 2, async move { database.close(DATABASE_CLOSE).await })
    }
}

/// What goes on beside the calls.
struct Jobs {
    database: Database,
    kafka: Client,
    ends: LogEnds,
    fail_points: FailPoints,
    health: Health,
    metrics: Metrics,
}

impl Jobs {
    fn start(&self, tasks: &TaskSet) {
        let stop = tasks.shutdown();
        let names =
            self.feed(control_feed::LOG, "control-feed", control_feed::NameSink::new(self.database.system().clone()));
        tasks.spawn_critical("control feed", control_feed::follow(names, stop.clone()));
        tasks.spawn_critical("usage feeds", self.start_usage_feeds(tasks));
        let watch = source_watch::run(self.database.clone(), self.health.clone(), self.metrics.clone(), stop.clone());
        tasks.spawn_critical("source watch", watch);
        let coverage = CoverageWatch::new(self.database.clone(), self.ends.clone());
        tasks.spawn_critical("coverage watch", coverage.run(self.health.clone(), self.metrics.clone(), stop));
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
