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
