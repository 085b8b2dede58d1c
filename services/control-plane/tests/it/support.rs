//! A control plane of its own for each test, with the callers that its real neighbours would be.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_control_plane::{Addrs, App, Config, MIGRATIONS};
use sluice_devstack::{CONTROL_PLANE, Ca, Connection, free_ports, shared};
use sluice_installation::postgres::{Roles, bootstrap};
use sluice_proto::admin::v1::group_service_client::GroupServiceClient;
use sluice_proto::admin::v1::namespace_service_client::NamespaceServiceClient;
use sluice_proto::admin::v1::operation_service_client::OperationServiceClient;
use sluice_proto::admin::v1::service_account_service_client::ServiceAccountServiceClient;
use sluice_proto::admin::v1::tenant_service_client::TenantServiceClient;
use sluice_proto::admin::v1::topic_service_client::TopicServiceClient;
use sluice_proto::admin::v1::{
    ApiKey, CreateApiKeyRequest, CreateGroupRequest, CreateNamespaceRequest, CreateServiceAccountRequest,
    CreateTopicRequest, Group, Namespace, Role as ApiRole, RoleGrant, ServiceAccount, Topic,
};
use sluice_proto::google::longrunning::Operation;
use sluice_proto::google::longrunning::operation::Result as Outcome;
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::intent_service_client::IntentServiceClient;
use sluice_proto::internal::control::v1::key_lookup_service_client::KeyLookupServiceClient;
use sluice_proto::internal::control::v1::{ControlRecord, LookupKeyRequest};
use sluice_proto::operator::v1::tenants_service_client::TenantsServiceClient;
use sluice_proto::operator::v1::{CreateTenantRequest, IssueOwnerKeyRequest, Tenant};
use sluice_runtime::config::{DatabaseConfig, InternalTlsConfig, KafkaConfig, ListenAddr, SecretFile};
use sluice_runtime::fail_point::Testing;
use sluice_runtime::internal::{CallerSigner, SignedChannel, call_as, internal_channel};
use sluice_runtime::tls::InternalTls;
use sluice_types::{Credential, OpContext, Principal as TypesPrincipal, TenantScope};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Bound of what should happen soon, on a machine under load.
pub(crate) const SOON: Duration = Duration::from_secs(30);
const PASSWORD: &str = "for-tests";
const ROLE: &str = "control-plane";

/// A control plane with its own database and certificates.
pub(crate) struct Plant {
    pub(crate) connection: Connection,
    pub(crate) database: String,
    pub(crate) dir: tempfile::TempDir,
    ca: Ca,
    config: Config,
    addrs: Option<Addrs>,
    running: Option<Running>,
}

struct Running {
    health: sluice_runtime::Health,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// A database on the run's PostgreSQL, bootstrapped and migrated; its name.
pub(crate) async fn fresh_database(connection: &Connection) -> String {
    let postgres = connection.postgres().unwrap();
    let name = postgres.fresh_name("control").unwrap();
    allow(connection, &name).await;
    MIGRATIONS.apply(&url(connection, &name, "owner").into()).await.unwrap();
    name
}

/// Makes the database, unless it is there, and lets our roles use it.
async fn allow(connection: &Connection, database: &str) {
    let roles = Roles {
        service: "control",
        owner_password: PASSWORD.into(),
        app_password: PASSWORD.into(),
        system_password: PASSWORD.into(),
    };
    bootstrap(&connection.postgres().unwrap().url("postgres").into(), database, &roles).await.unwrap();
}

pub(crate) fn url(connection: &Connection, database: &str, part: &str) -> String {
    connection.postgres().unwrap().url_as(&format!("sluice_control_{part}"), PASSWORD, database)
}

impl Plant {
    /// On the run's shared stack, running.
    pub(crate) async fn start() -> Self {
        let mut plant = Self::prepare(shared().await.unwrap()).await;
        plant.run().await;
        plant
    }

    /// On a stack, not running yet.
    pub(crate) async fn prepare(connection: &Connection) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::load_or_create(&dir.path().join("ca")).unwrap();
        let database = fresh_database(connection).await;
        let kafka = connection.kafka().unwrap();
        let secret = |name: &str, text: &str| secret_file(dir.path(), name, text);
        let config = Config {
            instance: "control-plane-1".into(),
            environment: "test".into(),
            key_hash_secret_file: secret("key-hash", &"000102030405060708090a0b0c0d0e0f".repeat(2)),
            internal_listen: ListenAddr::loopback(0),
            operator_listen: ListenAddr::loopback(0),
            operator_plain: false,
            operator_token_file: dir.path().join("operator.token"),
            admin_listen: ListenAddr::loopback(0),
            admin_open: false,
            internal_tls: certificate(&ca, dir.path(), ROLE, "control-plane-1"),
            kafka: KafkaConfig {
                bootstrap: kafka.bootstrap.clone(),
                ca: kafka.ca_file.clone(),
                username: CONTROL_PLANE.into(),
                password_file: secret("kafka-password", kafka.password(CONTROL_PLANE).unwrap()),
            },
            clusters: Default::default(),
            database: DatabaseConfig {
                owner_url_file: Some(secret("owner-url", &url(connection, &database, "owner"))),
                app_url_file: secret("app-url", &url(connection, &database, "app")),
                system_url_file: secret("system-url", &url(connection, &database, "system")),
            },
            defaults: Default::default(),
            limits: Default::default(),
            tenant_defaults: Default::default(),
            internal_topics: Default::default(),
            control_log: Default::default(),
            telemetry: Default::default(),
            testing: Testing::default(),
        };
        Self { connection: connection.clone(), database, dir, ca, config, addrs: None, running: None }
    }

    /// The configuration, to be changed before it runs.
    pub(crate) fn config(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Starts in this process; returns when it serves and its log is there.
    pub(crate) async fn run(&mut self) {
        let app = App::build(self.config.clone()).await.unwrap();
        let (addrs, health, shutdown) = (app.addrs(), app.health(), CancellationToken::new());
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { app.run(stop).await.unwrap() });
        eventually("control plane ready", || async {
            health.is_ready() && health.component("control_log").is_some_and(|status| status.ok)
        })
        .await;
        self.addrs = Some(addrs);
        self.running = Some(Running { health, shutdown, task });
    }

    /// A copy of the database as it is now, which must not be in use.
    pub(crate) async fn backup(&self) -> String {
        let postgres = self.connection.postgres().unwrap();
        let name = postgres.fresh_name("backup").unwrap();
        postgres.database_from(&self.database, &name).await.unwrap();
        // A copy has the schema, and none of the rights on the database itself.
        allow(&self.connection, &name).await;
        name
    }

    /// Uses another database from the next start on.
    pub(crate) fn restore(&mut self, backup: String) {
        for part in ["owner", "app", "system"] {
            secret_file(self.dir.path(), &format!("{part}-url"), &url(&self.connection, &backup, part));
        }
        self.database = backup;
    }

    /// Another one on the same database, under another instance name.
    pub(crate) async fn sibling(&self, instance: &str) -> App {
        App::build(Config { instance: instance.into(), ..self.config.clone() }).await.unwrap()
    }

    /// Writes the configuration for a process of its own.
    pub(crate) fn write_config(&self, crash_at: Option<&str>) -> PathBuf {
        let mut config = self.config.clone();
        config.testing.crash_at = crash_at.map(str::to_owned);
        let path = self.dir.path().join("config.json");
        std::fs::write(&path, serde_json::to_string(&config).unwrap()).unwrap();
        path
    }

    /// An orderly shutdown.
    pub(crate) async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.shutdown.cancel();
        running.task.await.unwrap();
    }

    /// How the running one fares.
    pub(crate) fn health(&self) -> &sluice_runtime::Health {
        &self.running.as_ref().unwrap().health
    }

    pub(crate) fn addrs(&self) -> Addrs {
        self.addrs.unwrap()
    }

    /// Chooses ports, for a process of its own that the callers here must find.
    pub(crate) fn choose_ports(&mut self) {
        let ports = free_ports(3).unwrap();
        let at = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let addrs = Addrs { internal: at(ports[0]), operator: at(ports[1]), admin: at(ports[2]) };
        self.config.internal_listen = addrs.internal.into();
        self.config.operator_listen = addrs.operator.into();
        self.config.admin_listen = addrs.admin.into();
        self.addrs = Some(addrs);
    }

    /// Rows as the super user sees them, columns parted by `|`.
    pub(crate) async fn sql(&self, sql: &str) -> String {
        self.connection.postgres().unwrap().execute(&self.database, sql).await.unwrap()
    }

    fn tls(&self, role: &str) -> InternalTls {
        InternalTls::load(&certificate(&self.ca, self.dir.path(), role, &format!("{role}-1"))).unwrap()
    }

    /// A channel as one of our processes.
    pub(crate) fn channel(&self, role: &str) -> Channel {
        internal_channel(&self.addrs().internal.to_string(), &self.tls(role), ROLE).unwrap()
    }

    pub(crate) fn intents(&self) -> IntentServiceClient<Channel> {
        IntentServiceClient::new(self.channel("provisioning"))
    }

    pub(crate) fn lookup(&self) -> KeyLookupServiceClient<Channel> {
        KeyLookupServiceClient::new(self.channel("gateway"))
    }

    pub(crate) fn operator_token(&self) -> String {
        std::fs::read_to_string(&self.config.operator_token_file).unwrap().trim().to_owned()
    }

    pub(crate) fn operator_channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.addrs().operator)).unwrap().connect_lazy()
    }

    pub(crate) fn operator(&self) -> TenantsServiceClient<Channel> {
        TenantsServiceClient::new(self.operator_channel())
    }

    /// A request of the operator.
    pub(crate) fn as_operator<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.operator_token());
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        request
    }

    /// A new tenant with its owner.
    pub(crate) async fn tenant(&self, id: &str) -> Principal {
        let request =
            CreateTenantRequest { tenant_id: id.into(), tenant: Some(Tenant::default()), ..Default::default() };
        self.operator().create_tenant(self.as_operator(request)).await.unwrap();
        self.owner(id).await
    }

    /// The owner of a tenant, with a new key.
    pub(crate) async fn owner(&self, id: &str) -> Principal {
        let request = IssueOwnerKeyRequest { name: format!("tenants/{id}"), ..Default::default() };
        let key = self.operator().issue_owner_key(self.as_operator(request)).await.unwrap().into_inner();
        self.principal(&key).await
    }

    /// Whoever holds a key, as the gateway would know it.
    pub(crate) async fn principal(&self, key: &ApiKey) -> Principal {
        let key_id: sluice_types::KeyUid = key.uid.parse().unwrap();
        let request = LookupKeyRequest { key_id: key.uid.clone() };
        let records = self.lookup().lookup_key(request).await.unwrap().into_inner().records;
        let mut context = None;
        let (mut tenant, mut account) = (None, None);
        for ControlRecord { resource, .. } in records {
            match resource.unwrap() {
                Resource::Tenant(state) => tenant = Some(state),
                Resource::Account(state) => account = Some(state),
                Resource::Key(state) => assert_eq!(state.key_id, key.uid),
                other => panic!("{other:?}"),
            }
        }
        if let (Some(tenant), Some(account)) = (tenant, account) {
            context = Some(OpContext {
                tenant: TenantScope::from_verified(tenant.uid.parse().unwrap(), tenant.id.parse().unwrap()),
                principal: Arc::new(TypesPrincipal {
                    account: account.uid.parse().unwrap(),
                    account_id: account.id,
                    credential: Credential::ApiKey(key_id),
                    // The control plane must not believe these.
                    grants: Arc::new([]),
                }),
                deadline: Instant::now(),
                request_id: "test".into(),
                traceparent: None,
                peer: None,
            });
        }
        let tls = self.tls("gateway");
        let channel = internal_channel(&self.addrs().internal.to_string(), &tls, ROLE).unwrap();
        let channel = SignedChannel::new(channel, CallerSigner::from(&tls), ROLE);
        Principal { channel, context: context.unwrap(), key: key.clone() }
    }
}

/// A tenant's caller behind a gateway.
#[derive(Clone)]
pub(crate) struct Principal {
    channel: SignedChannel,
    context: OpContext,
    pub(crate) key: ApiKey,
}

impl Principal {
    /// A call of this principal.
    pub(crate) fn call<T>(&self, message: T) -> Request<T> {
        let context = OpContext { deadline: Instant::now() + Duration::from_secs(20), ..self.context.clone() };
        call_as(&context, message).unwrap()
    }

    pub(crate) fn tenant(&self) -> TenantServiceClient<SignedChannel> {
        TenantServiceClient::new(self.channel.clone())
    }

    pub(crate) fn namespaces(&self) -> NamespaceServiceClient<SignedChannel> {
        NamespaceServiceClient::new(self.channel.clone())
    }

    pub(crate) fn topics(&self) -> TopicServiceClient<SignedChannel> {
        TopicServiceClient::new(self.channel.clone())
    }

    pub(crate) fn groups(&self) -> GroupServiceClient<SignedChannel> {
        GroupServiceClient::new(self.channel.clone())
    }

    pub(crate) fn accounts(&self) -> ServiceAccountServiceClient<SignedChannel> {
        ServiceAccountServiceClient::new(self.channel.clone())
    }

    pub(crate) fn operations(&self) -> OperationServiceClient<SignedChannel> {
        OperationServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn make_namespace(&self, id: &str) -> Namespace {
        let request = CreateNamespaceRequest {
            namespace_id: id.into(),
            namespace: Some(Namespace::default()),
            ..Default::default()
        };
        let operation = self.namespaces().create_namespace(self.call(request)).await.unwrap().into_inner();
        response(&operation)
    }

    pub(crate) fn create_topic(&self, namespace: &str, id: &str, topic: Topic) -> Request<CreateTopicRequest> {
        self.call(CreateTopicRequest {
            parent: format!("namespaces/{namespace}"),
            topic_id: id.into(),
            topic: Some(topic),
            ..Default::default()
        })
    }

    pub(crate) fn create_group(&self, namespace: &str, id: &str, group: Group) -> Request<CreateGroupRequest> {
        self.call(CreateGroupRequest {
            parent: format!("namespaces/{namespace}"),
            group_id: id.into(),
            group: Some(group),
            ..Default::default()
        })
    }

    /// Another account of the tenant with these grants, and a key of it.
    pub(crate) async fn colleague(&self, plant: &Plant, id: &str, grants: &[(ApiRole, &str)]) -> Principal {
        let grants = grants
            .iter()
            .map(|(role, resource)| RoleGrant { role: *role as i32, resource: (*resource).into() })
            .collect();
        let request = CreateServiceAccountRequest {
            service_account_id: id.into(),
            service_account: Some(ServiceAccount { grants, ..Default::default() }),
            ..Default::default()
        };
        self.accounts().create_service_account(self.call(request)).await.unwrap();
        let key = self.make_key(id).await.unwrap();
        plant.principal(&key).await
    }

    pub(crate) async fn make_key(&self, account: &str) -> Result<ApiKey, Status> {
        let request = CreateApiKeyRequest {
            parent: format!("serviceAccounts/{account}"),
            api_key: Some(ApiKey::default()),
            ..Default::default()
        };
        self.accounts().create_api_key(self.call(request)).await.map(|response| response.into_inner())
    }
}

/// The resource of an operation that is done.
pub(crate) fn response<M: prost::Message + prost::Name + Default>(operation: &Operation) -> M {
    assert!(operation.done, "{operation:?}");
    match &operation.result {
        Some(Outcome::Response(any)) => any.unpack::<M>().unwrap().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The code of a call that must fail.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.unwrap_err().code()
}

fn certificate(ca: &Ca, dir: &Path, role: &str, instance: &str) -> InternalTlsConfig {
    let files = ca.issue_role(role, instance).unwrap().write(&dir.join("certificates"), instance).unwrap();
    InternalTlsConfig { ca: ca.cert_file(), cert: files.cert_file, key: files.key_file }
}

fn secret_file(dir: &Path, name: &str, text: &str) -> SecretFile {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    SecretFile::new(path)
}

/// Asks until it holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < SOON, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
