//! What can go wrong while starting or steering the local stack, named for what the caller wanted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::preflight::Missing;

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the local stack could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Programs that the stack runs are not installed. The text names all of them and the command that installs them.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A file or directory of the stack could not be used.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done, as a verb phrase.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A helper program ended with an error.
    #[error("{what} failed: {detail}")]
    Command {
        /// What the program was run for.
        what: String,
        /// Its exit status and the end of its output.
        detail: String,
    },
    /// A process ended before it was ready.
    #[error("{name} ended before it was ready ({status}); the end of its log {}:\n{tail}", log.display())]
    Ended {
        /// The process's name in this stack.
        name: String,
        /// How it ended.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A process ended that had been ready.
    #[error("{name} ended ({status}); its log: {}", log.display())]
    Died {
        /// The process's name in this stack.
        name: String,
        /// How it ended.
        status: String,
        /// Its log file.
        log: PathBuf,
    },
    /// Something did not happen before its deadline.
    #[error("{what} did not happen within {} ms{}", after.as_millis(), detail_suffix(detail))]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// The last thing seen, or empty.
        detail: String,
    },
    /// The data directory is used by a stack that still runs.
    #[error("the directory {} is in use by another running stack", .0.display())]
    InUse(PathBuf),
    /// A certificate could not be made.
    #[error("issue a development certificate")]
    Certificate(#[from] rcgen::Error),
    /// A file written by an earlier run cannot be understood.
    #[error("read {}: {detail}; remove it (or the whole data directory) to start anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The local Kafka refused, or did not answer.
    #[error("{what} failed")]
    Kafka {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        #[source]
        source: sluice_wire::Error,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { what, path, source }
    }
}

fn detail_suffix(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}
