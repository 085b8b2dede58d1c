//! A Kafka with the internal topics, a control plane, a tenant to publish, and gateways to start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prost::Message;
use tokio_util::sync::CancellationToken;

use sluice_devstack::{ADMIN, GATEWAY, Stack};
use sluice_gateway::{Addrs, App, Config, Error};
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{
    AccountState, ControlRecord, Grant, GroupState, KeyState, Life, LogComplete, MemberHeartbeat, NamespaceState,
    TenantState, TopicState,
};
use sluice_proto::internal::usage::v1::UsageWindow;
use sluice_runtime::Health;
use sluice_runtime::config::{InternalTlsConfig, KafkaConfig, SecretFile, parse};
use sluice_runtime::tls::InternalTls;
use sluice_types::api_key::{ApiKey, HashKey};
use sluice_types::physical::{CONTROL_COMPLETE_KEY, CONTROL_TOPIC, MEMBERS_TOPIC, PhysicalTopic, USAGE_TOPIC};
use sluice_types::{AccountUid, GroupUid, NamespaceUid, TenantUid, TopicUid};
use sluice_wire::{
    Client, ClientConfig, ConfigChange, LogTail, NewTopic, OffsetAt, OutRecord, ScramSha512, Security, TailOptions,
};

use crate::control_plane::ControlPlane;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// `00 01 02 …`: only what nobody could have drawn at random is refused.
const KEY: [u8; 32] = {
    let mut key = [0; 32];
    let mut i = 0;
    while i < 32 {
        key[i] = i as u8;
        i += 1;
    }
    key
};

pub(crate) struct World {
    pub(crate) stack: Stack,
    pub(crate) kafka: Client,
    pub(crate) control_plane: Option<ControlPlane>,
    dir: tempfile::TempDir,
    tls: PathBuf,
    control_plane_addr: SocketAddr,
}

impl World {
    pub(crate) async fn new() -> Self {
        sluice_runtime::tls::install_crypto_provider();
        let stack = Stack::builder().without_postgres().build().await.expect("Kafka");
        let dir = tempfile::tempdir().expect("directory");
        let tls = dir.path().join("tls");
        for role in ["gateway", "control-plane"] {
            stack.ca().issue_role(role, role).expect("certificate").write(&tls, role).expect("files");
        }
        let connection = stack.connection().kafka().expect("Kafka");
        write_secret(&dir.path().join("kafka-password"), connection.password(GATEWAY).expect("password"));
        write_secret(&dir.path().join("key-hash"), &hex::encode(KEY));
        write_secret(&dir.path().join("ack-ids"), &format!("1 {}", hex::encode(KEY)));
        write_secret(&dir.path().join("admin-password"), connection.password(ADMIN).expect("password"));
        let config = KafkaConfig {
            bootstrap: connection.bootstrap.clone(),
            ca: connection.ca_file.clone(),
            username: ADMIN.into(),
            password_file: SecretFile::new(dir.path().join("admin-password")),
        };
        let sasl = ScramSha512 { user: ADMIN.into(), password: config.password().expect("password") };
        let security = Security { tls: Some(config.rustls_client_config().expect("TLS")), sasl: Some(sasl) };
        let kafka = Client::new(ClientConfig::new(config.bootstrap.clone()).with_security(security)).expect("client");
        for name in [CONTROL_TOPIC, MEMBERS_TOPIC] {
            make_log(&kafka, name).await;
        }
        let usage = NewTopic { name: USAGE_TOPIC.into(), partitions: 1, replication: 1, configs: BTreeMap::new() };
        kafka.create_topic(&usage, PATIENCE).await.expect("usage");
        mark_complete(&kafka).await;
        let identity = InternalTls::load(&internal_tls(&connection.ca_file, &tls, "control-plane")).expect("identity");
        let control_plane = ControlPlane::start(&identity).await;
        let control_plane_addr = control_plane.addr;
        Self { stack, kafka, control_plane: Some(control_plane), dir, tls, control_plane_addr }
    }

    /// Publishes; gives the offset.
    pub(crate) async fn publish(&self, record: &ControlRecord) -> i64 {
        self.publish_all(std::slice::from_ref(record)).await
    }

    /// Publishes all at once; gives the offset of the last one.
    pub(crate) async fn publish_all(&self, records: &[ControlRecord]) -> i64 {
        let records: Vec<OutRecord> = records.iter().map(written).collect();
        let produced = self.kafka.produce_batch(CONTROL_TOPIC, 0, &records, PATIENCE).await.expect("publish");
        produced.base_offset + records.len() as i64 - 1
    }

    /// Deletes the control log and makes it anew, empty.
    pub(crate) async fn remake_control_log(&self) {
        self.kafka.delete_topic(CONTROL_TOPIC, PATIENCE).await.expect("delete");
        self.control_log_is(false).await;
        make_log(&self.kafka, CONTROL_TOPIC).await;
        self.control_log_is(true).await;
    }

    /// Lets the control log lose all records before this offset.
    pub(crate) async fn cut_control_log_below(&self, offset: i64) {
        // Kafka deletes records of a log that is not only compacted.
        let policy = ConfigChange::Set("compact,delete".to_owned());
        let policy = BTreeMap::from([("cleanup.policy".to_owned(), policy)]);
        self.kafka.incremental_alter_configs(CONTROL_TOPIC, &policy, false, PATIENCE).await.expect("setting");
        let start = self.kafka.delete_records_before(CONTROL_TOPIC, 0, offset, PATIENCE).await.expect("deletion");
        assert_eq!(start, offset);
    }

    async fn control_log_is(&self, there: bool) {
        let looked = async {
            loop {
                let known = self.kafka.metadata(&[CONTROL_TOPIC], PATIENCE).await.expect("metadata");
                let led = known.topics[0].partitions.get(&0).is_some_and(|partition| partition.leader.is_some());
                if (known.topics[0].error.is_none() && led) == there {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looked).await.expect("the log comes and goes");
    }

    /// Makes a tenant's topic in Kafka.
    pub(crate) async fn create_topic(&self, tenant: &Tenant, uid: TopicUid, partitions: i32) {
        let name = PhysicalTopic::new(tenant.namespace, uid).as_str().to_owned();
        let topic = NewTopic { name, partitions, replication: 1, configs: BTreeMap::new() };
        self.kafka.create_topic(&topic, PATIENCE).await.expect("topic");
        self.is_led(&PhysicalTopic::new(tenant.namespace, uid), partitions).await;
    }

    /// Waits until the broker knows so many of its partitions: the controller answers before.
    async fn is_led(&self, name: &PhysicalTopic, partitions: i32) {
        let looked = async {
            loop {
                let known = self.kafka.metadata(&[name.as_str()], PATIENCE).await.expect("metadata");
                let partitions_led = known.topics[0].partitions.values().filter(|partition| partition.leader.is_some());
                if partitions_led.count() == partitions as usize {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looked).await.expect("the partitions have leaders");
    }

    /// Lets it have so many.
    pub(crate) async fn add_partitions(&self, tenant: &Tenant, topic: TopicUid, partitions: i32) {
        let name = PhysicalTopic::new(tenant.namespace, topic);
        self.kafka.create_partitions(name.as_str(), partitions, false, PATIENCE).await.expect("partitions");
        self.is_led(&name, partitions).await;
    }

    /// Waits for the last usage window of a start of this gateway.
    pub(crate) async fn last_window(&self, gateway: &str) {
        let mut tail = LogTail::new(self.kafka.clone(), USAGE_TOPIC, 0, OffsetAt::Earliest, TailOptions::default());
        let found = async {
            loop {
                for record in tail.next(PATIENCE).await.expect("usage").records {
                    let window = UsageWindow::decode(record.value.expect("a value")).expect("a window");
                    if window.last && window.source.starts_with(&format!("{gateway}/")) {
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the last window comes");
    }

    /// Appends a record to it.
    pub(crate) async fn produce(&self, tenant: &Tenant, topic: TopicUid, partition: i32, value: &str) {
        let name = PhysicalTopic::new(tenant.namespace, topic);
        let timestamp_ms = sluice_devstack::now_ms();
        let record = OutRecord { value: Some(value.to_owned().into()), timestamp_ms, ..OutRecord::default() };
        self.kafka.produce_batch(name.as_str(), partition, &[record], PATIENCE).await.expect("produce");
    }

    /// A file with a secret.
    pub(crate) fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        write_secret(&path, text);
        path
    }

    /// Starts a gateway with its own data directory.
    pub(crate) async fn gateway(&self, id: &str) -> Gateway {
        self.gateway_with(id, "", "").await
    }

    /// The same with TLS on its public listener.
    pub(crate) async fn gateway_with_tls(&self, id: &str) -> Gateway {
        let issued = self.stack.ca().issue_server(&[]).expect("certificate");
        issued.write(&self.tls, "public").expect("files");
        let (cert, key) = (self.tls.join("public.pem"), self.tls.join("public.key"));
        self.gateway_with(id, "", &format!("[tls]\ncert = {cert:?}\nkey = {key:?}\n")).await
    }

    /// Our identity as the control plane.
    pub(crate) fn identity(&self) -> InternalTls {
        let ca = &self.stack.connection().kafka().expect("Kafka").ca_file;
        InternalTls::load(&internal_tls(ca, &self.tls, "control-plane")).expect("identity")
    }

    /// The same where the other gateways find it at this address.
    pub(crate) async fn gateway_found_at(&self, id: &str, address: SocketAddr) -> Gateway {
        self.gateway_with(id, &format!("internal_advertise = \"{address}\"\n"), "").await
    }

    /// The same with these keys and tables in its configuration.
    pub(crate) async fn gateway_with(&self, id: &str, keys: &str, tables: &str) -> Gateway {
        let app = App::build(self.config(id, keys, tables)).await.expect("build");
        Gateway::run(id, app)
    }

    fn config(&self, id: &str, keys: &str, tables: &str) -> Config {
        let connection = self.stack.connection().kafka().expect("Kafka");
        let dir = self.dir.path();
        let text = format!(
            "id = {id:?}\ndata_dir = {:?}\npublic_listen = \"127.0.0.1:0\"\ninternal_listen = \"127.0.0.1:0\"\n\
             admin_listen = \"127.0.0.1:0\"\ncontrol_plane = {:?}\nbilling = \"127.0.0.1:1\"\nkey_hash_file = {:?}\nack_keys_file = {:?}\n\
             [internal_tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n\
             [kafka]\nbootstrap = {:?}\nca = {:?}\nusername = {GATEWAY:?}\npassword_file = {:?}\n",
            dir.join(id),
            self.control_plane_addr.to_string(),
            dir.join("key-hash"),
            dir.join("ack-ids"),
            connection.ca_file,
            self.tls.join("gateway.pem"),
            self.tls.join("gateway.key"),
            connection.bootstrap,
            connection.ca_file,
            dir.join("kafka-password"),
        );
        parse(&[keys, &text, tables].concat(), Path::new("gateway.toml")).expect("configuration")
    }

    /// Waits until a heartbeat of the gateway satisfies the condition; reads the log as others do.
    pub(crate) async fn heartbeat(&self, gateway: &str, wanted: impl Fn(&MemberHeartbeat) -> bool) -> MemberHeartbeat {
        let mut tail = LogTail::new(self.kafka.clone(), MEMBERS_TOPIC, 0, OffsetAt::Earliest, TailOptions::default());
        let found = async {
            loop {
                for record in tail.next(PATIENCE).await.expect("members").records {
                    let heartbeat = MemberHeartbeat::decode(record.value.expect("a value")).expect("a heartbeat");
                    if heartbeat.gateway_id == gateway && wanted(&heartbeat) {
                        return heartbeat;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the heartbeat comes")
    }

    /// Waits until the gateway says it has applied an offset.
    pub(crate) async fn applied(&self, gateway: &Gateway, offset: i64) {
        self.heartbeat(&gateway.id, |heartbeat| heartbeat.applied_offset >= offset).await;
    }
}

pub(crate) struct Gateway {
    pub(crate) id: String,
    pub(crate) addrs: Addrs,
    pub(crate) health: Health,
    pub(crate) shutdown: CancellationToken,
    pub(crate) done: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Gateway {
    fn run(id: &str, app: App) -> Self {
        let (addrs, health, shutdown) = (app.addrs(), app.health(), CancellationToken::new());
        let done = tokio::spawn(app.run(shutdown.clone()));
        Self { id: id.into(), addrs, health, shutdown, done }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addrs.public)
    }

    pub(crate) async fn get(&self, path: &str, key: &ApiKey) -> (u16, serde_json::Value) {
        let request = reqwest::Client::new().get(self.url(path)).bearer_auth(key.expose());
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.done).await.expect("within 30 s").expect("no panic")
    }
}

/// A tenant with a namespace, a topic, an account and a key.
pub(crate) struct Tenant {
    pub(crate) uid: TenantUid,
    pub(crate) id: String,
    pub(crate) namespace: NamespaceUid,
    pub(crate) account: AccountUid,
    pub(crate) key: ApiKey,
    order: AtomicI64,
}

impl Tenant {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            uid: TenantUid::random(),
            id: id.into(),
            namespace: NamespaceUid::random(),
            account: AccountUid::random(),
            key: ApiKey::generate("dev"),
            order: AtomicI64::new(1),
        }
    }

    fn record(&self, version: i64, resource: Resource) -> ControlRecord {
        ControlRecord {
            version,
            tenant_uid: self.uid.to_string(),
            outbox_id: self.order.fetch_add(1, Ordering::Relaxed),
            resource: Some(resource),
            ..Default::default()
        }
    }

    pub(crate) fn key_state(&self, version: i64, life: Life) -> ControlRecord {
        self.record(
            version,
            Resource::Key(KeyState {
                key_id: self.key.id().to_string(),
                account_uid: self.account.to_string(),
                hash: self.key.hash(&HashKey(KEY)).0.to_vec().into(),
                life: life.into(),
                expire_time_ms: 0,
            }),
        )
    }

    pub(crate) fn topic(&self, uid: TopicUid, version: i64, life: Life, partitions: i32) -> ControlRecord {
        self.record(
            version,
            Resource::Topic(TopicState {
                uid: uid.to_string(),
                id: "orders".into(),
                namespace_uid: self.namespace.to_string(),
                namespace_id: "prod".into(),
                life: life.into(),
                partitions,
                ..Default::default()
            }),
        )
    }

    pub(crate) fn group(&self, uid: GroupUid, version: i64, life: Life) -> ControlRecord {
        self.record(
            version,
            Resource::Group(GroupState {
                uid: uid.to_string(),
                id: "billing".into(),
                namespace_uid: self.namespace.to_string(),
                namespace_id: "prod".into(),
                life: life.into(),
                topic_ids: vec!["orders".into()],
                ack_deadline_ms: 10_000,
                minimum_backoff_ms: 100,
                maximum_backoff_ms: 1_000,
                ..Default::default()
            }),
        )
    }

    /// Everything but the key and topics.
    pub(crate) fn base(&self) -> Vec<ControlRecord> {
        let grants = vec![Grant { role: "developer".into(), resource: "*".into() }];
        vec![
            self.record(
                1,
                Resource::Tenant(TenantState {
                    uid: self.uid.to_string(),
                    id: self.id.clone(),
                    life: Life::Active.into(),
                    ..Default::default()
                }),
            ),
            self.record(
                1,
                Resource::Account(AccountState {
                    uid: self.account.to_string(),
                    id: "ci".into(),
                    life: Life::Active.into(),
                    grants,
                }),
            ),
            self.record(
                1,
                Resource::Namespace(NamespaceState {
                    uid: self.namespace.to_string(),
                    id: "prod".into(),
                    life: Life::Active.into(),
                }),
            ),
        ]
    }
}

/// As it stands in the control log.
fn written(record: &ControlRecord) -> OutRecord {
    let key = match record.resource.as_ref().expect("a resource") {
        Resource::Tenant(r) => &r.uid,
        Resource::Namespace(r) => &r.uid,
        Resource::Topic(r) => &r.uid,
        Resource::Account(r) => &r.uid,
        Resource::Key(r) => &r.key_id,
        Resource::Group(r) => &r.uid,
        Resource::Complete(_) => unreachable!("see mark_complete"),
    };
    OutRecord { key: Some(key.clone().into()), value: Some(record.encode_to_vec().into()), ..OutRecord::default() }
}

async fn make_log(kafka: &Client, name: &str) {
    let configs = [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")];
    let configs: BTreeMap<_, _> = configs.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let topic = NewTopic { name: name.into(), partitions: 1, replication: 1, configs };
    kafka.create_topic(&topic, PATIENCE).await.expect("topic");
}

/// Says that all states are in the control log, as the control plane does.
pub(crate) async fn mark_complete(kafka: &Client) {
    mark_complete_for(kafka, Vec::new()).await;
}

/// The same to gateways that wait.
pub(crate) async fn mark_complete_for(kafka: &Client, answers: Vec<String>) {
    let control_topic_id = kafka.topic(CONTROL_TOPIC, PATIENCE).await.expect("control log").topic_id.to_string();
    let complete = LogComplete { control_topic_id, answers, ..Default::default() };
    let value = ControlRecord { resource: Some(Resource::Complete(complete)), ..Default::default() };
    let key = Some(CONTROL_COMPLETE_KEY.into());
    let record = OutRecord { key, value: Some(value.encode_to_vec().into()), ..OutRecord::default() };
    kafka.produce_batch(CONTROL_TOPIC, 0, &[record], PATIENCE).await.expect("publish");
}

fn internal_tls(ca: &Path, tls: &Path, role: &str) -> InternalTlsConfig {
    InternalTlsConfig { ca: ca.into(), cert: tls.join(format!("{role}.pem")), key: tls.join(format!("{role}.key")) }
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).expect("write");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
}
