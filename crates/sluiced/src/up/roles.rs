//! The roles of `up`: tasks of this process, or processes of their own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use sluice_devstack::{ProcessHandle, ProcessSpec, Ready, Stack};
use sluice_process::Logs;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::local::{Instance, Local};
use crate::role::Role;

const GRACE: Duration = Duration::from_secs(35);

/// Everything that was started. The gateways end before what they need.
pub(super) struct Running {
    tasks: JoinSet<Result<()>>,
    names: HashMap<Id, String>,
    logs: PathBuf,
}

/// Starts every instance; `stop` ends them all, in order.
pub(super) fn start(local: &Local, separate: bool, stack: &Stack, stop: CancellationToken) -> Result<Running> {
    let mut tasks = JoinSet::new();
    let mut names = HashMap::new();
    let stop_others = CancellationToken::new();
    let gateways_left = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(
        local.instances.iter().filter(|instance| instance.role == Role::Gateway).count(),
    ));
    for instance in local.instances.clone() {
        let is_gateway = instance.role == Role::Gateway;
        let own_stop = if is_gateway { stop.clone() } else { stop_others.clone() };
        let (stop_others, gateways_left) = (stop_others.clone(), gateways_left.clone());
        let process = if separate { Some(spawn(local, &instance, stack)?) } else { None };
        let (name, log) = (instance.name.clone(), local.dir.join("logs/sluiced.log"));
        let task = tasks.spawn(async move {
            let outcome = match process {
                Some(process) => watch(process, own_stop).await,
                None => instance
                    .role
                    .run(&instance.config, own_stop, Logs::Already)
                    .await
                    .map_err(|error| anyhow!("{:#}; its log: {}", Error::from(error), log.display())),
            };
            if is_gateway && gateways_left.fetch_sub(1, std::sync::atomic::Ordering::AcqRel) == 1 {
                stop_others.cancel();
            }
            outcome
        });
        names.insert(task.id(), name);
    }
    let logs = local.dir.join("logs");
    Ok(Running { tasks, names, logs })
}

fn spawn(local: &Local, instance: &Instance, stack: &Stack) -> Result<ProcessHandle> {
    let program = std::env::current_exe().context("find this program")?;
    let log = local.dir.join(format!("logs/{}.log", instance.name));
    let spec = ProcessSpec::new(&instance.name, program, log).args([
        instance.role.as_str(),
        "--config",
        &instance.config.to_string_lossy(),
    ]);
    Ok(stack.supervisor().spawn(&spec)?)
}

async fn watch(process: ProcessHandle, stop: CancellationToken) -> Result<()> {
    let status = tokio::select! {
        status = process.wait() => status,
        () = stop.cancelled() => process.stop(GRACE).await,
    };
    if status.success() {
        Ok(())
    } else {
        Err(anyhow!("ended with {status}; its log: {}", process.log_file().display()))
    }
}

/// Waits until every instance says it is ready.
pub(super) async fn ready(local: &Local, within: Duration) -> Result<()> {
    let all = async {
        for instance in &local.instances {
            let address = instance.admin.parse().context("an address of ours")?;
            while !Ready::Http(address, "/readyz".into()).holds().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    };
    tokio::time::timeout(within, all)
        .await
        .map_err(|_| anyhow!("not ready within {within:?}; see the logs in {}", local.dir.join("logs").display()))?
}

impl Running {
    /// The failure of the first instance that ends.
    pub(super) async fn ended(&mut self) -> Error {
        let (name, outcome) = self.next().await.unwrap_or_else(|| ("a role".into(), Ok(())));
        match outcome {
            Ok(()) => anyhow!("{name} ended, though nobody told it to; the logs are in {}", self.logs.display()),
            Err(error) => error.context(format!("{name} failed")),
        }
    }

    /// Waits for all of them to end.
    pub(super) async fn stopped(&mut self, within: Duration) {
        let all = async {
            while let Some((name, outcome)) = self.next().await {
                if let Err(error) = outcome {
                    tracing::warn!(name, error = format!("{error:#}"), "ended with an error");
                }
            }
        };
        if tokio::time::timeout(within, all).await.is_err() {
            tracing::warn!("roles were still running after {within:?}");
        }
    }

    async fn next(&mut self) -> Option<(String, Result<()>)> {
        let (id, outcome) = match self.tasks.join_next_with_id().await? {
            Ok((id, outcome)) => (id, outcome),
            Err(panic) => (panic.id(), Err(panic.into())),
        };
        Some((self.names.remove(&id).unwrap_or_default(), outcome))
    }
}
