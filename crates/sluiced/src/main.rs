//! `sluiced`: `gateway`, `control-plane`, `provisioning`, `billing`, each from its own configuration, or `up` for all of it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sluiced::role::{self, Role};
use sluiced::up;

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
    match Cli::parse().command {
        Command::Gateway(args) => role::main(Role::Gateway, &args.config),
        Command::ControlPlane(args) => role::main(Role::ControlPlane, &args.config),
        Command::Provisioning(args) => role::main(Role::Provisioning, &args.config),
        Command::Billing(args) => role::main(Role::Billing, &args.config),
        Command::Up(args) => up::main(args),
    }
}
