//! Migrations: numbered SQL files, embedded, applied once each and in order by the schema's owner.
//!
//! Forward only. Each runs in its own transaction together with the row that remembers it; a file that was applied must
//! never change (its hash is compared). Several processes may start at once: an advisory lock lets one of them work.

use secrecy::SecretString;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use crate::config::connect_options;
use crate::error::DbError;

const LOCK: i64 = 0x736c_7569_6365_0002;

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
        sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut connection).await?;
        let schema = self.schema;
        let book = format!(
            "SET client_min_messages = warning;
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
        let mut transaction = connection.begin().await?;
        transaction.execute(sqlx::raw_sql(file.sql)).await?;
        sqlx::query(AssertSqlSafe(format!("INSERT INTO {schema}.migration (version, name, hash) VALUES ($1, $2, $3)")))
            .bind(file.version)
            .bind(file.name)
            .bind(&hash)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        tracing::info!(schema, version = file.version, name = file.name, "applied migration");
        Ok(true)
    }
}
