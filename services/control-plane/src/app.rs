//! The process: what is built before the first byte is served, what runs, and in which order it stops.
//!
//! Shutdown: not ready any more; stop accepting and finish calls; jobs (the relay gives its lease back); the database; last
//! of all the admin listener. Every step has a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use sluice_db::{Database, DbConfig, Turns};
use sluice_edge::metrics::CallMetrics;
use sluice_proto::admin::v1::group_service_server::GroupServiceServer;
use sluice_proto::admin::v1::namespace_service_server::NamespaceServiceServer;
use sluice_proto::admin::v1::operation_service_server::OperationServiceServer;
use sluice_proto::admin::v1::service_account_service_server::ServiceAccountServiceServer;
use sluice_proto::admin::v1::tenant_service_server::TenantServiceServer;
use sluice_proto::admin::v1::topic_service_server::TopicServiceServer;
use sluice_proto::internal::control::v1::intent_service_server::IntentServiceServer;
use sluice_proto::internal::control::v1::key_lookup_service_server::KeyLookupServiceServer;
use sluice_proto::{Audience, FILE_DESCRIPTOR_SET};
use sluice_runtime::config::KafkaConfig;
use sluice_runtime::internal::{CallerLayer, CallerVerifier, RequireRole};
use sluice_runtime::server::{Edge, bind, serve};
use sluice_runtime::tls::{InternalTls, ReloadingTls};
use sluice_runtime::{AdminServer, ComponentStatus, FailPoints, Health, TaskSet};
use sluice_types::api_key::HashKey;
use sluice_wire::{Client, ClientConfig, ScramSha512, Security};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Layer as _;

use crate::api::Api;
use crate::api::operator::Operator;
use crate::api::operator_listener::operator_service;
use crate::config::{Config, FAIL_POINTS};
use crate::domain::page::Pages;
use crate::error::AppError;
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

/// The control plane, built and not yet running.
pub struct App {
    plane: SharedPlane,
    kafka: Client,
    owner_url: Option<SecretString>,
    operator_token: SecretString,
    operator_metrics: CallMetrics,
    server_tls: ReloadingTls,
    internal: TcpListener,
    operator: TcpListener,
    admin: AdminServer,
    addrs: Addrs,
    health: Health,
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

impl App {
    /// Reads secrets, checks what will be served, binds listeners. Waits for nobody: Kafka and PostgreSQL may come later.
    pub async fn build(config: Config) -> Result<Self, AppError> {
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
        let secret =
            |what, file: &sluice_runtime::config::SecretFile| file.read().map_err(|error| AppError::File(what, error));
        let hash_key = config.key_hash_secret_file.read_key();
        let hash_key = HashKey(hash_key.map_err(|error| AppError::File("key_hash_secret_file", error))?);
        let app_url = secret("database.app_url_file", &config.database.app_url_file)?;
        let system_url = secret("database.system_url_file", &config.database.system_url_file)?;
        let owner_url =
            config.database.owner_url_file.as_ref().map(|file| secret("database.owner_url_file", file)).transpose()?;
        let operator_token = token::load_or_create(&config.operator_token_file)?;
        let server_tls = InternalTls::load(&config.internal_tls)?.server_tls()?;
        let kafka = kafka_client(&config.kafka)?;
        let health = Health::new();
        health.require("database");
        let registry = sluice_runtime::Metrics::new();
        let operator_metrics = registry.register("operator", CallMetrics::register);
        let mut database = DbConfig::new("sluice-control-plane", app_url, system_url);
        database.system.connections_max = SYSTEM_CONNECTIONS_MAX;
        let mut db = Database::open(&database)?;
        let scopes = Scopes::reserve(&mut db, &database)?;
        let plane = Arc::new(Plane {
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
            metrics: registry.register("control", PlaneMetrics::register),
            fail_points: FailPoints::new(&FAIL_POINTS, config.testing.crash_at),
            closing: CancellationToken::new(),
        });
        let internal = listener("internal", config.internal_listen.addr()).await?;
        let operator = listener("operator", config.operator_listen.addr()).await?;
        let admin = AdminServer::bind(config.admin_listen.addr(), health.clone(), registry, axum::Router::new()).await;
        let admin = admin.map_err(|error| AppError::Bind("admin", error))?;
        let addrs = Addrs {
            internal: internal.local_addr().map_err(|error| AppError::Bind("internal", error))?,
            operator: operator.local_addr().map_err(|error| AppError::Bind("operator", error))?,
            admin: admin.local_addr(),
        };
        Ok(Self {
            plane,
            kafka,
            owner_url,
            operator_token,
            operator_metrics,
            server_tls,
            internal,
            operator,
            admin,
            addrs,
            health,
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

    /// Serves until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), AppError> {
        let admin_stop = CancellationToken::new();
        let admin = tokio::spawn(self.admin.run(admin_stop.clone()));
        let running = Running {
            plane: self.plane,
            kafka: self.kafka,
            owner_url: self.owner_url,
            operator_token: self.operator_token,
            operator_metrics: self.operator_metrics,
            server_tls: self.server_tls,
            health: self.health,
        };
        let outcome = running.run(self.internal, self.operator, shutdown).await;
        admin_stop.cancel();
        if let Err(error) = admin.await {
            tracing::warn!(%error, "admin listener");
        }
        outcome
    }
}

struct Running {
    plane: SharedPlane,
    kafka: Client,
    owner_url: Option<SecretString>,
    operator_token: SecretString,
    operator_metrics: CallMetrics,
    server_tls: ReloadingTls,
    health: Health,
}

impl Running {
    async fn run(
        self,
        internal: TcpListener,
        operator: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), AppError> {
        if !self.migrate(&shutdown).await? {
            return Ok(());
        }
        let internal_routes = internal_routes(&self.plane)?;
        let operator_calls = Operator { plane: self.plane.clone() };
        let operator_calls = operator_service(operator_calls, &self.operator_token, self.operator_metrics.clone())?;
        let tasks = TaskSet::new(ROLE, shutdown.clone());
        self.start_jobs(&tasks);
        let (members, health) = (self.plane.clone(), self.health.clone());
        // Before it is known which gateways there are, no change could be told to hold on all of them.
        tasks.spawn(
            "readiness",
            until_shutdown(tasks.shutdown(), async move {
                members.members.known().await;
                health.set_ready(true);
            }),
        );
        let calls = serve(
            internal,
            Some(self.server_tls.clone()),
            Edge::internal(),
            move |_| internal_routes.clone(),
            shutdown.clone(),
            DRAIN,
        );
        let operator_calls =
            serve(operator, None, Edge::admin(), move |_| operator_calls.clone(), shutdown.clone(), DRAIN);
        let not_ready = async {
            shutdown.cancelled().await;
            self.health.set_ready(false);
            self.plane.closing.cancel();
        };
        let (calls, operator_calls, ()) = tokio::join!(calls, operator_calls, not_ready);
        tracing::info!(?calls, ?operator_calls, "listeners closed");
        let drained = tasks.drain(JOBS_STOP).await;
        self.plane.db.close(DATABASE_CLOSE).await;
        drained.failure.map_or(Ok(()), |reason| Err(AppError::Task(reason)))
    }

    /// Brings the schema up to date as soon as the database answers; false when the shutdown came first.
    async fn migrate(&self, shutdown: &CancellationToken) -> Result<bool, AppError> {
        let Some(owner_url) = &self.owner_url else { return Ok(true) };
        let waiting = || self.health.set_component("database", ComponentStatus::failing("waiting to migrate"));
        Ok(MIGRATIONS.apply_when_possible(owner_url, shutdown, waiting).await?)
    }

    fn start_jobs(&self, tasks: &TaskSet) {
        let stop = || tasks.shutdown();
        let (plane, kafka, health) = (&self.plane, &self.kafka, &self.health);
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
}

async fn until_shutdown(shutdown: CancellationToken, work: impl Future<Output = ()>) {
    let _ = shutdown.run_until_cancelled(work).await;
}

/// Tenants' calls behind the caller's token; our own processes' behind their role.
fn internal_routes(plane: &SharedPlane) -> Result<axum::Router, AppError> {
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
fn with_reflection(routes: Routes) -> Result<axum::Router, AppError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| AppError::Reflection(error.to_string()))?;
    let (_, health) = tonic_health::server::health_reporter();
    Ok(routes.add_service(reflection).add_service(health).prepare().into_axum_router())
}

async fn listener(name: &'static str, addr: SocketAddr) -> Result<TcpListener, AppError> {
    bind(addr).await.map_err(|error| AppError::Bind(name, error))
}

fn kafka_client(config: &KafkaConfig) -> Result<Client, AppError> {
    let password = config.password().map_err(|error| AppError::File("kafka.password_file", error))?;
    let security = Security {
        tls: Some(config.rustls_client_config()?),
        sasl: Some(ScramSha512 { user: config.username.clone(), password }),
    };
    let client =
        ClientConfig::new(config.bootstrap.clone()).with_security(security).with_client_id("sluice-control-plane");
    Ok(Client::new(client)?)
}
