//! How to reach a stack: what a stack writes to `stack.json` (mode 0600), and what tests and other processes read.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;

/// How to reach a stack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connection {
    /// The stack's directory.
    pub dir: PathBuf,
    /// The CA's certificate, PEM.
    pub ca_file: PathBuf,
    /// Kafka, unless the stack was built without.
    pub kafka: Option<KafkaConnection>,
    /// PostgreSQL, unless the stack was built without.
    pub postgres: Option<PostgresConnection>,
}

/// How to reach Kafka: SASL_SSL, SCRAM-SHA-512, and the CA of [`Connection::ca_file`].
#[derive(Clone, Serialize, Deserialize)]
pub struct KafkaConnection {
    /// `localhost:port` of each broker.
    pub bootstrap: Vec<String>,
    /// The CA's certificate, PEM.
    pub ca_file: PathBuf,
    /// Principal to password; see [`crate::PRINCIPALS`].
    pub users: BTreeMap<String, String>,
}

/// How to reach PostgreSQL as its super user.
#[derive(Clone, Serialize, Deserialize)]
pub struct PostgresConnection {
    /// `127.0.0.1`.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The super user's name.
    pub user: String,
    /// The super user's password (SCRAM-SHA-256).
    pub password: String,
    /// Directory of the Unix socket; `None` when its path would be too long for one.
    pub socket_dir: Option<PathBuf>,
    /// The `psql` that fits the server.
    pub psql: PathBuf,
    /// Lock files of template databases.
    pub lock_dir: PathBuf,
}

impl Connection {
    /// Reads what [`write`](Self::write) wrote.
    pub fn read(path: &Path) -> Result<Connection> {
        let damaged = |error: serde_json::Error| Error::Damaged { path: path.to_path_buf(), detail: error.to_string() };
        serde_json::from_str(&files::read(path)?).map_err(damaged)
    }

    /// Writes it, mode 0600: it holds passwords.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Damaged { path: path.to_path_buf(), detail: error.to_string() })?;
        files::write_secret(path, &text)
    }

    /// Kafka's part; an error when the stack was built without.
    pub fn kafka(&self) -> Result<&KafkaConnection> {
        self.kafka.as_ref().ok_or_else(|| Error::Invalid("this stack has no Kafka".to_owned()))
    }

    /// PostgreSQL's part; an error when the stack was built without.
    pub fn postgres(&self) -> Result<&PostgresConnection> {
        self.postgres.as_ref().ok_or_else(|| Error::Invalid("this stack has no PostgreSQL".to_owned()))
    }
}

impl KafkaConnection {
    /// The bootstrap list as one string with commas.
    pub fn bootstrap_servers(&self) -> String {
        self.bootstrap.join(",")
    }

    /// The password of a principal.
    pub fn password(&self, user: &str) -> Result<&str> {
        let password = self.users.get(user).map(String::as_str);
        password.ok_or_else(|| Error::Invalid(format!("the local Kafka has no user {user}")))
    }

    /// Settings for any client that takes librdkafka's names, as this user.
    pub fn librdkafka_settings(&self, user: &str) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("bootstrap.servers", self.bootstrap_servers()),
            ("security.protocol", "SASL_SSL".to_owned()),
            ("sasl.mechanism", "SCRAM-SHA-512".to_owned()),
            ("sasl.username", user.to_owned()),
            ("sasl.password", self.password(user)?.to_owned()),
            ("ssl.ca.location", self.ca_file.to_string_lossy().into_owned()),
        ])
    }
}

impl PostgresConnection {
    /// URL of a database, as the super user, over TCP.
    pub fn url(&self, database: &str) -> String {
        self.url_as(&self.user, &self.password, database)
    }

    /// URL of a database as another role.
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@{}:{}/{database}?sslmode=disable", self.host, self.port)
    }
}

impl fmt::Debug for KafkaConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<&String> = self.users.keys().collect();
        f.debug_struct("KafkaConnection").field("bootstrap", &self.bootstrap).field("users", &users).finish()
    }
}

impl fmt::Debug for PostgresConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConnection").field("port", &self.port).field("user", &self.user).finish()
    }
}
