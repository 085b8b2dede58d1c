//! From a configuration file to the end of a process.

use std::path::Path;

use sluice_runtime::config::load;
use sluice_runtime::telemetry::init_tracing;
use tokio_util::sync::CancellationToken;

use crate::config::RoleConfig;
use crate::error::Error;
use crate::process::Process;
use crate::role::Role;

/// Who sets up logging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// The role, as its configuration says.
    AsConfigured,
    /// Somebody has already.
    Already,
}

/// Runs a role from its configuration file until the shutdown. `commit` is what the program was built from.
///
/// # Errors
/// Faults of the configuration, what could not be built, and tasks that ended.
pub async fn run<R: Role>(
    config: &Path,
    commit: &'static str,
    shutdown: CancellationToken,
    logs: Logs,
) -> Result<(), Error> {
    let config: R::Config = load(config)?;
    let _guard = match logs {
        Logs::AsConfigured => Some(init_tracing(config.common().telemetry)?),
        Logs::Already => None,
    };
    Process::<R>::build_from(config, commit).await?.run(shutdown).await
}
