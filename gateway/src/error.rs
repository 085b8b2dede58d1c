//! Why the gateway does not start, or ended. What callers see is `sluice_types::Error`.

use sluice_runtime::config::FileError;
use sluice_runtime::tls::TlsError;

use crate::groups::keyring::KeyRingError;

/// Why [`crate::App::build`] failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A secret cannot be read.
    #[error("read a secret")]
    Secret(#[from] FileError),
    /// The keys of ack ids cannot be used.
    #[error("load the keys of ack ids")]
    AckKeys(#[from] KeyRingError),
    /// Certificates.
    #[error("load certificates")]
    Tls(#[from] TlsError),
    /// The Kafka settings cannot be used.
    #[error("set up the Kafka client")]
    Kafka(#[from] sluice_wire::Error),
    /// The data path cannot be built.
    #[error("set up the data path")]
    Data(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What would be served is not what may be.
    #[error("set up the routes")]
    Routes(#[from] sluice_edge::routes::RoutesError),
    /// A listener cannot be bound, or the data directory not made.
    #[error("bind a listener or make the data directory")]
    Io(#[from] std::io::Error),
}

/// Why [`crate::App::run`] ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A task that must not end did.
    #[error("{0}")]
    Task(String),
}
