//! A service's database: its two roles, and work there that a dropped request cannot cut in half.

use std::future::Future;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio_util::task::TaskTracker;

use sluice_types::{TenantScope, TenantUid};

use crate::config::{DbConfig, PoolConfig};
use crate::error::DbError;
use crate::transaction::{SystemTx, TenantTx};

/// The longest that work given to [`Database::run`] may take; then its connection is closed. A server that is stopped, not
/// dead, answers nothing and enforces no timeout of its own.
pub const RUN_LIMIT: Duration = Duration::from_secs(6);

/// A service's database. Clones share everything.
#[derive(Clone)]
pub struct Database {
    app: PgPool,
    system: SystemScope,
    reserved: Vec<SystemScope>,
    tasks: TaskTracker,
}

/// The system's own access: another PostgreSQL role, whose row-level policies see all tenants. For relays, reconcilers, key
/// look-up and the operator's API; nothing that handles a tenant's call should hold one.
#[derive(Clone)]
pub struct SystemScope {
    pool: PgPool,
}

impl Database {
    /// Prepares both pools; the first use connects.
    pub fn open(config: &DbConfig) -> Result<Self, DbError> {
        Ok(Self {
            app: config.pool(&config.app)?,
            system: SystemScope { pool: config.pool(&config.system)? },
            reserved: Vec::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Connections of the system role for one purpose, which no other work can take: what must go on while everything else
    /// waits gets its own.
    pub fn reserve(&mut self, config: &DbConfig, connections_max: u32) -> Result<SystemScope, DbError> {
        let role = PoolConfig { connections_max, ..config.system.clone() };
        let scope = SystemScope { pool: config.pool(&role)? };
        self.reserved.push(scope.clone());
        Ok(scope)
    }

    /// A transaction for the tenant of a verified credential.
    pub async fn tenant(&self, scope: &TenantScope) -> Result<TenantTx, DbError> {
        TenantTx::begin(&self.app, scope.uid()).await
    }

    /// The system's access.
    pub fn system(&self) -> &SystemScope {
        &self.system
    }

    /// Runs the work in a task of its own, so that it ends as it should when whoever waits goes away, within
    /// [`RUN_LIMIT`]. Everything that changes rows goes through here.
    pub async fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
    {
        let bounded = async move {
            tokio::time::timeout(RUN_LIMIT, work).await.unwrap_or_else(|_| Err(DbError::TimedOut.into()))
        };
        match self.tasks.spawn(bounded).await {
            Ok(done) => done,
            Err(panic) => Err(DbError::Panicked(panic).into()),
        }
    }

    /// Whether the database answers, within the acquire timeout.
    pub async fn ping(&self) -> Result<(), DbError> {
        self.system.begin().await?.rollback().await
    }

    /// Waits for running work, at most `timeout`, then closes all connections.
    pub async fn close(&self, timeout: Duration) {
        self.tasks.close();
        let drained = async {
            self.tasks.wait().await;
            self.app.close().await;
            self.system.pool.close().await;
            for scope in &self.reserved {
                scope.pool.close().await;
            }
        };
        if tokio::time::timeout(timeout, drained).await.is_err() {
            tracing::warn!(running = self.tasks.len(), "database work was still running at shutdown");
        }
    }
}

impl SystemScope {
    /// A transaction over all tenants.
    pub async fn begin(&self) -> Result<SystemTx, DbError> {
        SystemTx::begin(&self.pool).await
    }

    /// A transaction about one tenant, for the operator's API and reports of provisioning.
    pub async fn tenant(&self, tenant: TenantUid) -> Result<TenantTx, DbError> {
        TenantTx::begin(&self.pool, tenant).await
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }
}
