//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once.

use anyhow::{Context, Result, bail};

use crate::failure::Interrupted;

/// Whether, and how often, we were asked to stop.
pub(super) struct Stop {
    asked: u32,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    #[cfg(unix)]
    pub(super) fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        let terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        Ok(Self { asked: 0, interrupt, terminate })
    }

    #[cfg(not(unix))]
    pub(super) fn listen() -> Result<Self> {
        Ok(Self { asked: 0 })
    }

    pub(super) fn asked(&self) -> bool {
        self.asked > 0
    }

    /// Until we are asked, once more if we were. Cancel-safe.
    pub(super) async fn wait(&mut self) {
        #[cfg(unix)]
        let heard = tokio::select! {
            heard = self.interrupt.recv() => heard.is_some(),
            heard = self.terminate.recv() => heard.is_some(),
        };
        #[cfg(not(unix))]
        let heard = tokio::signal::ctrl_c().await.is_ok();
        if !heard {
            std::future::pending::<()>().await;
        }
        self.asked += 1;
    }

    /// Fails if we were asked twice.
    pub(super) fn once(&self) -> Result<()> {
        if self.asked > 1 {
            bail!(Interrupted);
        }
        Ok(())
    }
}
