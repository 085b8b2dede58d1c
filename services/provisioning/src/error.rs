//! Why provisioning does not start, or ended.

use sluice_runtime::config::FileError;
use sluice_runtime::tls::TlsError;

/// Why [`crate::App::build`] failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A secret cannot be read.
    #[error("read a secret")]
    Secret(#[from] FileError),
    /// Certificates, or the control plane's address.
    #[error("load certificates")]
    Tls(#[from] TlsError),
    /// The Kafka settings cannot be used.
    #[error("set up the Kafka client")]
    Kafka(#[from] sluice_wire::Error),
    /// A listener cannot be bound.
    #[error("bind a listener")]
    Listen(#[from] std::io::Error),
}

/// Why [`crate::App::run`] ended without being asked to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);
