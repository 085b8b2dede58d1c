//! Two kinds of failure inside: an answer that a caller shall read, and the database's. They become one at the edge.

use sluice_db::DbError;
use sluice_types::{Error, Reason};

/// A failure of a change or a read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// To be answered as it is.
    #[error(transparent)]
    Answer(#[from] Error),
    /// The database's.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl Fault {
    /// As the caller gets it.
    pub(crate) fn into_answer(self) -> Error {
        match self {
            Self::Answer(error) => error,
            Self::Database(error) => error.into_error(Reason::ControlPlaneUnavailable),
        }
    }
}

/// Why the process cannot start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A file of the configuration cannot be used.
    #[error("read the file of {0}")]
    File(&'static str, #[source] sluice_runtime::config::FileError),
    /// The operator's token file cannot be made or used.
    #[error("prepare the operator's token file")]
    OperatorToken(#[source] std::io::Error),
    /// Certificates or keys cannot be used.
    #[error("load certificates")]
    Tls(#[from] sluice_runtime::tls::TlsError),
    /// The database refused or is away at start.
    #[error("prepare the database")]
    Database(#[from] DbError),
    /// The Kafka client cannot be made from the configuration.
    #[error("prepare the Kafka client")]
    Kafka(#[from] sluice_wire::Error),
    /// A listener cannot be bound.
    #[error("bind the {0} listener")]
    Bind(&'static str, #[source] std::io::Error),
    /// An RPC has no authorization, or stands on the wrong listener: nothing is served.
    #[error("{0} may not be served here: it has no fitting authorization option")]
    Unauthorized(String),
    /// The operator's listener cannot be built.
    #[error("set up the operator's routes")]
    Routes(#[from] sluice_edge::routes::RoutesError),
    /// The reflection service refuses the descriptors.
    #[error("prepare gRPC reflection: {0}")]
    Reflection(String),
    /// A task that must not end did.
    #[error("{0}")]
    Task(String),
}
