//! Starts processes and temporary directories that end with us.
//!
//! A [`Supervisor`] owns one watchdog. Dropping it ends everything that was started through it, within 10 s, and removes
//! its temporary directories; so does the end of this process, however it comes.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::paths;
use crate::process::{ProcessHandle, ProcessSpec};
use crate::ready::tail;

/// Owner of child processes and temporary directories.
pub struct Supervisor {
    guard: Arc<Guard>,
}

impl Supervisor {
    /// Starts the watchdog.
    pub fn new() -> Result<Supervisor> {
        Self::holding(None)
    }

    /// As [`new`](Self::new); `lock` stays locked until all is cleaned up.
    pub(crate) fn holding(lock: Option<&File>) -> Result<Supervisor> {
        Ok(Supervisor { guard: Arc::new(Guard::start(lock)?) })
    }

    /// A second owner of the same watchdog, for the parts of a stack. All of them must be dropped together.
    pub(crate) fn share(&self) -> Supervisor {
        Supervisor { guard: Arc::clone(&self.guard) }
    }

    /// Starts a process. It inherits our environment; its standard input is empty.
    pub fn spawn(&self, spec: &ProcessSpec) -> Result<ProcessHandle> {
        ProcessHandle::spawn(spec, &self.guard)
    }

    /// Runs a program to its end; anything but exit 0 within the deadline is an error with the end of its log.
    pub(crate) async fn run(&self, spec: &ProcessSpec, within: Duration) -> Result<()> {
        let process = self.spawn(spec)?;
        let what = format!("{} ending", process.name());
        let Ok(status) = tokio::time::timeout(within, process.wait()).await else {
            process.kill9().await;
            return Err(Error::Deadline { what, after: within, detail: tail(process.log_file()) });
        };
        if status.success() {
            return Ok(());
        }
        let detail = format!("{status}; the end of {}:\n{}", process.log_file().display(), tail(process.log_file()));
        Err(Error::Command { what: process.name().to_owned(), detail })
    }

    /// Makes a directory under the system's temporary one, mode 0755 (PostgreSQL may run as another user), removed at
    /// the end.
    pub fn temp_dir(&self, prefix: &str) -> Result<PathBuf> {
        let parent = paths::temp_dir();
        let dir = tempfile::Builder::new()
            .prefix(prefix)
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in(&parent)
            .map_err(Error::io("make a temporary directory in", &parent))?;
        self.guard.remove_at_end(dir.path())?;
        Ok(dir.keep())
    }
}
