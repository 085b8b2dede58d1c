//! What time does: remembered answers, old operations and replaced changes go; what has been gone for 30 days gets its
//! tombstone; a tenant whose last topic is gone is deleted.

use std::time::Duration;

use sluice_db::DbError;
use tokio_util::sync::CancellationToken;

use crate::changes::cascade::empty;
use crate::plane::SharedPlane;
use crate::store::sweep::{
    sweep_idempotency, sweep_operations, sweep_outbox, sweep_tenants, sweep_tenants_to_empty, sweep_tombstones,
};

const EVERY: Duration = Duration::from_secs(10);
/// While a tenant is being emptied: other changes get their turn.
const BETWEEN_STEPS: Duration = Duration::from_millis(50);
const TENANTS_MAX: i64 = 10;
/// Rows of one step of one round.
const ROWS_MAX: i64 = 5_000;
/// Gateways refuse snapshots older than this, so none of them can miss the deletion.
const TOMBSTONE_AFTER_DAYS: i32 = 30;
const TOMBSTONES_MAX: i64 = 500;

/// Sweeps until the shutdown.
pub(crate) async fn run(plane: SharedPlane, shutdown: CancellationToken) {
    loop {
        let pause = match round(&plane).await {
            Ok(true) => BETWEEN_STEPS,
            Ok(false) => EVERY,
            Err(error) => {
                tracing::debug!(%error, "sweeping ended early; trying again");
                EVERY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One of everything; true if there is more to do at once.
async fn round(plane: &SharedPlane) -> Result<bool, DbError> {
    let system = plane.db.system().clone();
    let work = async move {
        let mut tx = system.begin().await?;
        sweep_idempotency(&mut tx, ROWS_MAX).await?;
        sweep_operations(&mut tx, ROWS_MAX).await?;
        sweep_outbox(&mut tx, ROWS_MAX).await?;
        sweep_tenants(&mut tx).await?;
        let tombstones = sweep_tombstones(&mut tx, TOMBSTONE_AFTER_DAYS, TOMBSTONES_MAX).await?;
        let to_empty = sweep_tenants_to_empty(&mut tx, TENANTS_MAX).await?;
        tx.commit().await?;
        Ok::<_, DbError>((tombstones, to_empty))
    };
    let (tombstones, to_empty) = plane.db.run(work).await?;
    if tombstones > 0 {
        plane.wakes.outbox.wake();
    }
    for tenant in &to_empty {
        if let Err(error) = empty(plane, *tenant).await {
            tracing::debug!(%tenant, %error, "a step of a tenant's deletion ended early; trying again");
        }
    }
    Ok(!to_empty.is_empty())
}
