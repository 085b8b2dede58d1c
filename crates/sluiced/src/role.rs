//! The roles of this program, and one of them from its configuration file to its exit code.

use std::path::Path;
use std::process::ExitCode;

use sluice_process::{Error, Logs};
use sluice_runtime::shutdown::shutdown_signal;
use sluice_version::COMMIT;
use tokio_util::sync::CancellationToken;

/// The table of roles: for each line, its name here and its type.
macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident: $role:ty,)*) => {
        /// A role.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Role {
            $($(#[$doc])* $name,)*
        }

        impl Role {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The subcommand, and the name in certificates, files and logs.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => <$role as sluice_process::Role>::NAME,)*
                }
            }

            /// What it is for, in a line.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$name => <$role as sluice_process::Role>::ABOUT,)*
                }
            }

            /// Runs it until the shutdown.
            ///
            /// # Errors
            /// Faults of the configuration, what could not be built, and tasks that ended.
            pub async fn run(self, config: &Path, shutdown: CancellationToken, logs: Logs) -> Result<(), Error> {
                match self {
                    $(Self::$name => sluice_process::run::<$role>(config, COMMIT, shutdown, logs).await,)*
                }
            }
        }
    };
}

roles! {
    /// `sluiced gateway`.
    Gateway: sluice_gateway::Gateway,
    /// `sluiced control-plane`.
    ControlPlane: sluice_control_plane::ControlPlane,
    /// `sluiced provisioning`.
    Provisioning: sluice_provisioning::Provisioning,
    /// `sluiced billing`.
    Billing: sluice_billing::Billing,
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
        let shutdown = shutdown_signal().map_err(|error| Error::setup("listen for signals", error))?;
        role.run(config, shutdown, Logs::AsConfigured).await
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Config(faults)) => {
            eprintln!("error: {faults}");
            faults.exit_code()
        }
        Err(error) => {
            let error = anyhow::Error::from(error);
            tracing::error!(error = format!("{error:#}"), role = role.as_str(), "the process ends");
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
