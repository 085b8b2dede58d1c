//! `devstack run -- <command>`: a real Kafka and PostgreSQL around a command, gone when it ends.
//! `devstack serve`: the same, kept until Ctrl-C, for working by hand.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use sluice_devstack::{DataDir, ProcessSpec, Stack, paths};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str =
    "usage: devstack run [--brokers N] -- <command> [argument…]\n       devstack serve [--brokers N] [--dir DIRECTORY]";
const COMMAND_GRACE: Duration = Duration::from_secs(10);

enum Mode {
    Run(Vec<String>),
    Serve(DataDir),
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match run().await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<ExitCode> {
    let (mode, brokers) = parse(std::env::args().skip(1))?;
    let data_dir = match &mode {
        Mode::Run(_) => DataDir::Temporary,
        Mode::Serve(dir) => dir.clone(),
    };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stopped = async {
        tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
    };
    tokio::pin!(stopped);
    let build = Stack::builder().brokers(brokers).data_dir(data_dir).build();
    let stack = tokio::select! {
        stack = build => stack?,
        () = &mut stopped => return Ok(ExitCode::from(130)),
    };
    let file = stack.connection_file();
    tracing::info!(file = %file.display(), "the stack serves");
    let code = match mode {
        Mode::Serve(_) => {
            stopped.await;
            ExitCode::SUCCESS
        }
        Mode::Run(command) => {
            let spec = ProcessSpec::new(&command[0], &command[0], PathBuf::new())
                .args(&command[1..])
                .env(paths::STACK_VARIABLE, file.to_string_lossy())
                .inherit_output();
            let command = stack.supervisor().spawn(&spec)?;
            let status = tokio::select! {
                status = command.wait() => status,
                () = stopped => command.stop(COMMAND_GRACE).await,
            };
            // Its data is thrown away: a good end would close thousands of logs for nothing.
            stack.kafka()?.kill_all().await;
            // Ended by a signal: no code of its own.
            ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(130))
        }
    };
    stack.stop().await;
    Ok(code)
}

fn parse(args: impl Iterator<Item = String>) -> anyhow::Result<(Mode, u32)> {
    let mut args = args;
    let verb = args.next().context(USAGE)?;
    let (mut brokers, mut dir) = (1, DataDir::Temporary);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--brokers" => brokers = args.next().context(USAGE)?.parse().context(USAGE)?,
            "--dir" if verb == "serve" => dir = DataDir::Persistent(args.next().context(USAGE)?.into()),
            "--" if verb == "run" => {
                let command: Vec<String> = args.collect();
                anyhow::ensure!(!command.is_empty(), USAGE);
                return Ok((Mode::Run(command), brokers));
            }
            _ => bail!(USAGE),
        }
    }
    if verb == "serve" { Ok((Mode::Serve(dir), brokers)) } else { bail!(USAGE) }
}
