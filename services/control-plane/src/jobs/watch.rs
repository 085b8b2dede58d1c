//! Watches: the database's notifications become wakes, and the health of the database and the relay is told.

use std::time::Duration;

use sluice_db::{DbError, Notification, listen};
use sluice_runtime::{ComponentStatus, Health};
use sluice_types::OperationUid;
use tokio_util::sync::CancellationToken;

use crate::plane::SharedPlane;
use crate::store::outbox::{OUTBOX_CHANNEL, PUBLISHED_CHANNEL, outbox_backlog};
use crate::store::work::{INTENT_CHANNEL, OPERATION_CHANNEL};

const CHANNELS: &[&str] = &[OUTBOX_CHANNEL, PUBLISHED_CHANNEL, INTENT_CHANNEL, OPERATION_CHANNEL];
const LOOK: Duration = Duration::from_secs(2);
/// A change that waits longer for its publication is worth a person's look.
const RELAY_LAG_MS_MAX: i64 = 5_000;

/// Turns notifications into wakes until the shutdown.
pub(crate) async fn watch_notifications(plane: SharedPlane, shutdown: CancellationToken) {
    let plane_heard = plane.clone();
    let heard = move |notification: Notification| {
        let wakes = &plane_heard.wakes;
        match notification {
            Notification::On { channel, .. } if channel == OUTBOX_CHANNEL => wakes.outbox.wake(),
            Notification::On { channel, .. } if channel == PUBLISHED_CHANNEL => wakes.published.wake(),
            Notification::On { channel, .. } if channel == INTENT_CHANNEL => wakes.intent.wake(),
            Notification::On { channel, payload } if channel == OPERATION_CHANNEL => {
                // What is no number, an older process sent: it says that any may have ended.
                match payload.parse() {
                    Ok(uid) => wakes.operation.wake(OperationUid::from_i64(uid)),
                    Err(_) => wakes.operation.wake_all(),
                }
            }
            Notification::On { .. } => {}
            Notification::Connected => {
                // Whoever restores a database breaks its connections.
                plane_heard.comparison.require();
                for wake in [&wakes.outbox, &wakes.published, &wakes.intent] {
                    wake.wake();
                }
                wakes.operation.wake_all();
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = listen(plane.db.system().clone(), CHANNELS, heard) => {}
    }
}

/// Tells how database and relay fare until the shutdown.
pub(crate) async fn watch_health(plane: SharedPlane, health: Health, shutdown: CancellationToken) {
    loop {
        match backlog(&plane).await {
            Ok((waiting, oldest_ms)) => {
                plane.metrics.outbox_backlog.set(waiting);
                plane.metrics.relay_lag_ms.set(oldest_ms);
                health.set_component("database", ComponentStatus::ok("answers"));
                let detail = format!("{waiting} changes wait, the oldest for {oldest_ms} ms");
                health.set_component(
                    "outbox",
                    if oldest_ms > RELAY_LAG_MS_MAX {
                        ComponentStatus::failing(detail)
                    } else {
                        ComponentStatus::ok(detail)
                    },
                );
            }
            Err(error) => {
                tracing::debug!(%error, "look at the database");
                health.set_component("database", ComponentStatus::failing("does not answer"));
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn backlog(plane: &SharedPlane) -> Result<(i64, i64), DbError> {
    let system = plane.db.system().clone();
    let work = async move {
        let mut tx = system.begin().await?;
        let backlog = outbox_backlog(&mut tx).await?;
        tx.rollback().await?;
        Ok::<_, DbError>(backlog)
    };
    plane.db.run(work).await
}
