//! The role: what is built before the first byte is served, what runs, and in which order it stops.
//!
//! Shutdown, 30 s at most: not ready any more and DRAINING to the others → streams are told to go elsewhere → stop accepting,
//! GOAWAY, finish calls → hand the dispatched groups over → flush the producers and the usage windows → stop the tasks (the view
//! writes its snapshot) → heartbeat LEFT → close the internal listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::{Layer, ServiceBuilder};

use sluice_edge::Answering;
use sluice_edge::browsers::Origins;
use sluice_edge::failures::Failures;
use sluice_edge::service::EdgeService;
use sluice_process::{Error, Frame, Life, Listener, Manner, Process, Role, RoleConfig, Stops};
use sluice_proto::admin::v1::group_service_client::GroupServiceClient;
use sluice_proto::forward::Forward;
use sluice_proto::internal::control::v1::MemberPhase;
use sluice_proto::internal::control::v1::key_lookup_service_client::KeyLookupServiceClient;
use sluice_proto::internal::gateway::v1::peer_service_server::PeerServiceServer;
use sluice_proto::stream::v1::stream_service_server::StreamService;
use sluice_proto::{Audience, services};
use sluice_runtime::internal::{CallerSigner, RequireRole, SignedChannel, internal_channel};
use sluice_runtime::server::{ConnMetrics, Edge as EdgeLimits, RequestBody};
use sluice_runtime::tls::{InternalTls, RELOAD_INTERVAL, ReloadingTls};
use sluice_runtime::{Health, Metrics, TaskSet};
use sluice_types::Reason;
use sluice_types::api_key::HashKey;

use crate::auth::KeyLookup;
use crate::config::Config;
use crate::data::Data;
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

/// Time to tell gRPC health.
const SAY: Duration = Duration::from_secs(1);
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
/// Time to say that this gateway has left.
const LEAVE: Duration = Duration::from_secs(5);
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

/// The gateway as a process.
pub type App = Process<Gateway>;

/// A gateway, built and not yet running.
pub struct Gateway {
    public_addr: SocketAddr,
    internal_addr: SocketAddr,
    start: Box<dyn FnOnce(&Life) -> Stops + Send>,
}

impl Role for Gateway {
    const NAME: &'static str = crate::ROLE;
    const ABOUT: &'static str = "The data plane's public door";
    type Config = Config;
    type Addrs = Addrs;

    async fn build(config: Config, frame: &mut Frame) -> Result<Self, Error> {
        build_in(frame, config, Data::build).await
    }

    fn addrs(&self, admin: SocketAddr) -> Addrs {
        Addrs { public: self.public_addr, internal: self.internal_addr, admin }
    }

    fn start(self, life: &Life) -> Stops {
        (self.start)(life)
    }
}

/// A gateway with another data path, for tests of the edge.
///
/// # Errors
/// As [`Process::build`].
pub async fn build_with<D, F>(config: Config, data: impl FnOnce(DataParts) -> F) -> Result<App, Error>
where
    D: StreamService + DataPath,
    F: Future<Output = Result<Arc<D>, Box<dyn std::error::Error + Send + Sync>>>,
{
    let mut frame = Frame::new(crate::ROLE, "unknown", &config.common())?;
    let gateway = build_in(&mut frame, config, data).await?;
    Process::of(gateway, frame).await
}

/// What serves: all parts, and the sockets that nobody is answered on yet.
struct Parts<D> {
    config: Config,
    data: Arc<D>,
    hash_key: HashKey,
    public_tls: Option<ReloadingTls>,
    public: TcpListener,
    internal: TcpListener,
    internal_addr: SocketAddr,
    internal_tls: ReloadingTls,
    metrics: GatewayMetrics,
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

async fn build_in<D, F>(frame: &mut Frame, config: Config, data: impl FnOnce(DataParts) -> F) -> Result<Gateway, Error>
where
    D: StreamService + DataPath,
    F: Future<Output = Result<Arc<D>, Box<dyn std::error::Error + Send + Sync>>>,
{
    std::fs::create_dir_all(&config.data_dir).map_err(|error| Error::setup("make the data directory", error))?;
    let hash_key = config.key_hash_file.read_key().map_err(|error| Error::File("key_hash_file", error))?;
    let public_tls = config.tls.as_ref().map(ReloadingTls::load).transpose()?;
    let metrics = frame.metrics.register("gateway", GatewayMetrics::register);
    let boot_id = uuid::Uuid::now_v7().simple().to_string();
    let parts = DataParts {
        gateway_id: config.id.clone(),
        boot_id: boot_id.clone(),
        kafka: config.kafka.clone(),
        wire: frame.kafka.clone(),
        health: frame.health.clone(),
        metrics: frame.metrics.clone(),
        tasks: frame.tasks.clone(),
    };
    let data = data(parts).await.map_err(|error| Error::setup("set up the data path", error))?;
    let control_plane = internal_channel(&config.control_plane, &frame.internal_tls, "control-plane")?;
    let billing = internal_channel(&config.billing, &frame.internal_tls, "billing")?;
    let keys = ControlPlaneKeys(KeyLookupServiceClient::new(control_plane.clone()));
    let signer = CallerSigner::from(&frame.internal_tls);
    let published = Published::default();
    let groups = GroupsHalf::build(GroupsNeed {
        config: &config,
        boot_id: &boot_id,
        internal_tls: &frame.internal_tls,
        published: &published,
        tools: data.tools(),
        control_plane: SignedChannel::new(control_plane.clone(), signer.clone(), "control-plane"),
        audit: metrics.denials.sink(),
        metrics: &frame.metrics,
        tasks: &frame.tasks,
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
    let info = ServerInfos::new(published.applied.clone(), frame.commit);
    let (data_path, door, limit) = (Arc::clone(&data), groups.door.clone(), config.limits.body.bytes());
    let routes = Router::new(data_path, door, control, usage, info, limit);
    let (router, grpc_health) = routes.map_err(|error| Error::setup("set up the routes", error))?;
    let (public, public_addr) = frame.bind("public", config.public_listen.addr()).await?;
    let (internal, internal_addr) = frame.bind("internal", config.internal_listen.addr()).await?;
    let parts = Parts {
        config,
        data,
        hash_key: HashKey(hash_key),
        public_tls,
        public,
        internal,
        internal_addr,
        internal_tls: frame.internal_tls.server_tls()?,
        metrics,
        boot_id,
        router,
        grpc_health,
        keys,
        published,
        groups,
    };
    Ok(Gateway { public_addr, internal_addr, start: Box::new(|life| parts.start(life)) })
}

impl<D: StreamService + DataPath> Parts<D> {
    /// Serves; the stops drain.
    fn start(self, life: &Life) -> Stops {
        let Published { view, applied, freshness } = self.published;
        let GroupsHalf { door, dispatchers, owners, ack_keys } = self.groups;
        let advertised = self.config.internal_advertise.clone().unwrap_or_else(|| self.internal_addr.to_string());
        let heartbeats = Arc::new(Heartbeats::new(
            self.config.id.clone(),
            self.boot_id,
            advertised,
            applied.clone(),
            life.kafka.clone(),
        ));
        let tasks = &life.tasks;
        let stop = tasks.shutdown();
        let feed = Feed {
            view: Arc::clone(&view),
            applied: applied.clone(),
            freshness: freshness.clone(),
            readiness: Arc::clone(&self.data) as Arc<dyn crate::ports::TopicReadiness>,
            client: life.kafka.clone(),
            health: life.health.clone(),
            data_dir: self.config.data_dir.clone(),
            defaults: self.config.tenant_defaults.into(),
        };
        tasks.spawn_critical("control log", feed.run(stop.clone()));
        tasks.spawn_critical("heartbeats", Arc::clone(&heartbeats).run(stop.clone()));
        tasks.spawn_critical("members' log", members::tail::run(life.kafka.clone(), owners, stop.clone()));
        tasks.spawn("ticks", until(stop.clone(), freshness.clone().tick()));
        tasks.spawn("gauges", until(stop.clone(), gauges(self.metrics.clone(), applied.clone(), freshness.clone())));
        tasks.spawn("keys of ack ids", ack_keys.watch(RELOAD_INTERVAL, stop.clone()));
        if let Some(tls) = self.public_tls.clone() {
            tasks.spawn("certificates", tls.watch(RELOAD_INTERVAL, stop.clone()));
        }
        let serving =
            announce(freshness.clone(), Arc::clone(&heartbeats), life.health.clone(), self.grpc_health.clone());
        tasks.spawn("readiness", until(life.shutdown.clone(), serving));

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
        let stack = stack(parts, Answering::new(self.router)).into_service();
        let service = EdgeService { stack, audience: Audience::Tenant, origins };
        let edge = EdgeLimits {
            max_connections: self.config.limits.connections,
            max_connections_per_source: self.config.limits.connections_per_peer,
            h2_ping_interval: self.config.limits.ping_interval.get(),
            h2_ping_timeout: self.config.limits.ping_interval.get() / 2,
            ..EdgeLimits::default()
        };
        let metrics = self.metrics.connections.clone();
        let manner = Manner { tls: self.public_tls, edge, drain: DRAIN, metrics };
        let (closing, internal_stop) = (CancellationToken::new(), CancellationToken::new());
        let public = Listener::new("public", self.public, manner, service).start(closing.clone());
        let for_peers = ServeParts { local: Arc::clone(&dispatchers) as Arc<_>, view, applied };
        let peers = peers(self.internal, self.internal_tls, Peer(Arc::clone(&heartbeats)), for_peers);
        let internal = peers.start(internal_stop.clone());

        let (grpc_health, draining, data) = (self.grpc_health, Arc::clone(&heartbeats), self.data);
        Stops::new()
            .then("gRPC health", SAY, async move {
                set_grpc_health(&grpc_health, ServingStatus::NotServing).await;
            })
            .at_once("close the doors", move || {
                draining.set_phase(MemberPhase::Draining);
                door.close();
                closing.cancel();
            })
            .listener(public)
            .then("hand the groups over", HAND_OVER + Duration::from_secs(1), async move {
                dispatchers.shutdown(Instant::now() + HAND_OVER).await;
            })
            .then("flush the data path", FLUSH + Duration::from_secs(1), async move {
                data.shutdown(Instant::now() + FLUSH).await;
            })
            .tasks(tasks, TASKS_STOP)
            .then("leave", LEAVE, async move {
                if let Err(error) = heartbeats.leave().await {
                    tracing::warn!(%error, "could not leave; others will notice");
                }
            })
            .at_once("close the internal listener", move || internal_stop.cancel())
            .listener(internal)
    }
}

/// The listener for other gateways.
fn peers(socket: TcpListener, tls: ReloadingTls, peer: Peer, groups: ServeParts) -> Listener {
    let peers = RequireRole::new(PEER_ROLES).layer(PeerServiceServer::new(peer));
    let routes = Routes::new(peers).add_service(serve_groups::service(groups)).prepare();
    // A stream whose consumer has nothing to say is silent for long.
    let patient = ServiceBuilder::new()
        .map_request(|request: http::Request<RequestBody>| request.map(RequestBody::allow_idle))
        .service(routes);
    let edge = EdgeLimits { h2_max_streams: INTERNAL_STREAMS, ..EdgeLimits::internal() };
    let manner = Manner { tls: Some(tls), edge, drain: INTERNAL_DRAIN, metrics: ConnMetrics::default() };
    Listener::new("internal", socket, manner, patient)
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
    fn build(need: GroupsNeed<'_>) -> Result<Self, Error> {
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
        let ack_keys = Keys::load(need.config.ack_keys_file.clone());
        let ack_keys = ack_keys.map_err(|error| Error::setup("load the keys of ack ids", error))?;
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
