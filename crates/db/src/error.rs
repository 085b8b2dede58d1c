//! What can go wrong with the database, by what its user can do about it.

use std::time::Duration;

use sluice_types::{Error, Reason};

/// When a caller should come back after [`DbError::Unavailable`].
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Down, starting, stopping, out of connections, or too slow. What a commit did is unknown.
    #[error("reach the database")]
    Unavailable(#[source] sqlx::Error),
    /// The work as a whole took longer than its limit; what its commit did is unknown.
    #[error("finish the work in the database in time")]
    TimedOut,
    /// A unique constraint.
    #[error("keep the unique constraint {constraint}")]
    Unique {
        /// Its name.
        constraint: String,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// Lost to a concurrent transaction, or waited too long for its lock; nothing was changed and the same work may succeed
    /// now.
    #[error("serialize with concurrent transactions")]
    Conflict(#[source] sqlx::Error),
    /// Row-level security or a missing grant refused it: a fault of ours.
    #[error("be allowed to")]
    Denied(#[source] sqlx::Error),
    /// Anything else: a fault of ours.
    #[error("query the database")]
    Query(#[source] sqlx::Error),
    /// The task that did the work panicked.
    #[error("run the work in the database")]
    Panicked(#[source] tokio::task::JoinError),
    /// A migration that was applied is not the one we have.
    #[error("migration {version} of {schema} was applied with other contents")]
    MigrationChanged {
        /// The schema.
        schema: &'static str,
        /// The migration.
        version: i32,
    },
    /// The configured URL is not one.
    #[error("parse the database URL")]
    Url(#[source] sqlx::Error),
}

impl DbError {
    /// Whether trying again later may help.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::TimedOut)
    }

    /// Whether this unique constraint is the cause.
    pub fn is_unique(&self, name: &str) -> bool {
        matches!(self, Self::Unique { constraint, .. } if constraint == name)
    }

    /// As an answer; `unavailable` says which part of the product is away.
    pub fn into_error(self, unavailable: Reason) -> Error {
        match self {
            Self::Unavailable(_) | Self::TimedOut => {
                Error::unavailable(unavailable, "the database does not answer; try again")
                    .with_retry_after(RETRY_AFTER)
                    .with_source(self)
            }
            Self::Conflict(_) => {
                Error::unavailable(Reason::Contended, "other changes of the same things take long; try again")
                    .with_retry_after(RETRY_AFTER)
                    .with_source(self)
            }
            other => Error::internal(other),
        }
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        let Some(code) = error.as_database_error().and_then(|e| e.code()) else {
            return match error {
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
                other => Self::Query(other),
            };
        };
        match &*code {
            "23505" => {
                let constraint = error.as_database_error().and_then(|e| e.constraint()).unwrap_or_default().to_owned();
                Self::Unique { constraint, source: error }
            }
            "40001" | "40P01" | "55P03" => Self::Conflict(error),
            "42501" => Self::Denied(error),
            // Cancelled by its timeout; idle too long; shut down, crashed, starting; too many connections; read-only.
            "57014" | "25P03" | "57P01" | "57P02" | "57P03" | "53300" | "25006" => Self::Unavailable(error),
            code if code.starts_with("08") => Self::Unavailable(error),
            _ => Self::Query(error),
        }
    }
}
