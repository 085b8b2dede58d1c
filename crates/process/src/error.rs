//! Why a process does not start, or ended.

use sluice_db::DbError;
use sluice_runtime::config::{ConfigError, FileError};
use sluice_runtime::telemetry::TelemetryError;
use sluice_runtime::tls::TlsError;

/// Any error.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a process does not start, or ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has faults.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Logs cannot be started.
    #[error("start the logs")]
    Logs(#[from] TelemetryError),
    /// A file of the configuration cannot be used.
    #[error("read the file of {0}")]
    File(&'static str, #[source] FileError),
    /// Certificates or keys cannot be used.
    #[error("load certificates")]
    Tls(#[from] TlsError),
    /// The Kafka settings cannot be used.
    #[error("set up the Kafka client")]
    Kafka(#[from] sluice_wire::Error),
    /// The database settings cannot be used.
    #[error("set up the database")]
    Database(#[from] DbError),
    /// A listener cannot be bound.
    #[error("bind the {0} listener")]
    Bind(&'static str, #[source] std::io::Error),
    /// Something of the role's own cannot be set up; the text says what.
    #[error("{0}")]
    Setup(&'static str, #[source] BoxError),
    /// What would be served may not be.
    #[error("{0}")]
    Refused(String),
    /// The schema cannot be brought up to date.
    #[error("migrate the database")]
    Migrate(#[source] DbError),
    /// A task that must not end did.
    #[error("{0}")]
    Task(String),
}

impl Error {
    /// Something of the role's own cannot be set up; `what` is an imperative: "load the keys".
    pub fn setup(what: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Setup(what, source.into())
    }
}
