//! Why billing does not start, or ended.

use sluice_db::DbError;
use sluice_runtime::config::FileError;
use sluice_runtime::tls::TlsError;

/// Why [`crate::App::build`] failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A secret cannot be read.
    #[error("read a secret")]
    Secret(#[from] FileError),
    /// Certificates.
    #[error("load certificates")]
    Tls(#[from] TlsError),
    /// The Kafka settings cannot be used.
    #[error("set up the Kafka client")]
    Kafka(#[from] sluice_wire::Error),
    /// The database settings cannot be used.
    #[error("set up the database")]
    Database(#[from] DbError),
    /// A listener cannot be bound.
    #[error("bind a listener")]
    Listen(#[from] std::io::Error),
}

/// Why [`crate::App::run`] ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The schema cannot be brought up to date.
    #[error("migrate the database")]
    Migrate(#[source] DbError),
    /// A task that must not end did.
    #[error("{0}")]
    Task(String),
}
