//! A process: a role in its frame, built and not yet running.

use std::net::SocketAddr;

use sluice_runtime::{AdminServer, ComponentStatus, Health};
use tokio_util::sync::CancellationToken;

use crate::config::RoleConfig;
use crate::error::Error;
use crate::frame::{Frame, Schema};
use crate::role::{Life, Role};

/// What tests and tools are told where the commit is not known.
const UNKNOWN: &str = "unknown";

/// A process, built and not yet running.
pub struct Process<R: Role> {
    role: R,
    frame: Frame,
    admin: AdminServer,
}

impl<R: Role> Process<R> {
    /// Builds it from its configuration alone.
    ///
    /// # Errors
    /// What cannot be read, set up or bound.
    pub async fn build(config: R::Config) -> Result<Self, Error> {
        Self::build_from(config, UNKNOWN).await
    }

    /// The same for a program that knows its commit.
    ///
    /// # Errors
    /// As [`Process::build`].
    pub async fn build_from(config: R::Config, commit: &'static str) -> Result<Self, Error> {
        let mut frame = Frame::new(R::NAME, commit, &config.common())?;
        let role = R::build(config, &mut frame).await?;
        Self::of(role, frame).await
    }

    /// A role that was built in this frame.
    ///
    /// # Errors
    /// The admin listener cannot be bound.
    pub async fn of(role: R, frame: Frame) -> Result<Self, Error> {
        let (health, metrics) = (frame.health.clone(), frame.metrics.clone());
        let admin = AdminServer::bind(frame.admin_listen, health, metrics, axum::Router::new()).await;
        let admin = admin.map_err(|error| Error::Bind("admin", error))?;
        Ok(Self { role, frame, admin })
    }

    /// Where it listens.
    pub fn addrs(&self) -> R::Addrs {
        self.role.addrs(self.admin_addr())
    }

    /// Where health and metrics are.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// How it fares.
    pub fn health(&self) -> Health {
        self.frame.health.clone()
    }

    /// Runs until the shutdown, then stops in order.
    ///
    /// # Errors
    /// The schema cannot be brought up to date, or a task that must not end did.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let admin_stop = CancellationToken::new();
        let admin = tokio::spawn(self.admin.run(admin_stop.clone()));
        // A failure here is no reason for others under the same token to stop.
        let outcome = live(self.role, self.frame, shutdown.child_token()).await;
        admin_stop.cancel();
        if let Err(error) = admin.await {
            tracing::warn!(%error, "admin listener");
        }
        outcome
    }
}

async fn live<R: Role>(role: R, frame: Frame, shutdown: CancellationToken) -> Result<(), Error> {
    let Frame { health, tasks, clusters, kafka, schema, .. } = frame;
    if let Some(schema) = schema
        && !migrate(&schema, &health, &shutdown).await?
    {
        return Ok(());
    }
    let life = Life { shutdown: shutdown.clone(), tasks: tasks.clone(), health: health.clone(), clusters, kafka };
    let stops = role.start(&life);
    drop(life);
    let failed = tasks.shutdown();
    tokio::select! {
        () = shutdown.cancelled() => {}
        // A critical task ended.
        () = failed.cancelled() => shutdown.cancel(),
    }
    health.set_ready(false);
    stops.run().await;
    tasks.failure().map_or(Ok(()), |reason| Err(Error::Task(reason)))
}

/// Brings the schema up to date as soon as the database answers; false when the shutdown came first.
async fn migrate(schema: &Schema, health: &Health, shutdown: &CancellationToken) -> Result<bool, Error> {
    let waiting = || health.set_component("database", ComponentStatus::failing("waiting to migrate"));
    schema.migrations.apply_when_possible(&schema.owner_url, shutdown, waiting).await.map_err(Error::Migrate)
}

#[cfg(test)]
mod tests;
