//! The lease: one process works at a time. Its epoch goes into every report, so whoever is told refuses those of a process that lost
//! it. The world that is changed cannot: hence every change is harmless to repeat, and none begins when our own clock says that the
//! lease may have run out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sluice_runtime::{ComponentStatus, Health};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::with_causes;

/// How long it lasts without renewal.
pub const TTL: Duration = Duration::from_secs(6);
const RENEW_EVERY: Duration = Duration::from_secs(2);
const RETRY_EVERY: Duration = Duration::from_millis(500);
const COMPONENT: &str = "lease";

/// Who grants it.
pub trait Leases: Send + Sync {
    /// Why it cannot be asked.
    type Error: std::error::Error + Send;

    /// Takes or renews the lease; its epoch, or `None` while another holder's runs.
    fn acquire(&self, holder: &str, ttl: Duration) -> impl Future<Output = Result<Option<i64>, Self::Error>> + Send;

    /// Gives it back, so that the next holder need not wait.
    fn release(&self, holder: &str) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Whether we hold it. Clones are the same.
#[derive(Clone, Default)]
pub struct Lease(Arc<Inner>);

#[derive(Default)]
struct Inner {
    held: Mutex<Option<Held>>,
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    epoch: i64,
    until: Instant,
}

impl Lease {
    /// The epoch to report with; `None` when the lease is not surely ours.
    pub fn epoch(&self) -> Option<i64> {
        self.0.held.lock().filter(|held| Instant::now() < held.until).map(|held| held.epoch)
    }

    /// Whoever grants it says that it is not ours.
    pub fn lose(&self) {
        *self.0.held.lock() = None;
    }

    /// Whoever grants it says that this epoch is not the current one; a newer one that we hold stays.
    pub fn lose_epoch(&self, epoch: i64) {
        self.0.held.lock().take_if(|held| held.epoch == epoch);
    }

    /// Waits until it is ours.
    pub async fn held(&self) -> i64 {
        loop {
            let changed = self.0.changed.notified();
            if let Some(epoch) = self.epoch() {
                return epoch;
            }
            changed.await;
        }
    }

    /// Takes and renews it until the shutdown, and gives it back. `told` hears after each question whether it is ours.
    pub async fn keep(
        self,
        holder: String,
        leases: impl Leases,
        health: Health,
        told: impl Fn(bool) + Send,
        shutdown: CancellationToken,
    ) {
        loop {
            // Counted from before the question: the lease cannot run out before we think so.
            let asked = Instant::now();
            let wait = match leases.acquire(&holder, TTL).await {
                Ok(Some(epoch)) => {
                    let before = self.0.held.lock().replace(Held { epoch, until: asked + TTL });
                    if before.is_none_or(|before| before.epoch != epoch) {
                        tracing::info!(epoch, "lease taken");
                    }
                    self.0.changed.notify_waiters();
                    health.set_component(COMPONENT, ComponentStatus::ok(format!("epoch {epoch}")));
                    RENEW_EVERY
                }
                Ok(None) => {
                    self.lose();
                    health.set_component(COMPONENT, ComponentStatus::ok("standing by"));
                    RETRY_EVERY
                }
                Err(error) => {
                    health.set_component(COMPONENT, ComponentStatus::failing(with_causes(&error)));
                    RETRY_EVERY
                }
            };
            told(self.epoch().is_some());
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        if self.epoch().is_none() {
            return;
        }
        self.lose();
        if let Err(error) = leases.release(&holder).await {
            tracing::debug!(error = with_causes(&error), "the lease was not given back; it runs out");
        }
    }
}
