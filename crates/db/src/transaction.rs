//! Transactions that know whose they are.
//!
//! Both kinds begin with one round trip of our own instead of sqlx's `begin()`: that one, cancelled at the wrong moment,
//! puts a connection with an open transaction back into its pool (sqlx issue 4385), where the next user would work under
//! the former one's tenant. Here a transaction that is dropped unfinished takes its connection with it.

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Executor as _, Postgres};

use sluice_types::TenantUid;

use crate::error::DbError;

/// A connection with an open transaction; `None` once that has ended.
struct Open(Option<PoolConnection<Postgres>>);

/// A transaction for one tenant: row-level security lets it see and change that tenant's rows only, whatever the queries
/// say. Dropped without [`commit`](Self::commit), nothing of it happened.
pub struct TenantTx {
    open: Open,
    tenant: TenantUid,
}

/// A transaction of the system, over all tenants.
pub struct SystemTx {
    open: Open,
}

impl TenantTx {
    /// With the application role, row-level security decides by `app.tenant_id`. With the system role it does not, and
    /// the tenant only tells the store functions whose rows are meant.
    pub(crate) async fn begin(pool: &PgPool, tenant: TenantUid) -> Result<Self, DbError> {
        let sql = format!("BEGIN; SELECT set_config('app.tenant_id', '{}', true)", tenant.as_i64());
        Ok(Self { open: Open::begin(pool, sql).await?, tenant })
    }

    /// Whose rows these are.
    pub fn tenant(&self) -> TenantUid {
        self.tenant
    }

    /// For queries.
    pub fn conn(&mut self) -> &mut PgConnection {
        self.open.conn()
    }

    /// Makes it all happen. On [`DbError::Unavailable`] whether it did is unknown.
    pub async fn commit(self) -> Result<(), DbError> {
        self.open.end("COMMIT").await
    }

    /// Ends it without effect and keeps the connection.
    pub async fn rollback(self) -> Result<(), DbError> {
        self.open.end("ROLLBACK").await
    }
}

impl SystemTx {
    pub(crate) async fn begin(pool: &PgPool) -> Result<Self, DbError> {
        Ok(Self { open: Open::begin(pool, "BEGIN".to_owned()).await? })
    }

    /// For queries.
    pub fn conn(&mut self) -> &mut PgConnection {
        self.open.conn()
    }

    /// Makes it all happen. On [`DbError::Unavailable`] whether it did is unknown.
    pub async fn commit(self) -> Result<(), DbError> {
        self.open.end("COMMIT").await
    }

    /// Ends it without effect and keeps the connection.
    pub async fn rollback(self) -> Result<(), DbError> {
        self.open.end("ROLLBACK").await
    }
}

impl Open {
    async fn begin(pool: &PgPool, sql: String) -> Result<Self, DbError> {
        // In its cell before the first statement, so that a drop from here on closes the connection.
        let mut open = Self(Some(pool.acquire().await?));
        open.conn().execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        Ok(open)
    }

    fn conn(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("a transaction has its connection until it is consumed")
    }

    async fn end(mut self, sql: &'static str) -> Result<(), DbError> {
        self.conn().execute(sqlx::raw_sql(sql)).await?;
        drop(self.0.take());
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}
