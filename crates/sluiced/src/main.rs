//! `sluiced`: `gateway`, `control-plane`, `provisioning`, `billing`, each from its own configuration, `up` for all of it, and
//! `install` for what they need.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sluice_runtime::config::ConfigError;
use sluiced::role::{self, Role};
use sluiced::{install, up};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The server of Sluice.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The data plane's public door
    Gateway(Config),
    /// Intent: tenants, namespaces, topics, accounts, keys
    ControlPlane(Config),
    /// Makes Kafka match the intent
    Provisioning(Config),
    /// Usage
    Billing(Config),
    /// Makes a Kafka cluster and a PostgreSQL server ready, or says what is missing
    Install(install::Args),
    /// All of it on this machine, with a real Kafka and PostgreSQL
    Up(up::Args),
}

#[derive(clap::Args)]
struct Config {
    /// The configuration file (TOML)
    #[arg(long)]
    config: PathBuf,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Its own code for wrong usage would be 2, which `install` has for "something differs".
            let code = if error.use_stderr() { ConfigError::EXIT_CODE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match cli.command {
        Command::Gateway(args) => role::main(Role::Gateway, &args.config),
        Command::ControlPlane(args) => role::main(Role::ControlPlane, &args.config),
        Command::Provisioning(args) => role::main(Role::Provisioning, &args.config),
        Command::Billing(args) => role::main(Role::Billing, &args.config),
        Command::Install(args) => install::main(&args),
        Command::Up(args) => up::main(args),
    }
}
