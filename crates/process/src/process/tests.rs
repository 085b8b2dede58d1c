//! A role that notes what is done with it: the order of a life, and failures.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sluice_devstack::Ca;
use sluice_runtime::config::{InternalTlsConfig, KafkaConfig, ListenAddr, SecretFile, Validate};
use sluice_runtime::telemetry::TelemetryConfig;

use super::*;
use crate::clusters::ClustersConfig;
use crate::config::Common;
use crate::frame::secret;
use crate::stops::Stops;

/// A role that notes what is done with it. Its only task ends when it is told to.
struct Noted {
    commit: &'static str,
    events: Events,
    fail: CancellationToken,
}

type Events = Arc<Mutex<Vec<&'static str>>>;

#[derive(serde::Deserialize)]
struct Config {
    internal_tls: InternalTlsConfig,
    kafka: KafkaConfig,
    #[serde(default)]
    clusters: ClustersConfig,
    #[serde(skip)]
    telemetry: TelemetryConfig,
    #[serde(skip)]
    events: Events,
    #[serde(skip)]
    fail: CancellationToken,
}

impl Validate for Config {}

impl RoleConfig for Config {
    fn common(&self) -> Common<'_> {
        Common {
            admin_listen: ListenAddr::loopback(0),
            admin_open: false,
            internal_tls: &self.internal_tls,
            kafka: &self.kafka,
            clusters: &self.clusters,
            database: None,
            telemetry: &self.telemetry,
            testing: None,
        }
    }
}

impl Role for Noted {
    const NAME: &'static str = "noted";
    const ABOUT: &'static str = "For tests";
    type Config = Config;
    type Addrs = SocketAddr;

    async fn build(config: Config, frame: &mut Frame) -> Result<Self, Error> {
        config.events.lock().push("build");
        Ok(Self { commit: frame.commit, events: config.events, fail: config.fail })
    }

    fn addrs(&self, admin: SocketAddr) -> SocketAddr {
        admin
    }

    fn start(self, life: &Life) -> Stops {
        self.events.lock().push("start");
        let (fail, stop) = (self.fail, life.tasks.shutdown());
        life.tasks.spawn_critical("vital", async move {
            tokio::select! {
                () = fail.cancelled() => Err("no more"),
                () = stop.cancelled() => Ok(()),
            }
        });
        life.health.set_ready(true);
        let (health, first, last) = (life.health.clone(), Arc::clone(&self.events), self.events);
        Stops::new()
            .at_once("first", move || first.lock().push(if health.is_ready() { "still ready" } else { "stop" }))
            .tasks(&life.tasks, Duration::from_secs(30))
            .at_once("last", move || last.lock().push("end"))
    }
}

fn config(dir: &std::path::Path, password: &str) -> Config {
    let ca = Ca::load_or_create(&dir.join("ca")).expect("CA");
    let files = ca.issue_role("noted", "noted-1").and_then(|issued| issued.write(dir, "noted")).expect("certificate");
    Config {
        internal_tls: InternalTlsConfig { ca: ca.cert_file(), cert: files.cert_file, key: files.key_file },
        kafka: KafkaConfig {
            bootstrap: vec!["127.0.0.1:1".into()],
            ca: ca.cert_file(),
            username: "noted".into(),
            password_file: SecretFile::new(dir.join(password)),
        },
        clusters: ClustersConfig::default(),
        telemetry: TelemetryConfig::default(),
        events: Events::default(),
        fail: CancellationToken::new(),
    }
}

fn dir_with_password() -> tempfile::TempDir {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let dir = tempfile::tempdir().expect("directory");
    let mut file = std::fs::OpenOptions::new();
    let file = file.create_new(true).write(true).mode(0o600).open(dir.path().join("password"));
    file.expect("file").write_all(b"hush").expect("write");
    dir
}

#[tokio::test]
async fn a_role_is_built_started_and_stopped_in_order_and_is_not_ready_while_it_stops() {
    let dir = dir_with_password();
    let config = config(dir.path(), "password");
    let events = Arc::clone(&config.events);
    let process = Process::<Noted>::build_from(config, "5a96ded").await.expect("built");
    assert_eq!((process.role.commit, process.addrs()), ("5a96ded", process.admin_addr()));
    assert_eq!(*events.lock(), ["build"], "nothing starts before it runs");
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    process.run(shutdown).await.expect("an orderly end");
    assert_eq!(*events.lock(), ["build", "start", "stop", "end"]);
}

#[tokio::test]
async fn a_critical_task_that_ends_stops_its_own_process_in_order_and_no_other_one() {
    let dir = dir_with_password();
    let config = config(dir.path(), "password");
    let (events, fail) = (Arc::clone(&config.events), config.fail.clone());
    let process = Process::<Noted>::build(config).await.expect("built");
    let of_all = CancellationToken::new();
    fail.cancel();
    let error = process.run(of_all.clone()).await.expect_err("it failed");
    assert_eq!(error.to_string(), "task vital of noted failed: no more");
    assert_eq!(*events.lock(), ["build", "start", "stop", "end"]);
    assert!(!of_all.is_cancelled(), "others go on");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named_and_nothing_is_built() {
    let dir = dir_with_password();
    let config = config(dir.path(), "absent");
    let events = Arc::clone(&config.events);
    let error = Process::<Noted>::build(config).await.err().expect("no password");
    assert_eq!(error.to_string(), "read the file of kafka.password_file");
    assert!(std::error::Error::source(&error).is_some(), "with its cause");
    assert!(events.lock().is_empty());
    assert!(secret("key", &SecretFile::new(dir.path().join("password"))).is_ok());
}
