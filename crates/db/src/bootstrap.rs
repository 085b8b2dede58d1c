//! Making a service's roles and database, with the super user's URL. Harmless to repeat, from several processes at once.
//!
//! On a laptop and in tests `devstack` has a super user; in production a person runs the same three statements once.

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use crate::config::connect_options;
use crate::error::DbError;

/// Advisory lock of the cluster (in the database `postgres`): roles are shared by all databases.
const LOCK: i64 = 0x736c_7569_6365_0001;

/// The three roles of one service, `sluice_{service}_{owner|app|system}`, with their passwords.
#[derive(Debug, Clone)]
pub struct Roles {
    /// E.g. `control`.
    pub service: &'static str,
    /// Owns the schema; migrates.
    pub owner_password: SecretString,
    /// Serves tenants, under row-level security.
    pub app_password: SecretString,
    /// Relays, reconcilers, operator.
    pub system_password: SecretString,
}

impl Roles {
    /// Name of a role.
    pub fn name(&self, part: &str) -> String {
        format!("sluice_{}_{part}", self.service)
    }

    fn all(&self) -> [(String, &SecretString); 3] {
        [
            (self.name("owner"), &self.owner_password),
            (self.name("app"), &self.app_password),
            (self.name("system"), &self.system_password),
        ]
    }
}

/// Creates the roles and the database where they are missing, and sets the passwords.
///
/// `superuser_url` may name any database; `database` is `[a-z0-9_]+`.
pub async fn bootstrap(superuser_url: &SecretString, database: &str, roles: &Roles) -> Result<(), DbError> {
    let options = connect_options(superuser_url)?;
    let mut cluster = connect(options.clone().database("postgres")).await?;
    sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut cluster).await?;
    for (role, password) in roles.all() {
        ensure_role(&mut cluster, &role, password).await?;
    }
    let owner = roles.name("owner");
    let exists: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
        .bind(database)
        .fetch_optional(&mut cluster)
        .await?;
    if exists.is_none() {
        run(&mut cluster, format!("CREATE DATABASE {} OWNER {owner}", quoted(database))).await?;
    }
    cluster.close().await?;

    let mut inside = connect(options.database(database)).await?;
    let (app, system, name) = (roles.name("app"), roles.name("system"), quoted(database));
    run(
        &mut inside,
        format!(
            "SELECT pg_advisory_lock({LOCK});
             REVOKE ALL ON DATABASE {name} FROM PUBLIC;
             GRANT CREATE, CONNECT ON DATABASE {name} TO {owner};
             GRANT CONNECT ON DATABASE {name} TO {app}, {system};
             REVOKE ALL ON SCHEMA public FROM PUBLIC;"
        ),
    )
    .await?;
    inside.close().await?;
    Ok(())
}

/// No role of ours may bypass row-level security, make roles or make databases.
async fn ensure_role(cluster: &mut PgConnection, role: &str, password: &SecretString) -> Result<(), DbError> {
    let exists: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_roles WHERE rolname = $1")
        .bind(role)
        .fetch_optional(&mut *cluster)
        .await?;
    let verb = if exists.is_some() { "ALTER" } else { "CREATE" };
    let password = password.expose_secret().replace('\'', "''");
    run(
        cluster,
        format!(
            "{verb} ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '{password}'"
        ),
    )
    .await
}

async fn connect(options: PgConnectOptions) -> Result<PgConnection, DbError> {
    Ok(options.disable_statement_logging().connect().await?)
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), DbError> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    Ok(())
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
