//! The role: what is built before the first byte is served, what runs, and in which order it stops.
//!
//! Shutdown: not ready any more; stop accepting and finish calls; jobs (the relay gives its lease back); the database. Every step
//! has a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_db::Turns;
use sluice_edge::metrics::CallMetrics;
use sluice_process::{Error, Frame, Life, Listener, Manner, Process, Role, Stops};
use sluice_proto::admin::v1::group_service_server::GroupServiceServer;
use sluice_proto::admin::v1::namespace_service_server::NamespaceServiceServer;
use sluice_proto::admin::v1::operation_service_server::OperationServiceServer;
use sluice_proto::admin::v1::service_account_service_server::ServiceAccountServiceServer;
use sluice_proto::admin::v1::tenant_service_server::TenantServiceServer;
use sluice_proto::admin::v1::topic_service_server::TopicServiceServer;
use sluice_proto::internal::control::v1::intent_service_server::IntentServiceServer;
use sluice_proto::internal::control::v1::key_lookup_service_server::KeyLookupServiceServer;
use sluice_proto::{Audience, FILE_DESCRIPTOR_SET};
use sluice_runtime::internal::{CallerLayer, CallerVerifier, RequireRole};
use sluice_runtime::server::{ConnMetrics, Edge};
use sluice_types::api_key::HashKey;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Layer as _;

use crate::api::Api;
use crate::api::operator::Operator;
use crate::api::operator_listener::operator_service;
use crate::config::Config;
use crate::domain::page::Pages;
use crate::jobs;
use crate::jobs::comparison::Comparison;
use crate::jobs::members::Members;
use crate::jobs::revisions::Revisions;
use crate::metrics::PlaneMetrics;
use crate::plane::{Plane, Scopes, Settings, SharedPlane, Wakes};
use crate::schema::{MIGRATIONS, check_served};
use crate::token;

/// The role, in certificates and caller tokens.
pub const ROLE: &str = "control-plane";
/// Those who may look up keys.
const GATEWAY: &[&str] = &["gateway"];
/// Those who may read intent and report.
const PROVISIONING: &[&str] = &["provisioning"];
const BARRIER_MAX: Duration = Duration::from_secs(2);
const OPERATION_WAIT: Duration = Duration::from_secs(3);
/// Connections of the system role besides those reserved for a purpose; one of them listens.
const SYSTEM_CONNECTIONS_MAX: u32 = 5;
const DRAIN: Duration = Duration::from_secs(10);
const JOBS_STOP: Duration = Duration::from_secs(5);
const DATABASE_CLOSE: Duration = Duration::from_secs(5);

/// The control plane as a process.
pub type App = Process<ControlPlane>;

/// The control plane, built and not yet running.
pub struct ControlPlane {
    plane: SharedPlane,
    internal: Listener,
    operator: Listener,
    internal_addr: SocketAddr,
    operator_addr: SocketAddr,
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addrs {
    /// `sluice.admin.v1` and `sluice.internal.control.v1`, mutual TLS.
    pub internal: SocketAddr,
    /// `sluice.operator.v1`, gRPC and HTTP.
    pub operator: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
}

impl Role for ControlPlane {
    const NAME: &'static str = ROLE;
    const ABOUT: &'static str = "Intent: tenants, namespaces, topics, accounts, keys";
    type Config = Config;
    type Addrs = Addrs;

    async fn build(config: Config, frame: &mut Frame) -> Result<Self, Error> {
        check_served(&[
            ("sluice.admin.v1.TenantService", Audience::Tenant),
            ("sluice.admin.v1.NamespaceService", Audience::Tenant),
            ("sluice.admin.v1.TopicService", Audience::Tenant),
            ("sluice.admin.v1.GroupService", Audience::Tenant),
            ("sluice.admin.v1.ServiceAccountService", Audience::Tenant),
            ("sluice.admin.v1.OperationService", Audience::Tenant),
            ("sluice.internal.control.v1.KeyLookupService", Audience::Internal),
            ("sluice.internal.control.v1.IntentService", Audience::Internal),
        ])?;
        let operator_token = token::load_or_create(&config.operator_token_file)?;
        let operator_metrics = frame.metrics.register("operator", CallMetrics::register);
        let (internal_listen, operator_listen) = (config.internal_listen.addr(), config.operator_listen.addr());
        let plane = plane(config, frame)?;

        let (socket, internal_addr) = frame.bind("internal", internal_listen).await?;
        let tls = Some(frame.internal_tls.server_tls()?);
        let manner = Manner { tls, edge: Edge::internal(), drain: DRAIN, metrics: ConnMetrics::default() };
        let internal = Listener::new("internal", socket, manner, internal_routes(&plane)?);

        let (socket, operator_addr) = frame.bind("operator", operator_listen).await?;
        let manner = Manner { tls: None, edge: Edge::admin(), drain: DRAIN, metrics: ConnMetrics::default() };
        let calls = operator_service(Operator { plane: plane.clone() }, &operator_token, operator_metrics);
        let calls = calls.map_err(|error| Error::setup("set up the operator's routes", error))?;
        let operator = Listener::new("operator", socket, manner, calls);
        Ok(Self { plane, internal, operator, internal_addr, operator_addr })
    }

    fn addrs(&self, admin: SocketAddr) -> Addrs {
        Addrs { internal: self.internal_addr, operator: self.operator_addr, admin }
    }

    fn start(self, life: &Life) -> Stops {
        let (plane, tasks) = (self.plane, &life.tasks);
        start_jobs(&plane, life);
        let (members, health) = (plane.clone(), life.health.clone());
        // Before it is known which gateways there are, no change could be told to hold on all of them.
        tasks.spawn(
            "readiness",
            until(tasks.shutdown(), async move {
                members.members.known().await;
                health.set_ready(true);
            }),
        );
        let internal = self.internal.start(life.shutdown.clone(), tasks);
        let operator = self.operator.start(life.shutdown.clone(), tasks);
        let (closing, stop_jobs) = (plane.closing.clone(), tasks.shutdown());
        Stops::new()
            .at_once("tell jobs and waiting calls", move || {
                stop_jobs.cancel();
                closing.cancel();
            })
            .listener(internal)
            .listener(operator)
            .tasks(tasks, JOBS_STOP)
            .then("database", DATABASE_CLOSE * 2, async move { plane.db.close(DATABASE_CLOSE).await })
    }
}

fn plane(config: Config, frame: &mut Frame) -> Result<SharedPlane, Error> {
    let hash_key = config.key_hash_secret_file.read_key();
    let hash_key = HashKey(hash_key.map_err(|error| Error::File("key_hash_secret_file", error))?);
    let (mut db, db_config) = frame.database(&config.database, &MIGRATIONS, |database| {
        database.system.connections_max = SYSTEM_CONNECTIONS_MAX;
    })?;
    let scopes = Scopes::reserve(&mut db, &db_config)?;
    Ok(Arc::new(Plane {
        db,
        scopes,
        turns: Turns::default(),
        pages: Pages::new(&hash_key.0),
        settings: Settings {
            holder: format!("{}/{}", config.instance, uuid::Uuid::now_v7().simple()),
            replication: config.internal_topics.replication,
            unknown: config.control_log.unknown,
            environment: config.environment,
            hash_key,
            limits: config.limits,
            defaults: config.defaults,
            tenant_defaults: config.tenant_defaults,
            barrier_max: BARRIER_MAX,
            operation_wait: OPERATION_WAIT,
        },
        wakes: Wakes::new(),
        revisions: Revisions::new(),
        members: Members::new(),
        comparison: Comparison::new(),
        metrics: frame.metrics.register("control", PlaneMetrics::register),
        fail_points: frame.fail_points.clone(),
        closing: CancellationToken::new(),
    }))
}

fn start_jobs(plane: &SharedPlane, life: &Life) {
    let (tasks, kafka, health) = (&life.tasks, &life.kafka, &life.health);
    let stop = || tasks.shutdown();
    let topics = jobs::system_topics::run(plane.clone(), kafka.clone(), health.clone(), stop());
    tasks.spawn_critical("system topics", topics);
    tasks.spawn_critical("relay", jobs::relay::run(plane.clone(), kafka.clone(), health.clone(), stop()));
    tasks.spawn_critical("members", jobs::members::run(plane.clone(), kafka.clone(), health.clone(), stop()));
    let log = jobs::control_log::run(plane.clone(), kafka.clone(), health.clone(), stop());
    tasks.spawn_critical("control log", log);
    tasks.spawn_critical("sweeper", jobs::sweep::run(plane.clone(), stop()));
    tasks.spawn_critical("notifications", jobs::watch::watch_notifications(plane.clone(), stop()));
    tasks.spawn_critical("health", jobs::watch::watch_health(plane.clone(), health.clone(), stop()));
}

async fn until(shutdown: CancellationToken, work: impl Future<Output = ()>) {
    let _ = shutdown.run_until_cancelled(work).await;
}

/// Tenants' calls behind the caller's token; our own processes' behind their role.
fn internal_routes(plane: &SharedPlane) -> Result<axum::Router, Error> {
    let api = Api { plane: plane.clone() };
    let caller = CallerLayer::new(CallerVerifier::new(ROLE));
    let routes = Routes::new(caller.layer(TenantServiceServer::new(api.clone())))
        .add_service(caller.layer(NamespaceServiceServer::new(api.clone())))
        .add_service(caller.layer(TopicServiceServer::new(api.clone())))
        .add_service(caller.layer(GroupServiceServer::new(api.clone())))
        .add_service(caller.layer(ServiceAccountServiceServer::new(api.clone())))
        .add_service(caller.layer(OperationServiceServer::new(api.clone())))
        .add_service(RequireRole::new(GATEWAY).layer(KeyLookupServiceServer::new(api.clone())))
        .add_service(RequireRole::new(PROVISIONING).layer(IntentServiceServer::new(api)));
    with_reflection(routes)
}

/// With gRPC health and reflection.
fn with_reflection(routes: Routes) -> Result<axum::Router, Error> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| Error::setup("prepare gRPC reflection", error))?;
    let (_, health) = tonic_health::server::health_reporter();
    Ok(routes.add_service(reflection).add_service(health).prepare().into_axum_router())
}
