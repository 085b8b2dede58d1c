//! What time does: remembered answers, old operations and replaced changes go; what has been gone for 30 days gets its
//! tombstone; a tenant whose last topic is gone is deleted.

use std::time::Duration;

use sluice_db::DbError;
use tokio_util::sync::CancellationToken;

use crate::plane::SharedPlane;
use crate::store::outbox::outbox_backlog;
use crate::store::sweep::{sweep_idempotency, sweep_operations, sweep_outbox, sweep_tenants, sweep_tombstones};

const EVERY: Duration = Duration::from_secs(10);
/// Rows of one step of one round.
const ROWS_MAX: i64 = 5_000;
/// Gateways refuse snapshots older than this, so none of them can miss the deletion.
const TOMBSTONE_AFTER_DAYS: i32 = 30;
const TOMBSTONES_MAX: i64 = 500;

/// Sweeps until the shutdown.
pub(crate) async fn run(plane: SharedPlane, shutdown: CancellationToken) {
    loop {
        if let Err(error) = round(&plane).await {
            tracing::debug!(%error, "sweeping ended early; trying again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn round(plane: &SharedPlane) -> Result<(), DbError> {
    let system = plane.db.system().clone();
    let work = async move {
        let mut tx = system.begin().await?;
        sweep_idempotency(&mut tx, ROWS_MAX).await?;
        sweep_operations(&mut tx, ROWS_MAX).await?;
        sweep_outbox(&mut tx, ROWS_MAX).await?;
        sweep_tenants(&mut tx).await?;
        let tombstones = sweep_tombstones(&mut tx, TOMBSTONE_AFTER_DAYS, TOMBSTONES_MAX).await?;
        let backlog = outbox_backlog(&mut tx).await?;
        tx.commit().await?;
        Ok::<_, DbError>((tombstones, backlog))
    };
    let (tombstones, (waiting, oldest_ms)) = plane.db.run(work).await?;
    plane.metrics.outbox_backlog.set(waiting);
    plane.metrics.relay_lag_ms.set(oldest_ms);
    if tombstones > 0 {
        plane.wakes.outbox.wake();
    }
    Ok(())
}
