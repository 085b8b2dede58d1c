//! One role: from its configuration file to its exit code.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use sluice_runtime::config::{ConfigError, load};
use sluice_runtime::shutdown::shutdown_signal;
use sluice_runtime::telemetry::{TelemetryConfig, init_tracing};
use tokio_util::sync::CancellationToken;

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `sluiced control-plane`.
    ControlPlane,
    /// `sluiced provisioning`.
    Provisioning,
    /// `sluiced billing`.
    Billing,
    /// `sluiced gateway`.
    Gateway,
}

impl Role {
    /// The subcommand, and the name in certificates, files and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Provisioning => "provisioning",
            Self::Billing => "billing",
            Self::Gateway => "gateway",
        }
    }
}

/// Runs a role as this process.
pub fn main(role: Role, config: &Path) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        let shutdown = shutdown_signal().context("listen for signals")?;
        run(role, config, shutdown, Logs::AsConfigured).await
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<ConfigError>() {
            Some(faults) => {
                eprintln!("error: {faults}");
                faults.exit_code()
            }
            None => {
                tracing::error!(error = format!("{error:#}"), role = role.as_str(), "the process ends");
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Who sets up logging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// The role, as its configuration says.
    AsConfigured,
    /// Somebody has already.
    Already,
}

/// Runs a role until the shutdown.
///
/// # Errors
/// Faults of the configuration, what could not be built, and tasks that ended.
pub async fn run(role: Role, config: &Path, shutdown: CancellationToken, logs: Logs) -> Result<()> {
    match role {
        Role::ControlPlane => {
            let config: sluice_control_plane::Config = load(config)?;
            let _guard = start_logs(logs, &config.telemetry)?;
            sluice_control_plane::App::build(config).await?.run(shutdown).await?;
        }
        Role::Provisioning => {
            let config: sluice_provisioning::Config = load(config)?;
            let _guard = start_logs(logs, &config.telemetry)?;
            sluice_provisioning::App::build(config).await?.run(shutdown).await?;
        }
        Role::Billing => {
            let config: sluice_billing::Config = load(config)?;
            let _guard = start_logs(logs, &config.telemetry)?;
            sluice_billing::App::build(config).await?.run(shutdown).await?;
        }
        Role::Gateway => {
            let config: sluice_gateway::Config = load(config)?;
            let _guard = start_logs(logs, &config.telemetry)?;
            sluice_gateway::App::build(config).await?.run(shutdown).await?;
        }
    }
    Ok(())
}

fn start_logs(logs: Logs, config: &TelemetryConfig) -> Result<Option<sluice_runtime::telemetry::Guard>> {
    Ok(match logs {
        Logs::AsConfigured => Some(init_tracing(config)?),
        Logs::Already => None,
    })
}
