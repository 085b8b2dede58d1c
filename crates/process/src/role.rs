//! What makes a role: a name, a configuration, a way to build it, and how it stops.

use std::future::Future;
use std::net::SocketAddr;

use sluice_db::Database;
use sluice_runtime::{Health, TaskSet};
use sluice_wire::Client;
use tokio_util::sync::CancellationToken;

use crate::checks;
use crate::clusters::Clusters;
use crate::config::RoleConfig;
use crate::error::Error;
use crate::frame::Frame;
use crate::stops::Stops;

/// A role.
pub trait Role: Sized + Send + 'static {
    /// Its name: the subcommand, and the role in certificates, caller tokens and logs.
    const NAME: &'static str;
    /// What it is for, in a line.
    const ABOUT: &'static str;
    /// Its configuration.
    type Config: RoleConfig;
    /// Where it listens.
    type Addrs;

    /// Reads secrets, checks what will be served, binds listeners. Must wait for nobody: Kafka, the database and other processes may
    /// come later.
    fn build(config: Self::Config, frame: &mut Frame) -> impl Future<Output = Result<Self, Error>> + Send;

    /// Where it listens, beside the admin listener.
    fn addrs(&self, admin: SocketAddr) -> Self::Addrs;

    /// Starts what runs, and says in which order it stops. Called once, when the schema is up to date.
    fn start(self, life: &Life) -> Stops;
}

/// What a role has while it runs.
pub struct Life {
    /// Cancelled when the shutdown begins, whatever began it. The stops are done after it.
    pub shutdown: CancellationToken,
    /// The process's tasks.
    pub tasks: TaskSet,
    /// What the process says of itself. The frame says that it is not ready any more.
    pub health: Health,
    /// The Kafka clusters that the configuration names.
    pub clusters: Clusters,
    /// The first of them, which has the internal topics.
    pub kafka: Client,
}

impl Life {
    /// Asks Kafka regularly how it is, for `/health/kafka`, and each further cluster of the configuration for `/health/kafka-<cluster uid>`.
    pub fn check_kafka(&self) {
        for cluster in self.clusters.iter() {
            let check = checks::kafka(cluster.clone(), self.health.clone(), self.tasks.shutdown());
            self.tasks.spawn_critical("kafka check", check);
        }
    }

    /// Asks the database regularly how it is, for `/readyz` and `/health/database`.
    pub fn check_database(&self, database: Database) {
        let check = checks::database(database, self.health.clone(), self.tasks.shutdown());
        self.tasks.spawn_critical("database check", check);
    }
}
