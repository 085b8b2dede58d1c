//! The roles of `up`: tasks of this process, or processes of their own.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sluice_devstack::{ProcessHandle, ProcessSpec, Ready, Stack};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::local::{Instance, Local};
use crate::role::{self, Logs, Role};

const GRACE: Duration = Duration::from_secs(35);

/// Everything that was started. The gateways end before what they need.
pub(super) struct Running {
    tasks: JoinSet<Result<()>>,
}

/// Starts every instance; `stop` ends them all, in order.
pub(super) fn start(local: &Local, separate: bool, stack: &Stack, stop: CancellationToken) -> Result<Running> {
    let mut tasks = JoinSet::new();
    let stop_others = CancellationToken::new();
    let gateways_left = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(
        local.instances.iter().filter(|instance| instance.role == Role::Gateway).count(),
    ));
    for instance in local.instances.clone() {
        let is_gateway = instance.role == Role::Gateway;
        let own_stop = if is_gateway { stop.clone() } else { stop_others.clone() };
        let (stop_others, gateways_left) = (stop_others.clone(), gateways_left.clone());
        let process = if separate { Some(spawn(local, &instance, stack)?) } else { None };
        tasks.spawn(async move {
            let name = instance.name.clone();
            let outcome = match process {
                Some(process) => watch(process, own_stop).await,
                None => role::run(instance.role, &instance.config, own_stop, Logs::Already).await,
            };
            if is_gateway && gateways_left.fetch_sub(1, std::sync::atomic::Ordering::AcqRel) == 1 {
                stop_others.cancel();
            }
            outcome.with_context(|| name)
        });
    }
    Ok(Running { tasks })
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
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => anyhow!("a role ended: {error}"),
            _ => anyhow!("a role ended"),
        }
    }

    /// Waits for all of them to end.
    pub(super) async fn stopped(&mut self, within: Duration) {
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Ok(Err(error)) = ended {
                    tracing::warn!(error = format!("{error:#}"), "a role ended with an error");
                }
            }
        };
        if tokio::time::timeout(within, all).await.is_err() {
            tracing::warn!("roles were still running after {within:?}");
        }
    }
}
