//! Clusters without a Kafka, for tests of what is made of its answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use sluice_kafka::{Appended, Batch, ProduceSink, Sasl, SinkFigures};
use sluice_process::ClusterAccess;
use sluice_runtime::config::{KafkaConfig, SecretFile};
use sluice_runtime::{Health, TaskSet};
use sluice_types::ClusterUid;
use sluice_wire::Client;

use super::{ArcSwapOption, Cluster, Clusters, Inner, Mutex, Shared, Slot};

impl Clusters {
    /// The first cluster, with this client, and producers that take nothing.
    pub(crate) fn without_producers(client: &Client) -> Self {
        let config = KafkaConfig {
            bootstrap: Vec::new(),
            ca: PathBuf::new(),
            username: String::new(),
            password_file: SecretFile::new(""),
        };
        let access = ClusterAccess { uid: ClusterUid::FIRST, config, client: client.clone() };
        let made = Arc::new(Cluster::with(access.uid, client.clone(), Arc::new(NoSink)));
        let credentials = Sasl { ca_pem: String::new(), username: String::new(), password: "".into() };
        let slot = Slot { access, credentials, made: ArcSwapOption::new(Some(made)), failed_at: Mutex::default() };
        let shared = Shared {
            gateway_id: "a".into(),
            health: Health::new(),
            figures: SinkFigures::default(),
            tasks: TaskSet::new("test", CancellationToken::new()),
        };
        Self(Arc::new(Inner { slots: [(ClusterUid::FIRST, slot)].into(), shared }))
    }
}

/// Takes nothing.
struct NoSink;

impl ProduceSink for NoSink {
    fn submit(&self, _: &str, _: Batch, _: Instant) -> Appended {
        unreachable!("nothing is appended in these tests")
    }

    fn ensure_topic(&self, _: &str, _: i32, _: Instant) -> BoxFuture<'static, bool> {
        std::future::ready(false).boxed()
    }

    fn forget(&self, _: &str) {}

    fn is_available(&self) -> bool {
        false
    }

    fn is_useless(&self) -> bool {
        false
    }

    fn flush(&self, _: Instant) -> BoxFuture<'static, bool> {
        std::future::ready(true).boxed()
    }
}
