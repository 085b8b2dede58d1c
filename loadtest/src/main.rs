//! `sluice-loadtest`: the demo on real input, and measurements beside a bare Kafka client in the same run.
//!
//! Everything runs on this machine's loopback, is bounded in time and count, and ends by itself.
#![allow(clippy::print_stdout, reason = "a command line program")]

mod demo;
mod flights;
mod groups;
mod measure;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Two tenants stream a year of flights through two gateways; every count is compared
    Demo(demo::Args),
    /// Throughput, CPU, latency and memory beside a bare librdkafka producer
    Measure(measure::Args),
    /// Consumer groups beside a bare librdkafka consumer, many idle groups, takeovers
    Groups(groups::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => demo::run(args).await,
            Command::Measure(args) => measure::run(args).await,
            Command::Groups(args) => groups::run(args).await,
        }
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where the binaries of this build lie.
pub(crate) fn binaries() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().map(PathBuf::from).unwrap_or_default()
}
