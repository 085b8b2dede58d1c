//! `sluice`: the command line of tenants and operators.
//!
//! A thin client of the public API over gRPC. Keys come from the environment or a file, never from an argument, where other
//! users of the machine could read them. Output is a table for people, or `--output json` for scripts; progress and notes go
//! to standard error. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
#![allow(clippy::print_stdout, reason = "standard output is what this program is for")]

mod args;
mod commands;
mod connect;
mod failure;
mod input;
mod output;
mod revision;
mod when;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(commands::run(cli));
    // A read of standard input that still waits must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // A reader such as `head` that has seen enough is no failure.
        Err(error) if failure::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", failure::text(&error));
            ExitCode::from(failure::code(&error))
        }
    }
}
