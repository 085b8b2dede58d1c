//! What several of these tests need: certificates, configuration, Kafka as its super user, waiting.

use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_devstack::{ADMIN, Ca, Connection, PROVISIONING, shared};
use sluice_provisioning::config::Config;
use sluice_provisioning::{App, ROLE};
use sluice_runtime::config::{InternalTlsConfig, KafkaConfig, ListenAddr, SecretFile};
use sluice_runtime::fail_point::Testing;
use sluice_runtime::telemetry::TelemetryConfig;
use sluice_types::physical::PhysicalTopic;
use sluice_wire::{Client, Isolation, KafkaTopicId, NewTopic, OffsetAt, OutRecord, Topic, code};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::plane::Plane;

/// Bound of single Kafka calls.
pub(crate) const CALL: Duration = Duration::from_secs(10);
/// Bound of what should happen soon, on a machine under load.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A control plane, certificates, and Kafka as its super user.
pub(crate) struct World {
    pub(crate) plane: Plane,
    pub(crate) kafka: Client,
    pub(crate) dir: tempfile::TempDir,
    ca: Ca,
}

/// A provisioning in this process.
pub(crate) struct Running {
    pub(crate) health: sluice_runtime::Health,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

pub(crate) async fn stack() -> &'static Connection {
    shared().await.unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::load_or_create(&dir.path().join("ca")).unwrap();
        let plane = Plane::start(&identity(&ca, dir.path(), "control-plane")).await;
        Self { plane, kafka: stack().await.kafka().unwrap().client(ADMIN).unwrap(), ca, dir }
    }

    pub(crate) async fn config(&self, instance: &str) -> Config {
        let kafka = stack().await.kafka().unwrap();
        let password = self.dir.path().join("kafka-password");
        std::fs::write(&password, kafka.password(PROVISIONING).unwrap()).unwrap();
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
        Config {
            instance: instance.into(),
            admin_listen: ListenAddr::loopback(0),
            admin_open: false,
            control_plane: self.plane.addr.to_string(),
            replication: Some(1),
            concurrency: 8,
            internal_tls: identity(&self.ca, self.dir.path(), ROLE),
            kafka: KafkaConfig {
                bootstrap: kafka.bootstrap.clone(),
                ca: kafka.ca_file.clone(),
                username: PROVISIONING.into(),
                password_file: SecretFile::new(password),
            },
            clusters: Default::default(),
            telemetry: TelemetryConfig::default(),
            testing: Testing::default(),
        }
    }

    pub(crate) async fn start(&self) -> Running {
        run(self.config("one").await).await
    }

    /// The physical topic, as a broker sees it.
    pub(crate) async fn physical(&self, uid: &str) -> Option<Topic> {
        let name = self.plane.known(uid).name();
        let topic = self.kafka.metadata(&[name.as_str()], CALL).await.unwrap().topics.remove(0);
        match &topic.error {
            Some(error) if error.code == code::UNKNOWN_TOPIC_OR_PARTITION => None,
            _ => Some((*topic).clone()),
        }
    }

    pub(crate) async fn config_of(&self, uid: &str, config: &str) -> Option<String> {
        let name = self.plane.known(uid).name();
        let mut configs = self.kafka.describe_topic_configs(name.as_str(), Some(&[config]), CALL).await.unwrap();
        configs.remove(config).and_then(|entry| entry.value)
    }

    /// Makes a topic behind provisioning's back.
    pub(crate) async fn make(&self, uid: &str, partitions: i32) -> KafkaTopicId {
        let name = self.plane.known(uid).name();
        let topic = NewTopic { name: name.as_str().into(), partitions, replication: 1, configs: Default::default() };
        let made = self.kafka.create_topic(&topic, CALL).await.unwrap();
        eventually("topic served", SOON, async || {
            self.physical(uid).await.is_some_and(|topic| {
                !topic.partitions.is_empty() && topic.partitions.values().all(|partition| partition.leader.is_some())
            })
        })
        .await;
        made.topic_id
    }

    /// Writes records of one byte.
    pub(crate) async fn write(&self, uid: &str, partition: i32, count: usize) {
        let name = self.plane.known(uid).name();
        let record = OutRecord { value: Some(Bytes::from_static(b"x")), ..Default::default() };
        let start = Instant::now();
        while let Err(error) =
            self.kafka.produce_batch(name.as_str(), partition, &vec![record.clone(); count], CALL).await
        {
            assert!(start.elapsed() < SOON, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn end(&self, name: &PhysicalTopic, partition: i32) -> i64 {
        let at = OffsetAt::Latest;
        let listed = self.kafka.list_offset(name.as_str(), partition, at, Isolation::ReadUncommitted, CALL).await;
        listed.unwrap().offset.unwrap()
    }

    /// Waits until the plane's knowledge of a topic fits.
    pub(crate) async fn until(&self, what: &str, uid: &str, fits: impl Fn(&crate::plane::Known) -> bool) {
        let start = Instant::now();
        loop {
            let known = self.plane.known(uid);
            if fits(&known) {
                return;
            }
            assert!(start.elapsed() < SOON, "{what}: not within {SOON:?}: {known:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(crate) async fn run(config: Config) -> Running {
    let app = App::build(config).await.unwrap();
    let (health, stop) = (app.health(), CancellationToken::new());
    let shutdown = stop.clone();
    Running { health, stop, task: tokio::spawn(async move { app.run(shutdown).await.unwrap() }) }
}

fn identity(ca: &Ca, dir: &Path, role: &str) -> InternalTlsConfig {
    let files = ca.issue_role(role, "1").unwrap().write(dir, role).unwrap();
    InternalTlsConfig { ca: ca.cert_file(), cert: files.cert_file, key: files.key_file }
}

/// Asks until it holds; fails the test after `within`.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, within: Duration, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < within, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
