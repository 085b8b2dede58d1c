//! `sluiced install`: makes an existing Kafka cluster and PostgreSQL server ready for us, or says what is missing.
//!
//! It asks nothing, prints no secret, and touches nothing that carries no name of ours; what it knows of Kafka and PostgreSQL is
//! in `sluice_installation`. Exit codes: 0 nothing to do, 2 something differs (after `--apply`: still), 1 it failed, 64 it was
//! called or configured wrongly.

mod config;
mod kafka;
mod postgres;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use sluice_runtime::config::{ConfigError, load};

use self::config::Config;
use self::report::{Report, Row};
use crate::secrets::Secrets;

/// Something is not as it must be.
const DIFFERENT: u8 = 2;

/// Options of `install`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("mode").required(true))]
pub struct Args {
    /// The configuration file (TOML); docs/reference/install.md has an example
    #[arg(long)]
    config: PathBuf,
    /// Say what is missing and what differs; change nothing
    #[arg(long, group = "mode")]
    check: bool,
    /// Say what --apply would do; change nothing
    #[arg(long, group = "mode")]
    plan: bool,
    /// Make what is missing and set right what differs
    #[arg(long, group = "mode")]
    apply: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// How to print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    Table,
    /// One JSON object
    Json,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Check,
    Plan,
    Apply,
}

impl Args {
    fn mode(&self) -> Mode {
        match (self.apply, self.plan) {
            (true, _) => Mode::Apply,
            (_, true) => Mode::Plan,
            _ => Mode::Check,
        }
    }
}

/// Runs it.
pub fn main(args: &Args) -> ExitCode {
    let config: Config = match load(&args.config) {
        Ok(config) => config,
        Err(error) => return refused(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let mode = args.mode();
    match runtime.block_on(run(&config, mode)) {
        Ok(report) => {
            match args.output {
                Output::Table => report.print_table(mode),
                Output::Json => report.print_json(),
            }
            if let Some(error) = &report.failed {
                return failed(error);
            }
            if report.rows.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) }
        }
        Err(error) => failed(&error),
    }
}

fn refused(error: &ConfigError) -> ExitCode {
    eprintln!("error: {error}");
    error.exit_code()
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

async fn run(config: &Config, mode: Mode) -> Result<Report> {
    let secrets = Secrets::in_dir(&config.secrets_dir);
    if mode == Mode::Apply {
        secrets.make_dir()?;
    }
    let mut report = Report::default();
    if let Some(section) = &config.kafka {
        let mut target = kafka::Target::new(config, section, &secrets).context("prepare for Kafka")?;
        let differences = match mode {
            Mode::Apply => {
                target.apply(&mut report).await?;
                if report.failed.is_some() {
                    return Ok(report);
                }
                target.left().await?
            }
            Mode::Check | Mode::Plan => target.differences().await?,
        };
        report.rows.extend(differences.iter().map(Row::of));
    }
    if let Some(section) = &config.postgres
        && report.failed.is_none()
    {
        let target = postgres::Target::new(section, &secrets)?;
        if mode == Mode::Apply {
            target.apply(&mut report).await?;
        }
        report.rows.extend(target.differences().await?);
    }
    Ok(report)
}
