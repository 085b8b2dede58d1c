//! `sluiced up`: everything on this machine, in one process or, with `--separate`, one per role.

mod demo_tenant;
mod greeting;
mod logs;
mod preconditions;
mod roles;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sluice_devstack::{DataDir, Stack, preflight};
use sluice_runtime::shutdown::shutdown_signal;
use tokio_util::sync::CancellationToken;

use crate::local::{Layout, Local};
use demo_tenant::DemoTenant;

/// Options of `up`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where data, secrets and logs are kept
    #[arg(long, default_value = ".sluice")]
    pub data_dir: PathBuf,
    /// Port of the first gateway
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Port of the operator listener
    #[arg(long, default_value_t = 8090, value_parser = clap::value_parser!(u16).range(1..))]
    pub operator_port: u16,
    /// How many gateways
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub gateways: u8,
    /// Every role as a process of its own
    #[arg(long)]
    pub separate: bool,
}

/// Runs it; Ctrl-C ends it.
pub fn main(args: Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<AlreadyReported>() {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// A failure that the person has read already.
#[derive(Debug)]
struct AlreadyReported;

impl std::fmt::Display for AlreadyReported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("told already")
    }
}

impl std::error::Error for AlreadyReported {}

async fn run(args: Args) -> Result<()> {
    let started = Instant::now();
    let shutdown = shutdown_signal().context("listen for signals")?;
    let dir = data_dir(&args.data_dir)?;
    preconditions::check(&args, &dir).await?;
    logs::to_file(&dir.join("logs"))?;
    let step = |what: &str| eprintln!("{:>6.1} s  {what}", started.elapsed().as_secs_f64());

    let needs = preflight::Needs { kafka: true, postgres: true };
    // Maven is looked for only when it is needed.
    if preflight::check(needs)?.mvn.is_some() {
        step("fetching Kafka's jars with Maven (44 MB, only this once), then starting Kafka 4.3.1 and PostgreSQL");
    } else {
        step("starting Kafka 4.3.1 and PostgreSQL");
    }
    let stack = tokio::select! {
        stack = Stack::builder().data_dir(DataDir::Persistent(dir.join("stack"))).build() => stack?,
        () = tell_of_waiting(&step) => return Ok(()),
        () = shutdown.cancelled() => {
            eprintln!("stopping");
            return Ok(());
        }
    };
    let outcome = with_stack(&args, &dir, &stack, &shutdown, &step).await;
    stack.stop().await;
    if outcome.is_ok() {
        step("stopped");
    }
    outcome
}

/// Runs the roles beside the stack until a signal; they have ended when this returns.
async fn with_stack(
    args: &Args,
    dir: &Path,
    stack: &Stack,
    shutdown: &CancellationToken,
    step: &impl Fn(&str),
) -> Result<()> {
    let layout = Layout {
        gateways: args.gateways.into(),
        public_port: Some(args.port),
        operator_port: Some(args.operator_port),
        ..Layout::default()
    };
    step("starting control plane, provisioning, billing and gateway");
    let local = Local::prepare(stack, dir, &layout).await?;
    let stop_roles = CancellationToken::new();
    let mut running = roles::start(&local, args.separate, stack, stop_roles.clone())?;
    let outcome = serve(&local, stack, &mut running, shutdown, step).await;

    match &outcome {
        Ok(()) => eprintln!("stopping"),
        Err(error) => eprintln!("error: {error:#}\nstopping everything"),
    }
    stop_roles.cancel();
    running.stopped(Duration::from_secs(40)).await;
    outcome.map_err(|_| AlreadyReported.into())
}

/// Until a signal, or until something ends that must not: a role, Kafka, PostgreSQL.
async fn serve(
    local: &Local,
    stack: &Stack,
    running: &mut roles::Running,
    shutdown: &CancellationToken,
    step: &impl Fn(&str),
) -> Result<()> {
    let ready = async {
        roles::ready(local, Duration::from_secs(60)).await?;
        DemoTenant::make_or_find(local).await
    };
    let tenant = tokio::select! {
        // First: a role that cannot work without it may end, too.
        biased;
        failure = stack.ended() => return Err(failure.into()),
        tenant = ready => tenant?,
        failure = running.ended() => return Err(failure),
        () = shutdown.cancelled() => return Ok(()),
    };
    step("ready");
    eprintln!("{}", greeting::text(local, &tenant));
    tokio::select! {
        biased;
        failure = stack.ended() => Err(failure.into()),
        failure = running.ended() => Err(failure),
        () = shutdown.cancelled() => Ok(()),
    }
}

/// A line now and then, so that a slow start does not look like a stuck one. Never returns.
async fn tell_of_waiting(step: &impl Fn(&str)) {
    let mut every = tokio::time::interval(Duration::from_secs(10));
    every.reset();
    loop {
        every.tick().await;
        step("still starting");
    }
}

fn data_dir(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
    path.canonicalize().with_context(|| format!("find {}", path.display()))
}
