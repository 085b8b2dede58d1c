//! Migrations: numbered SQL files, embedded, applied once each and in order by the schema's owner.
//!
//! Forward only. Each runs in its own transaction together with the row that remembers it; a file that was applied must
//! never change (its hash is compared). Several processes may start at once: an advisory lock lets one of them work.
//!
//! Others are at work meanwhile, so a migration waits for a lock only so long that those who queue behind it do not notice,
//! and then tries again. Indexes of tables that may be large are built by files that begin with [`OUTSIDE`].

use std::time::{Duration, Instant};

use secrecy::SecretString;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tokio_util::sync::CancellationToken;

use crate::config::connect_options;
use crate::error::DbError;

const LOCK: i64 = 0x736c_7569_6365_0002;
/// The first line of a file that runs outside of a transaction, one statement after the other, as
/// `CREATE INDEX CONCURRENTLY` must. Each of its statements must be harmless to repeat, and none may hold a semicolon.
const OUTSIDE: &str = "-- outside a transaction\n";
/// How long one attempt waits for a lock of a table.
const LOCK_TIMEOUT_MS: u64 = 1_000;
/// Attempts at a file whose locks others hold, and the pause between attempts of any kind.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// How long another process may migrate before this one gives up, to be started again.
const TURN_WITHIN: Duration = Duration::from_secs(60);
const TURN_POLL: Duration = Duration::from_millis(50);

/// One file.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its number, from 1, without gaps.
    pub version: i32,
    /// Its name, for people.
    pub name: &'static str,
    /// What it does.
    pub sql: &'static str,
}

/// All of one schema.
#[derive(Debug, Clone, Copy)]
pub struct Migrations {
    /// The schema; made if missing.
    pub schema: &'static str,
    /// The files, in order.
    pub files: &'static [Migration],
}

impl Migrations {
    /// Brings the database up to date; returns how many files it applied. `owner_url` is the schema owner's.
    pub async fn apply(&self, owner_url: &SecretString) -> Result<usize, DbError> {
        let mut connection = connect_options(owner_url)?.disable_statement_logging().connect().await?;
        take_turn(&mut connection).await?;
        let schema = self.schema;
        let book = format!(
            "SET client_min_messages = warning;
             SET lock_timeout = {LOCK_TIMEOUT_MS};
             CREATE SCHEMA IF NOT EXISTS {schema};
             CREATE TABLE IF NOT EXISTS {schema}.migration (
                 version integer PRIMARY KEY, name text NOT NULL, hash text NOT NULL,
                 apply_time timestamptz NOT NULL DEFAULT now());"
        );
        connection.execute(sqlx::raw_sql(AssertSqlSafe(book))).await?;
        let mut applied = 0;
        for file in self.files {
            applied += usize::from(self.apply_one(&mut connection, file).await?);
        }
        connection.close().await?;
        Ok(applied)
    }

    /// The same as soon as the database can be reached and others leave its locks, however long that takes; `waiting` is told
    /// each time that it has to be tried again. False if the shutdown came first. Fails only for what waiting cannot mend.
    pub async fn apply_when_possible(
        &self,
        owner_url: &SecretString,
        shutdown: &CancellationToken,
        waiting: impl Fn(),
    ) -> Result<bool, DbError> {
        loop {
            match self.apply(owner_url).await {
                Ok(_) => return Ok(true),
                Err(error) if error.is_unavailable() || matches!(error, DbError::Conflict(_)) => {
                    tracing::debug!(schema = self.schema, %error, "the database cannot be migrated yet");
                    waiting();
                }
                Err(error) => return Err(error),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return Ok(false);
            }
        }
    }

    async fn apply_one(&self, connection: &mut PgConnection, file: &Migration) -> Result<bool, DbError> {
        let schema = self.schema;
        let hash = blake3::hash(file.sql.as_bytes()).to_hex().to_string();
        let known: Option<String> =
            sqlx::query_scalar(AssertSqlSafe(format!("SELECT hash FROM {schema}.migration WHERE version = $1")))
                .bind(file.version)
                .fetch_optional(&mut *connection)
                .await?;
        if let Some(known) = known {
            return if known == hash {
                Ok(false)
            } else {
                Err(DbError::MigrationChanged { schema, version: file.version })
            };
        }
        let mut attempts = 0;
        loop {
            let run = match file.sql.strip_prefix(OUTSIDE) {
                Some(statements) => self.run_outside(connection, file, statements, &hash).await,
                None => self.run_inside(connection, file, &hash).await,
            };
            attempts += 1;
            match run {
                Err(DbError::Conflict(error)) if attempts < ATTEMPTS => {
                    tracing::info!(schema, version = file.version, %error, "a migration waits for locks of others");
                    tokio::time::sleep(PAUSE).await;
                }
                other => {
                    other?;
                    tracing::info!(schema, version = file.version, name = file.name, "applied migration");
                    return Ok(true);
                }
            }
        }
    }

    async fn run_inside(&self, connection: &mut PgConnection, file: &Migration, hash: &str) -> Result<(), DbError> {
        let mut transaction = connection.begin().await?;
        transaction.execute(sqlx::raw_sql(file.sql)).await?;
        self.remember(&mut transaction, file, hash).await?;
        Ok(transaction.commit().await?)
    }

    async fn run_outside(
        &self,
        connection: &mut PgConnection,
        file: &Migration,
        statements: &str,
        hash: &str,
    ) -> Result<(), DbError> {
        self.drop_unfinished_indexes(connection).await?;
        let code: Vec<&str> = statements.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        for statement in code.join("\n").split(';').filter(|statement| !statement.trim().is_empty()) {
            // An index that is built waits for transactions that are older; it holds up nobody, so it may wait.
            let unhurried = async {
                connection.execute("SET lock_timeout = 0").await?;
                connection.execute(sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))).await
            };
            let done = unhurried.await;
            let limit = format!("SET lock_timeout = {LOCK_TIMEOUT_MS}");
            connection.execute(sqlx::raw_sql(AssertSqlSafe(limit))).await?;
            done?;
        }
        self.remember(connection, file, hash).await
    }

    /// An index whose building was cut off stays, costs, and is not used.
    async fn drop_unfinished_indexes(&self, connection: &mut PgConnection) -> Result<(), DbError> {
        let unfinished: Vec<String> = sqlx::query_scalar(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND NOT i.indisvalid",
        )
        .bind(self.schema)
        .fetch_all(&mut *connection)
        .await?;
        for index in unfinished {
            let sql = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
            connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        }
        Ok(())
    }

    async fn remember(&self, connection: &mut PgConnection, file: &Migration, hash: &str) -> Result<(), DbError> {
        let schema = self.schema;
        sqlx::query(AssertSqlSafe(format!("INSERT INTO {schema}.migration (version, name, hash) VALUES ($1, $2, $3)")))
            .bind(file.version)
            .bind(file.name)
            .bind(hash)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// Waits until no other process migrates. Asks again and again: a statement that waits would be one of the older
/// transactions that an index which is being built waits for.
async fn take_turn(connection: &mut PgConnection) -> Result<(), DbError> {
    let begun = Instant::now();
    loop {
        let ours: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut *connection).await?;
        if ours {
            return Ok(());
        }
        if begun.elapsed() > TURN_WITHIN {
            return Err(DbError::TimedOut);
        }
        tokio::time::sleep(TURN_POLL).await;
    }
}
