//! Where the database is, and how long anything there may take.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::error::DbError;

/// One role's connections.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// `postgres://user:password@host:port/database?sslmode=…`.
    pub url: SecretString,
    /// Connections at most.
    pub connections_max: u32,
}

/// Both roles of a service and the bounds of its work.
#[derive(Debug, Clone)]
pub struct DbConfig {
    /// The application role, under row-level security.
    pub app: PoolConfig,
    /// The system role.
    pub system: PoolConfig,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Waiting for a connection, including to make one.
    pub acquire_timeout: Duration,
    /// One statement, enforced by the server.
    pub statement_timeout: Duration,
    /// Waiting for one lock, enforced by the server.
    pub lock_timeout: Duration,
}

impl DbConfig {
    /// With the usual bounds: 16 and 12 connections, acquire 1 s, statement 3 s, lock 2 s.
    pub fn new(application_name: impl Into<String>, app_url: SecretString, system_url: SecretString) -> Self {
        Self {
            app: PoolConfig { url: app_url, connections_max: 16 },
            system: PoolConfig { url: system_url, connections_max: 12 },
            application_name: application_name.into(),
            acquire_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(3),
            lock_timeout: Duration::from_secs(2),
        }
    }

    /// A pool; it connects when it is first used.
    pub(crate) fn pool(&self, role: &PoolConfig) -> Result<PgPool, DbError> {
        let options = connect_options(&role.url)?.application_name(&self.application_name).options([
            ("statement_timeout", self.statement_timeout.as_millis()),
            ("lock_timeout", self.lock_timeout.as_millis()),
            ("idle_in_transaction_session_timeout", 10_000),
        ]);
        Ok(PgPoolOptions::new()
            .max_connections(role.connections_max)
            .acquire_timeout(self.acquire_timeout)
            .idle_timeout(Duration::from_secs(300))
            .max_lifetime(Duration::from_secs(3_600))
            .connect_lazy_with(options))
    }
}

pub(crate) fn connect_options(url: &SecretString) -> Result<PgConnectOptions, DbError> {
    url.expose_secret().parse().map_err(DbError::Url)
}
