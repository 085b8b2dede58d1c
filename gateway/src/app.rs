//! The process: what is built before the first byte is served, what runs, and in which order it stops.
//!
//! Shutdown, 30 s at most: not ready any more and DRAINING to the others → streams are told to go elsewhere → stop accepting,
//! GOAWAY, finish calls → hand the dispatched groups over → flush the producers and the usage windows → heartbeat LEFT → stop the tasks (the view writes its snapshot) → close the internal and
//! last of all the admin listener. Every step has a time, and a step that runs over does not stop the next one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::{Layer, ServiceBuilder};

use sluice_edge::browsers::Origins;
use sluice_edge::failures::Failures;
use sluice_edge::service::EdgeService;
use sluice_proto::admin::v1::group_service_client::GroupServiceClient;
use sluice_proto::forward::Forward;
use sluice_proto::internal::control::v1::MemberPhase;
use sluice_proto::internal::control::v1::key_lookup_service_client::KeyLookupServiceClient;
use sluice_proto::internal::gateway::v1::peer_service_server::PeerServiceServer;
use sluice_proto::stream::v1::stream_service_server::StreamService;
use sluice_proto::{Audience, services};
use sluice_runtime::config::KafkaConfig;
use sluice_runtime::internal::{CallerSigner, RequireRole, SignedChannel, internal_channel};
use sluice_runtime::server::{ConnInfo, Edge as EdgeLimits, RequestBody, bind, serve, serve_counted};
use sluice_runtime::tls::{InternalTls, RELOAD_INTERVAL, ReloadingTls};
use sluice_runtime::{AdminServer, Health, Metrics, TaskSet};
use sluice_types::Reason;
use sluice_types::api_key::HashKey;
use sluice_wire::{Client, ClientConfig, ScramSha512, Security};

use crate::auth::KeyLookup;
use crate::config::Config;
use crate::data::Data;
use crate::error::{BuildError, RunError};
use crate::forward::{ControlPlaneGroups, ControlPlaneKeys, ToService};
use crate::groups::ack_id::AckIds;
use crate::groups::dispatch::{DispatchParts, Dispatchers};
use crate::groups::door::dispatching::Dispatching;
use crate::groups::door::{Door, DoorMetrics, DoorParts, StreamLimits};
use crate::groups::keyring::Keys;
use crate::groups::owner::MemberOwners;
use crate::groups::remote::Remotes;
use crate::groups::serve::{self as serve_groups, ServeParts};
use crate::layers::audit::AuditSink;
use crate::layers::stack::{StackParts, stack};
use crate::members::{self, Heartbeats};
use crate::metrics::GatewayMetrics;
use crate::peer::{PEER_ROLES, Peer};
use crate::ports::{DataParts, DataPath, DataTools};
use crate::routes::Router;
use crate::server_info::ServerInfos;
use crate::view::View;
use crate::view::applied::Applied;
use crate::view::freshness::Freshness;
use crate::view::tail::Feed;

/// Time for calls in flight to end.
const DRAIN: Duration = Duration::from_secs(12);
/// Time to hand the dispatched groups over.
const HAND_OVER: Duration = Duration::from_secs(4);
/// Streams between two gateways on one connection: as many as consumers.
const INTERNAL_STREAMS: u32 = 20_000;
/// Time for the data path to flush.
const FLUSH: Duration = Duration::from_secs(7);
/// Time for the tasks to stop.
const TASKS_STOP: Duration = Duration::from_secs(3);
/// Time for calls of other gateways to end.
const INTERNAL_DRAIN: Duration = Duration::from_secs(1);
/// How often gauges are set.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addrs {
    /// Tenants: gRPC and HTTP.
    pub public: SocketAddr,
    /// Other gateways, mutual TLS.
    pub internal: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
}

/// A gateway, built and not yet running.
pub struct App<D: StreamService + DataPath> {
    config: Config,
    data: Arc<D>,
    kafka: Client,
    hash_key: HashKey,
    internal_tls: InternalTls,
    public_tls: Option<ReloadingTls>,
    public: TcpListener,
    internal: TcpListener,
    admin: AdminServer,
    addrs: Addrs,
    health: Health,
    metrics: GatewayMetrics,
    tasks: TaskSet,
    boot_id: String,
    router: Router<D>,
    grpc_health: HealthReporter,
    keys: ControlPlaneKeys,
    published: Published,
    groups: GroupsHalf,
}

/// What the control plane published, as far as it came.
#[derive(Clone, Default)]
struct Published {
    view: Arc<View>,
    applied: Applied,
    freshness: Freshness,
}

/// Consumer groups: the door, and what is dispatched here.
struct GroupsHalf {
    door: Door,
    dispatchers: Arc<Dispatchers>,
    owners: Arc<MemberOwners>,
    ack_keys: Keys,
}

impl App<Data> {
    /// Reads secrets, binds listeners. Waits for nobody: Kafka and the control plane may come later.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        Self::build_with(config, Data::build).await
    }
}

impl<D: StreamService + DataPath> App<D> {
    /// The same with another data path, for tests of the edge.
    pub async fn build_with<F>(config: Config, data: impl FnOnce(DataParts) -> F) -> Result<Self, BuildError>
    where
        F: Future<Output = Result<Arc<D>, Box<dyn std::error::Error + Send + Sync>>>,
    {
        std::fs::create_dir_all(&config.data_dir)?;
        let hash_key = HashKey(config.key_hash_file.read_key()?);
        let internal_tls = InternalTls::load(&config.internal_tls)?;
        let public_tls = config.tls.as_ref().map(ReloadingTls::load).transpose()?;
        let kafka = kafka_client(&config.kafka)?;
        let health = Health::new();
        let registry = Metrics::new();
        let metrics = registry.register("gateway", GatewayMetrics::register);
        let boot_id = uuid::Uuid::now_v7().simple().to_string();
        let tasks = TaskSet::new(crate::ROLE, CancellationToken::new());
        let parts = DataParts {
            gateway_id: config.id.clone(),
            boot_id: boot_id.clone(),
            kafka: config.kafka.clone(),
            wire: kafka.clone(),
            health: health.clone(),
            metrics: registry.clone(),
            tasks: tasks.clone(),
        };
        let data = data(parts).await.map_err(BuildError::Data)?;
        let control_plane = internal_channel(&config.control_plane, &internal_tls, "control-plane")?;
        let billing = internal_channel(&config.billing, &internal_tls, "billing")?;
        let keys = ControlPlaneKeys(KeyLookupServiceClient::new(control_plane.clone()));
        let signer = CallerSigner::from(&internal_tls);
        let published = Published::default();
        let groups = GroupsHalf::build(GroupsNeed {
            config: &config,
            boot_id: &boot_id,
            internal_tls: &internal_tls,
            published: &published,
            tools: data.tools(),
            control_plane: SignedChannel::new(control_plane.clone(), signer.clone(), "control-plane"),
            audit: metrics.denials.sink(),
            metrics: &registry,
            tasks: &tasks,
        })?;
        let control = Forward::new(ToService {
            channel: control_plane,
            signer: signer.clone(),
            audience: "control-plane",
            decides_by_grants: false,
            unavailable: Reason::ControlPlaneUnavailable,
        });
        let usage = Forward::new(ToService {
            channel: billing,
            signer,
            audience: "billing",
            decides_by_grants: true,
            unavailable: Reason::BillingUnavailable,
        });
        let info = ServerInfos::new(published.applied.clone());
        let (router, grpc_health) =
            Router::new(Arc::clone(&data), groups.door.clone(), control, usage, info, config.limits.body.bytes())?;
        let public = bind(config.public_listen.addr()).await?;
        let internal = bind(config.internal_listen.addr()).await?;
        let admin =
            AdminServer::bind(config.admin_listen.addr(), health.clone(), registry, axum::Router::new()).await?;
        let addrs = Addrs { public: public.local_addr()?, internal: internal.local_addr()?, admin: admin.local_addr() };
        Ok(Self {
            config,
            data,
            kafka,
            hash_key,
            internal_tls,
            public_tls,
            public,
            internal,
            admin,
            addrs,
            health,
            metrics,
            tasks,
            boot_id,
            router,
            grpc_health,
            keys,
            published,
            groups,
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

    /// Serves until the shutdown, then drains.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let admin_stop = CancellationToken::new();
        let admin = tokio::spawn(self.admin.run(admin_stop.clone()));

        let Published { view, applied, freshness } = self.published;
        let GroupsHalf { door, dispatchers, owners, ack_keys } = self.groups;
        let advertised = self.config.internal_advertise.clone().unwrap_or_else(|| self.addrs.internal.to_string());
        let heartbeats = Arc::new(Heartbeats::new(
            self.config.id.clone(),
            self.boot_id,
            advertised,
            applied.clone(),
            self.kafka.clone(),
        ));
        let tasks = self.tasks;
        let stop = tasks.shutdown();
        let feed = Feed {
            view: Arc::clone(&view),
            applied: applied.clone(),
            freshness: freshness.clone(),
            readiness: Arc::clone(&self.data) as Arc<dyn crate::ports::TopicReadiness>,
            client: self.kafka.clone(),
            health: self.health.clone(),
            data_dir: self.config.data_dir.clone(),
            defaults: self.config.tenant_defaults.into(),
        };
        tasks.spawn_critical("control log", feed.run(stop.clone()));
        tasks.spawn_critical("heartbeats", Arc::clone(&heartbeats).run(stop.clone()));
        tasks.spawn_critical("members' log", members::tail::run(self.kafka.clone(), owners, stop.clone()));
        tasks.spawn("ticks", until(stop.clone(), freshness.clone().tick()));
        tasks.spawn("gauges", until(stop.clone(), gauges(self.metrics.clone(), applied.clone(), freshness.clone())));
        tasks.spawn("keys of ack ids", ack_keys.watch(RELOAD_INTERVAL, stop.clone()));
        if let Some(tls) = self.public_tls.clone() {
            tasks.spawn("certificates", tls.watch(RELOAD_INTERVAL, stop.clone()));
        }
        let serving =
            announce(freshness.clone(), Arc::clone(&heartbeats), self.health.clone(), self.grpc_health.clone());
        tasks.spawn("readiness", until(stop.clone(), serving));

        let parts = StackParts {
            view: Arc::clone(&view),
            applied: applied.clone(),
            freshness,
            hash_key: self.hash_key,
            lookup: KeyLookup::new(Arc::new(self.keys), Arc::clone(&view), self.metrics.lookups.clone()),
            failures: Failures::new(
                self.config.limits.failed_authentications_per_second,
                self.config.limits.failed_authentications_burst,
            ),
            audit: self.metrics.denials.sink(),
            metrics: self.metrics.calls.clone(),
            calls_max: self.config.limits.calls,
            calls_per_peer_max: self.config.limits.calls_per_peer,
            body_bytes_max: self.config.limits.body.bytes(),
            in_flight_bytes_max: self.config.limits.in_flight.bytes(),
        };
        let origins = Origins::new(&self.config.browser_origins);
        let stack = stack(parts, self.router).into_service();
        let service = EdgeService { stack, audience: Audience::Tenant, origins };
        let internal_stop = CancellationToken::new();
        let for_peers = ServeParts { local: Arc::clone(&dispatchers) as Arc<_>, view, applied };
        let peer = Peer(Arc::clone(&heartbeats));
        let internal = serve_peers(self.internal, &self.internal_tls, peer, for_peers, internal_stop.clone())?;
        let closing = CancellationToken::new();
        let edge = EdgeLimits {
            max_connections: self.config.limits.connections,
            max_connections_per_source: self.config.limits.connections_per_peer,
            ..EdgeLimits::default()
        };
        let (make, counts) = (move |_: &ConnInfo| service.clone(), self.metrics.connections.clone());
        let public =
            tokio::spawn(serve_counted(self.public, self.public_tls, edge, make, closing.clone(), DRAIN, counts));

        tokio::select! {
            () = shutdown.cancelled() => {}
            // A critical task ended.
            () = stop.cancelled() => {}
        }
        let began = Instant::now();
        self.health.set_ready(false);
        set_grpc_health(&self.grpc_health, ServingStatus::NotServing).await;
        heartbeats.set_phase(MemberPhase::Draining);
        door.close();
        closing.cancel();
        match public.await {
            Ok(report) => tracing::info!(?report, "public listener closed"),
            Err(error) => tracing::error!(%error, "public listener"),
        }
        let handed_over = dispatchers.shutdown(Instant::now() + HAND_OVER);
        if tokio::time::timeout(HAND_OVER + Duration::from_secs(1), handed_over).await.is_err() {
            tracing::error!("the groups were not handed over in time");
        }
        let flushed = self.data.shutdown(Instant::now() + FLUSH);
        if tokio::time::timeout(FLUSH + Duration::from_secs(1), flushed).await.is_err() {
            tracing::error!("the data path did not flush in time");
        }
        let failure = tasks.failure();
        stop.cancel();
        let drained = tasks.drain(TASKS_STOP).await;
        if let Err(error) = heartbeats.leave().await {
            tracing::warn!(%error, "could not leave; others will notice");
        }
        internal_stop.cancel();
        if let Err(error) = internal.await {
            tracing::warn!(%error, "internal listener");
        }
        tracing::info!(took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), "drained");
        admin_stop.cancel();
        if let Err(error) = admin.await {
            tracing::warn!(%error, "admin listener");
        }
        failure.or(drained.failure).map_or(Ok(()), |reason| Err(RunError::Task(reason)))
    }
}

fn serve_peers(
    listener: TcpListener,
    tls: &InternalTls,
    peer: Peer,
    groups: ServeParts,
    stop: CancellationToken,
) -> Result<tokio::task::JoinHandle<sluice_runtime::server::ServeReport>, RunError> {
    let tls = tls.server_tls().map_err(|error| RunError::Task(format!("internal listener: {error}")))?;
    let peers = RequireRole::new(PEER_ROLES).layer(PeerServiceServer::new(peer));
    let routes = Routes::new(peers).add_service(serve_groups::service(groups)).prepare();
    // A stream whose consumer has nothing to say is silent for long.
    let patient = ServiceBuilder::new()
        .map_request(|request: http::Request<RequestBody>| request.map(RequestBody::allow_idle))
        .service(routes);
    let edge = EdgeLimits { h2_max_streams: INTERNAL_STREAMS, ..EdgeLimits::internal() };
    let served = serve(listener, Some(tls), edge, move |_| patient.clone(), stop, INTERNAL_DRAIN);
    Ok(tokio::spawn(served))
}

/// What the groups' half is built from.
struct GroupsNeed<'a> {
    config: &'a Config,
    boot_id: &'a str,
    internal_tls: &'a InternalTls,
    published: &'a Published,
    tools: DataTools,
    control_plane: SignedChannel,
    audit: Arc<dyn AuditSink>,
    metrics: &'a Metrics,
    tasks: &'a TaskSet,
}

impl GroupsHalf {
    fn build(need: GroupsNeed<'_>) -> Result<Self, BuildError> {
        let gateway_id: Arc<str> = need.config.id.as_str().into();
        let owners = MemberOwners::new(Arc::clone(&gateway_id), need.boot_id.into());
        let dispatchers = Dispatchers::start(DispatchParts {
            gateway_id: Arc::clone(&gateway_id),
            boot_id: need.boot_id.into(),
            wire: need.tools.wire.clone(),
            reader: need.tools.reader.clone(),
            sink: Arc::clone(&need.tools.sink),
            meter: need.tools.meter.clone(),
            view: Arc::clone(&need.published.view),
            owners: Arc::clone(&owners),
            metrics: need.metrics.clone(),
            tasks: need.tasks.clone(),
        });
        let ack_keys = Keys::load(need.config.ack_keys_file.clone())?;
        let remotes = Remotes::new(need.internal_tls.clone(), Arc::clone(&gateway_id), need.published.applied.clone());
        let limits = &need.config.limits;
        let door = Door::new(DoorParts {
            gateway_id,
            dispatching: Dispatching {
                local: Arc::clone(&dispatchers) as Arc<_>,
                owners: Arc::clone(&owners) as Arc<_>,
                peers: Arc::new(remotes),
            },
            ack_ids: AckIds::new(ack_keys.clone()),
            tools: need.tools,
            maker: Arc::new(ControlPlaneGroups(GroupServiceClient::new(need.control_plane))),
            audit: need.audit,
            metrics: need.metrics.register("door", DoorMetrics::register),
            streams: StreamLimits { all: limits.streams, per_tenant: limits.streams_per_tenant },
            tasks: need.tasks.clone(),
        });
        Ok(Self { door, dispatchers, owners, ack_keys })
    }
}

/// Tells everybody when the view can be served.
async fn announce(freshness: Freshness, heartbeats: Arc<Heartbeats>, health: Health, grpc_health: HealthReporter) {
    freshness.servable().await;
    health.set_ready(true);
    heartbeats.set_phase(MemberPhase::Serving);
    set_grpc_health(&grpc_health, ServingStatus::Serving).await;
    tracing::info!("serving");
}

async fn set_grpc_health(reporter: &HealthReporter, status: ServingStatus) {
    for service in services(Audience::Tenant).into_iter().chain([""]) {
        reporter.set_service_status(service, status).await;
    }
}

async fn gauges(metrics: GatewayMetrics, applied: Applied, freshness: Freshness) {
    let mut interval = tokio::time::interval(GAUGES_EVERY);
    loop {
        interval.tick().await;
        metrics.view.applied.set(applied.revision().map_or(-1, |revision| revision.offset));
        let age = freshness.age().map_or(-1, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        metrics.view.age_ms.set(age);
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    stop.run_until_cancelled(work).await;
}

fn kafka_client(config: &KafkaConfig) -> Result<Client, BuildError> {
    let sasl = ScramSha512 { user: config.username.clone(), password: config.password()? };
    let security = Security { tls: Some(config.rustls_client_config()?), sasl: Some(sasl) };
    let config = ClientConfig::new(config.bootstrap.clone()).with_security(security).with_client_id("sluice-gateway");
    Ok(Client::new(config)?)
}
