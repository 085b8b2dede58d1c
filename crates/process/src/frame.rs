//! What a role is built with: everything that every process has, made once and in one way.

use std::net::SocketAddr;

use secrecy::SecretString;
use sluice_db::{Database, DbConfig, Migrations};
use sluice_runtime::config::{DatabaseConfig, KafkaConfig, SecretFile};
use sluice_runtime::server::bind;
use sluice_runtime::tls::InternalTls;
use sluice_runtime::{FailPoints, Health, Metrics, TaskSet};
use sluice_wire::{Client, ClientConfig, ScramSha512, Security};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clusters::Clusters;
use crate::config::Common;
use crate::error::Error;

/// What a role is built with.
pub struct Frame {
    /// The role's name.
    pub name: &'static str,
    /// The commit that this program was built from, or `unknown`.
    pub commit: &'static str,
    /// What the process says of itself; not ready until the role says so.
    pub health: Health,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The Kafka clusters that the configuration names.
    pub clusters: Clusters,
    /// The first of them, which has the internal topics, by our own client. Connects when it is first used.
    pub kafka: Client,
    /// Who we are to the other processes.
    pub internal_tls: InternalTls,
    /// Where a test lets the process die.
    pub fail_points: FailPoints,
    /// The process's tasks. Their token is cancelled by the stops, or when a critical task ends.
    pub tasks: TaskSet,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) schema: Option<Schema>,
}

/// The schema that the role owns, and as whom it is brought up to date.
pub(crate) struct Schema {
    pub(crate) owner_url: SecretString,
    pub(crate) migrations: &'static Migrations,
}

impl Frame {
    /// Of the role `name`, from the settings that all roles share. Waits for nobody: Kafka and PostgreSQL may come later.
    ///
    /// # Errors
    /// A file of the configuration cannot be used.
    pub fn new(name: &'static str, commit: &'static str, common: &Common<'_>) -> Result<Self, Error> {
        let clusters = Clusters::new(name, common.kafka, common.clusters)?;
        let fail_points = common.testing.map(|(testing, places)| FailPoints::new(places, testing.crash_at.clone()));
        Ok(Self {
            name,
            commit,
            health: Health::new(),
            metrics: Metrics::new(),
            kafka: clusters.system().client.clone(),
            clusters,
            internal_tls: InternalTls::load(common.internal_tls)?,
            fail_points: fail_points.unwrap_or_default(),
            tasks: TaskSet::new(name, CancellationToken::new()),
            admin_listen: common.admin_listen.addr(),
            schema: None,
        })
    }

    /// The database of the schema that the role owns. It is brought up to date before the role starts, and the process is not ready
    /// while it does not answer. Gives the settings as well, for connections that are reserved for a purpose.
    ///
    /// # Errors
    /// A file of the configuration cannot be used.
    pub fn database(
        &mut self,
        config: &DatabaseConfig,
        migrations: &'static Migrations,
        adjust: impl FnOnce(&mut DbConfig),
    ) -> Result<(Database, DbConfig), Error> {
        let app_url = secret("database.app_url_file", &config.app_url_file)?;
        let system_url = secret("database.system_url_file", &config.system_url_file)?;
        let owner_url =
            config.owner_url_file.as_ref().map(|file| secret("database.owner_url_file", file)).transpose()?;
        self.schema = owner_url.map(|owner_url| Schema { owner_url, migrations });
        self.health.require("database");
        let mut config = DbConfig::new(format!("sluice-{}", self.name), app_url, system_url);
        adjust(&mut config);
        Ok((Database::open(&config)?, config))
    }

    /// Binds a listener; the name is for the failure.
    ///
    /// # Errors
    /// It cannot be bound.
    pub async fn bind(&self, name: &'static str, addr: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
        let listener = bind(addr).await.map_err(|error| Error::Bind(name, error))?;
        let addr = listener.local_addr().map_err(|error| Error::Bind(name, error))?;
        Ok((listener, addr))
    }
}

/// The secret in the file of a key of the configuration.
///
/// # Errors
/// The file cannot be used.
pub fn secret(key: &'static str, file: &SecretFile) -> Result<SecretString, Error> {
    file.read().map_err(|error| Error::File(key, error))
}

/// Our own client of a cluster. Connects when it is first used.
pub(crate) fn kafka_client(name: &str, key: &'static str, config: &KafkaConfig) -> Result<Client, Error> {
    let password = secret(key, &config.password_file)?;
    let security = Security {
        tls: Some(config.rustls_client_config()?),
        sasl: Some(ScramSha512 { user: config.username.clone(), password }),
    };
    let config = ClientConfig::new(config.bootstrap.clone()).with_security(security);
    Ok(Client::new(config.with_client_id(format!("sluice-{name}")))?)
}
