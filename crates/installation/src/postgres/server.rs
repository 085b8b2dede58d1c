//! Looks at a PostgreSQL server, and mends one difference. Names are ours or the operator's and are quoted all the same.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::{ExposeSecret as _, SecretString};
use sluice_db::DbError;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use super::{Action, Admin, Attributes, Database, Observed, Wanted};

/// Advisory lock of the cluster (in the database `postgres`): roles are shared by all databases.
const LOCK: i64 = 0x736c_7569_6365_0001;
/// The database that every server has.
const MAINTENANCE: &str = "postgres";
/// SQLSTATE of a wrong password.
const INVALID_PASSWORD: &str = "28P01";

/// A connection to a server, as our own role.
pub struct Server {
    options: PgConnectOptions,
    connection: PgConnection,
}

impl Server {
    /// Connects. The URL may name any database.
    ///
    /// # Errors
    /// The URL is none, or the server cannot be reached or does not let us in.
    pub async fn connect(url: &SecretString) -> Result<Self, DbError> {
        let options: PgConnectOptions = url.expose_secret().parse().map_err(DbError::Url)?;
        let options = options.disable_statement_logging();
        let connection = options.clone().database(MAINTENANCE).connect().await?;
        Ok(Self { options, connection })
    }

    /// Waits until nobody else changes roles and databases of ours, and keeps others from it until the end of the connection.
    ///
    /// # Errors
    /// The server fails.
    pub async fn lock(&mut self) -> Result<(), DbError> {
        sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Ends the connection.
    ///
    /// # Errors
    /// The server fails.
    pub async fn close(self) -> Result<(), DbError> {
        Ok(self.connection.close().await?)
    }

    /// Looks at everything that [`plan`](super::plan()) compares. Changes nothing.
    ///
    /// # Errors
    /// The server fails.
    pub async fn observe(&mut self, wanted: &Wanted) -> Result<Observed, DbError> {
        let version: String = sqlx::query_scalar("SHOW server_version_num").fetch_one(&mut self.connection).await?;
        let roles = self.roles(wanted).await?;
        let mut databases = BTreeMap::new();
        let mut locked_out = BTreeSet::new();
        for service in &wanted.services {
            if let Some(found) = self.database(&service.database).await? {
                databases.insert(service.database.clone(), found);
            }
            for role in service.roles().into_iter().filter(|role| roles.contains_key(role)) {
                let database = if databases.contains_key(&service.database) { &service.database } else { MAINTENANCE };
                if let Some(password) = wanted.passwords.get(&role)
                    && self.refuses(&role, password, database).await?
                {
                    locked_out.insert(role);
                }
            }
        }
        let version = version.parse().unwrap_or_default();
        Ok(Observed { admin: self.admin().await?, version, roles, locked_out, databases })
    }

    async fn admin(&mut self) -> Result<Admin, DbError> {
        let (name, superuser, create_role, create_database) = sqlx::query_as(
            "SELECT rolname::text, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user",
        )
        .fetch_one(&mut self.connection)
        .await?;
        Ok(Admin { name, superuser, create_role, create_database })
    }

    async fn roles(&mut self, wanted: &Wanted) -> Result<BTreeMap<String, Attributes>, DbError> {
        let names: Vec<String> = wanted.services.iter().flat_map(super::Service::roles).collect();
        let rows: Vec<(String, bool, bool, bool, bool, bool, bool)> = sqlx::query_as(
            "SELECT rolname::text, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls
             FROM pg_roles WHERE rolname = ANY($1)",
        )
        .bind(names)
        .fetch_all(&mut self.connection)
        .await?;
        let role = |(name, login, superuser, create_database, create_role, replication, bypass_rls)| {
            (name, Attributes { login, superuser, create_database, create_role, replication, bypass_rls })
        };
        Ok(rows.into_iter().map(role).collect())
    }

    async fn database(&mut self, name: &str) -> Result<Option<Database>, DbError> {
        let encoding: Option<String> =
            sqlx::query_scalar("SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = $1")
                .bind(name)
                .fetch_optional(&mut self.connection)
                .await?;
        let Some(encoding) = encoding else { return Ok(None) };
        let grants: Vec<(String, String)> = sqlx::query_as(
            "SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type
             FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE d.datname = $1",
        )
        .bind(name)
        .fetch_all(&mut self.connection)
        .await?;
        let public_schema_open = self.public_schema_open(name).await?;
        Ok(Some(Database { encoding, grants: grants.into_iter().collect(), public_schema_open }))
    }

    async fn public_schema_open(&self, database: &str) -> Result<Option<bool>, DbError> {
        let mut inside = match self.inside(database).await {
            Ok(inside) => inside,
            Err(DbError::Denied(_)) => return Ok(None),
            Err(other) => return Err(other),
        };
        let open: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
                            WHERE n.nspname = 'public' AND a.grantee = 0)",
        )
        .fetch_one(&mut inside)
        .await?;
        inside.close().await?;
        Ok(Some(open))
    }

    /// Whether the server says that this is not the role's password. Any other refusal comes after the password, or is about
    /// something else.
    async fn refuses(&self, role: &str, password: &SecretString, database: &str) -> Result<bool, DbError> {
        let options = self.options.clone().username(role).password(password.expose_secret()).database(database);
        match options.connect().await {
            Ok(connection) => {
                connection.close().await?;
                Ok(false)
            }
            Err(error) => match error.as_database_error().and_then(|error| error.code()) {
                Some(code) => Ok(code == INVALID_PASSWORD),
                None => Err(error.into()),
            },
        }
    }

    /// Does it. `password` tells the password of a role, and is asked when one is set.
    ///
    /// # Errors
    /// What the server refuses ([`DbError::Denied`]), and what fails.
    pub async fn apply(
        &mut self,
        action: &Action,
        password: impl FnOnce(&str) -> Option<SecretString>,
    ) -> Result<(), DbError> {
        match action {
            // Whatever a role must not be, a new one is not.
            Action::CreateRole { role } => self.run(&with_password("CREATE", role, password(role))).await,
            Action::SetPassword { role } => self.run(&with_password("ALTER", role, password(role))).await,
            Action::SetAttribute { role, attribute } => {
                self.run(&format!("ALTER ROLE {} {attribute}", quoted(role))).await
            }
            Action::CreateDatabase { database, owner } => {
                if !self.admin().await?.superuser {
                    // Only a member of a role may make it the owner of something.
                    self.run(&format!("GRANT {} TO CURRENT_USER", quoted(owner))).await?;
                }
                self.run(&format!("CREATE DATABASE {} OWNER {}", quoted(database), quoted(owner))).await
            }
            Action::Grant { database, role, privilege } => {
                self.run(&format!("GRANT {privilege} ON DATABASE {} TO {}", quoted(database), quoted(role))).await
            }
            Action::CloseDatabase { database } => {
                self.run(&format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", quoted(database))).await
            }
            Action::CloseSchema { database } => {
                let mut inside = self.inside(database).await?;
                inside.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC").await?;
                Ok(inside.close().await?)
            }
        }
    }

    async fn inside(&self, database: &str) -> Result<PgConnection, DbError> {
        Ok(self.options.clone().database(database).connect().await?)
    }

    async fn run(&mut self, sql: &str) -> Result<(), DbError> {
        self.connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await?;
        Ok(())
    }
}

/// Without a password the role cannot log in until somebody sets one.
fn with_password(verb: &str, role: &str, password: Option<SecretString>) -> String {
    let password = match password {
        Some(password) => format!(" PASSWORD '{}'", password.expose_secret().replace('\'', "''")),
        None => String::new(),
    };
    format!("{verb} ROLE {} LOGIN{password}", quoted(role))
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
