//! Real Apache Kafka: N brokers that are controllers too (KRaft), clients over SASL/SCRAM-SHA-512 in TLS, the
//! authorizer on from the first start, each principal with the access it needs and no more (`sluice_installation`).
//!
//! Broker ids are 1..=N. Ports, users and data outlive every stop, kill and start.

mod archive;
mod client;
mod config;
mod node;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use sluice_installation::kafka::{Principals, access};

use crate::ca::Ca;
use crate::connection::KafkaConnection;
use crate::error::{Error, Result};
use crate::ports;
use crate::preflight::Java;
use crate::ready::poll_until;
use crate::secrets::{ADMIN, Secrets};
use crate::stack::Tuning;
use crate::supervisor::Supervisor;

pub(crate) use self::archive::{Archive, find_or_make};
use self::config::{Cluster, Ports};
use self::node::Node;

/// A broker starts in about 3 s alone on two cores; three of them share those.
const READY_WITHIN: Duration = Duration::from_secs(60);
const CALL_WITHIN: Duration = Duration::from_secs(5);
const ACCESS_WITHIN: Duration = Duration::from_secs(30);
const STOP_GRACE: Duration = Duration::from_secs(20);
const PORT_TRIES: usize = 3;

/// The Kafka cluster of a stack.
pub struct Kafka {
    nodes: Vec<Node>,
    connection: KafkaConnection,
    admin: sluice_wire::Client,
}

/// What is needed to start one.
pub(crate) struct Setup<'a> {
    pub(crate) dir: PathBuf,
    pub(crate) brokers: u32,
    pub(crate) java: Java,
    pub(crate) jars: PathBuf,
    pub(crate) archive: Archive,
    pub(crate) tuning: Tuning,
    pub(crate) ca: &'a Ca,
    pub(crate) secrets: &'a Secrets,
    pub(crate) supervisor: Supervisor,
}

impl Kafka {
    /// Starts the cluster, on the ports of its last run when they are free.
    pub(crate) async fn start(setup: Setup<'_>) -> Result<Kafka> {
        crate::files::create_dir(&setup.dir)?;
        let ports_file = setup.dir.join("ports.json");
        let mut ports = load_ports(&ports_file, setup.brokers as usize)?;
        for _ in 1..PORT_TRIES {
            let kafka = Self::prepare(&setup, &ports).await?;
            match kafka.start_all().await {
                Err(Error::Ended { .. }) if kafka.lost_a_port() => {
                    kafka.kill_all().await;
                    ports = choose_ports(&ports_file, setup.brokers as usize)?;
                }
                Err(other) => return Err(other),
                Ok(()) => return kafka.opened().await,
            }
        }
        let kafka = Self::prepare(&setup, &ports).await?;
        kafka.start_all().await?;
        kafka.opened().await
    }

    async fn opened(self) -> Result<Kafka> {
        access::ensure(&self.admin, &Principals::default(), ACCESS_WITHIN)
            .await
            .map_err(|source| Error::Kafka { what: "setting Kafka's access rules", source })?;
        Ok(self)
    }

    async fn prepare(setup: &Setup<'_>, ports: &[Ports]) -> Result<Kafka> {
        let cluster = Cluster::new(setup, ports)?;
        let mut nodes = Vec::new();
        for id in 1..=setup.brokers {
            nodes.push(Node::prepare(setup, &cluster, id).await?);
        }
        let connection = KafkaConnection {
            bootstrap: ports.iter().map(|ports| format!("localhost:{}", ports.client)).collect(),
            ca_file: setup.ca.cert_file(),
            users: setup.secrets.kafka_users.clone(),
        };
        Ok(Kafka { nodes, admin: connection.client(ADMIN)?, connection })
    }

    /// How to reach it.
    pub fn connection(&self) -> &KafkaConnection {
        &self.connection
    }

    /// The broker ids.
    pub fn brokers(&self) -> impl Iterator<Item = u32> {
        1..=self.nodes.len() as u32
    }

    /// The process id of a broker, when it runs.
    pub fn pid(&self, broker: u32) -> Result<Option<u32>> {
        Ok(self.node(broker)?.pid())
    }

    /// The log file of a broker.
    pub fn log_file(&self, broker: u32) -> Result<&Path> {
        Ok(self.node(broker)?.log_file())
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub async fn pause(&self, broker: u32) -> Result<()> {
        self.node(broker)?.pause().await
    }

    /// SIGCONT.
    pub fn resume(&self, broker: u32) -> Result<()> {
        self.node(broker)?.resume();
        Ok(())
    }

    /// SIGKILL; returns when the process is gone.
    pub async fn kill9(&self, broker: u32) -> Result<()> {
        self.node(broker)?.kill9().await;
        Ok(())
    }

    /// SIGTERM (a controlled shutdown); SIGKILL after 20 s.
    pub async fn stop(&self, broker: u32) -> Result<()> {
        self.stop_one(broker).await?;
        Ok(())
    }

    async fn stop_one(&self, broker: u32) -> Result<Option<ExitStatus>> {
        Ok(self.node(broker)?.stop(STOP_GRACE).await)
    }

    /// Starts a stopped or killed broker on its port and data; returns when it serves.
    pub async fn start_broker(&self, broker: u32) -> Result<()> {
        let node = self.node(broker)?;
        node.launch()?;
        node.ready(READY_WITHIN).await?;
        self.joined(&[node]).await
    }

    /// Stops a broker in good order and starts it again.
    pub async fn restart(&self, broker: u32) -> Result<()> {
        self.stop(broker).await?;
        self.start_broker(broker).await
    }

    /// Waits until one of the brokers that run now ends: which, and where its log is.
    pub async fn ended(&self) -> Error {
        let mut ends: Vec<_> = self.nodes.iter().map(|node| Box::pin(node.ended())).collect();
        std::future::poll_fn(|context| {
            let first = ends.iter_mut().find_map(|end| match end.as_mut().poll(context) {
                std::task::Poll::Ready(error) => Some(error),
                std::task::Poll::Pending => None,
            });
            first.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }

    /// Stops all brokers in good order.
    pub async fn stop_all(&self) {
        // All at once: a quorum of controllers cannot outlive its majority anyway.
        let stops = self.nodes.iter().map(async |node| {
            node.stop(STOP_GRACE).await;
        });
        join_all(stops).await;
    }

    /// SIGKILL to all brokers.
    pub async fn kill_all(&self) {
        join_all(self.nodes.iter().map(Node::kill9)).await;
    }

    /// Starts all brokers that do not run, then waits until all serve.
    pub async fn start_all(&self) -> Result<()> {
        for node in &self.nodes {
            node.launch()?;
        }
        for node in &self.nodes {
            node.ready(READY_WITHIN).await?;
        }
        self.joined(&self.nodes.iter().collect::<Vec<_>>()).await
    }

    /// Waits until the cluster lists these brokers as alive: a client that asks any of them then hears of all of them.
    async fn joined(&self, nodes: &[&Node]) -> Result<()> {
        let joined = poll_until("brokers joining the cluster", READY_WITHIN, async || {
            let metadata = self.admin.metadata(&[], CALL_WITHIN).await.ok()?;
            let alive = |node: &&Node| metadata.brokers.contains_key(&node.id());
            nodes.iter().all(alive).then_some(())
        });
        joined.await
    }

    fn lost_a_port(&self) -> bool {
        self.nodes.iter().any(|node| node.logged("Address already in use"))
    }

    fn node(&self, broker: u32) -> Result<&Node> {
        let index = broker.checked_sub(1).and_then(|index| self.nodes.get(index as usize));
        index.ok_or_else(|| Error::Invalid(format!("the local Kafka has no broker {broker}")))
    }
}

/// Polls all to the end; the count is that of the brokers, so at most a handful.
async fn join_all(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn load_ports(file: &Path, brokers: usize) -> Result<Vec<Ports>> {
    let kept: Option<Vec<Ports>> = std::fs::read_to_string(file).ok().and_then(|text| serde_json::from_str(&text).ok());
    match kept {
        Some(kept) if kept.len() == brokers && kept.iter().all(Ports::are_free) => Ok(kept),
        _ => choose_ports(file, brokers),
    }
}

fn choose_ports(file: &Path, brokers: usize) -> Result<Vec<Ports>> {
    let free = ports::free_ports(brokers * 2)?;
    let chosen: Vec<Ports> = free.chunks(2).map(|pair| Ports { client: pair[0], controller: pair[1] }).collect();
    let text = serde_json::to_string(&chosen).expect("numbers always serialize");
    crate::files::write_public(file, &text)?;
    Ok(chosen)
}
