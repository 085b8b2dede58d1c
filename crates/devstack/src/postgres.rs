//! Real PostgreSQL: a private cluster on 127.0.0.1 and a Unix socket, password (SCRAM-SHA-256) required on both.
//!
//! Port, password and data outlive every stop, kill and start. As root the server runs as `postgres` (or `nobody`),
//! because it refuses to be root. Databases and templates are made through [`PostgresConnection`], which works from any
//! process that has the stack's connection file.

mod cluster;
mod database;

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use parking_lot::Mutex;

use crate::connection::PostgresConnection;
use crate::error::{Error, Result};
use crate::preflight::PostgresTools;
use crate::process::{ProcessHandle, ProcessSpec};
use crate::secrets::Secrets;
use crate::stack::Tuning;
use crate::supervisor::Supervisor;

use self::cluster::Cluster;

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_GRACE: Duration = Duration::from_secs(20);
const PORT_TRIES: usize = 3;

/// The name of the super user.
pub const SUPER_USER: &str = "postgres";

/// The PostgreSQL of a stack.
pub struct Postgres {
    spec: ProcessSpec,
    cluster: Cluster,
    connection: PostgresConnection,
    supervisor: Supervisor,
    process: Mutex<Option<ProcessHandle>>,
}

/// What is needed to start one.
pub(crate) struct Setup<'a> {
    pub(crate) dir: PathBuf,
    pub(crate) tools: PostgresTools,
    pub(crate) tuning: Tuning,
    pub(crate) secrets: &'a Secrets,
    pub(crate) supervisor: Supervisor,
}

impl Postgres {
    /// Makes the cluster unless it is there, and starts it, on the port of its last run when that is free.
    pub(crate) async fn start(setup: Setup<'_>) -> Result<Postgres> {
        let cluster = Cluster::open(&setup).await?;
        let mut postgres = Self::prepare(&setup, cluster.clone(), cluster.port()?)?;
        for _ in 1..PORT_TRIES {
            match postgres.start_server().await {
                Err(Error::Ended { tail, .. }) if tail.contains("Address already in use") => {
                    postgres = Self::prepare(&setup, cluster.clone(), cluster.choose_port()?)?;
                }
                other => return other.map(|()| postgres),
            }
        }
        postgres.start_server().await.map(|()| postgres)
    }

    fn prepare(setup: &Setup<'_>, cluster: Cluster, port: u16) -> Result<Postgres> {
        let end = match setup.tuning {
            Tuning::Tests => Signal::SIGQUIT,
            Tuning::Durable => Signal::SIGINT,
        };
        let connection = PostgresConnection {
            host: "127.0.0.1".to_owned(),
            port,
            user: SUPER_USER.to_owned(),
            password: setup.secrets.postgres_password.clone(),
            socket_dir: cluster.socket_dir(),
            psql: cluster.tools().psql.clone(),
            lock_dir: cluster.dir().to_path_buf(),
        };
        Ok(Postgres {
            spec: cluster.server(port, setup.tuning)?.end_signal(end),
            cluster,
            connection,
            supervisor: setup.supervisor.share(),
            process: Mutex::new(None),
        })
    }

    /// How to reach it.
    pub fn connection(&self) -> &PostgresConnection {
        &self.connection
    }

    /// The process id of the server, when it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running().map(|process| process.pid())
    }

    /// SIGSTOP to the server and all its sessions: connections stay open and nothing answers.
    pub async fn pause(&self) -> Result<()> {
        match self.running() {
            Some(process) => process.pause().await,
            None => Err(Error::Invalid("PostgreSQL does not run".to_owned())),
        }
    }

    /// SIGCONT.
    pub fn resume(&self) {
        if let Some(process) = self.running() {
            process.resume();
        }
    }

    /// SIGKILL to the server and all its sessions: the next start recovers from the log.
    pub async fn kill9(&self) {
        if let Some(process) = self.running() {
            process.kill9().await;
        }
    }

    /// A fast shutdown: sessions are cut, data is flushed. SIGKILL after 20 s.
    pub async fn stop(&self) {
        if let Some(process) = self.running() {
            process.end(Signal::SIGINT, STOP_GRACE).await;
        }
    }

    /// Starts the server on its port and data unless it runs; returns when it accepts sessions.
    pub async fn start_server(&self) -> Result<()> {
        if self.running().is_none() {
            let process = self.supervisor.spawn(&self.spec)?;
            *self.process.lock() = Some(process);
        }
        let Some(process) = self.running() else {
            return Err(Error::Invalid(format!(
                "PostgreSQL ended at once; the end of its log:\n{}",
                crate::ready::tail(self.spec.log_file().unwrap_or(self.cluster.dir()))
            )));
        };
        let what = "PostgreSQL getting ready";
        process.ready_when(what, READY_WITHIN, async || self.cluster.says_ready(process.pid())).await
    }

    /// Waits until the server that runs now ends: how, and where its log is. For ever if none runs.
    pub async fn ended(&self) -> Error {
        let Some(process) = self.running() else { return std::future::pending().await };
        let status = process.wait().await;
        process.died(status)
    }

    fn running(&self) -> Option<ProcessHandle> {
        self.process.lock().clone().filter(|process| process.exit_status().is_none())
    }
}
