//! What time does: remembered answers, old operations and replaced changes go; what has been gone for 30 days gets its
//! tombstone and then goes itself; expired keys are put away; a tenant whose last topic is gone is deleted.
//!
//! Each step is a transaction of its own, so that one that fails keeps none of the others back.

use std::time::Duration;

use futures::future::BoxFuture;
use sluice_db::{DbError, SystemTx};
use sluice_types::TenantUid;
use tokio_util::sync::CancellationToken;

use crate::changes::cascade::empty;
use crate::changes::key::retire_expired;
use crate::plane::SharedPlane;
use crate::store::sweep::{
    sweep_idempotency, sweep_operations, sweep_outbox, sweep_purge, sweep_tenants, sweep_tenants_to_empty,
    sweep_tenants_with_expired_keys, sweep_tombstones,
};

const EVERY: Duration = Duration::from_secs(10);
/// While there is more to do: other work gets its turn.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(50);
/// Tenants of one round.
const TENANTS_MAX: i64 = 10;

type Sweep = for<'t> fn(&'t mut SystemTx, i64) -> BoxFuture<'t, Result<u64, DbError>>;

/// A step that is done in the database alone, and its rows in one round.
struct Step {
    name: &'static str,
    rows_max: i64,
    sweep: Sweep,
}

const STEPS: &[Step] = &[
    Step { name: "idempotency", rows_max: 5_000, sweep: |tx, limit| Box::pin(sweep_idempotency(tx, limit)) },
    Step { name: "operations", rows_max: 5_000, sweep: |tx, limit| Box::pin(sweep_operations(tx, limit)) },
    Step { name: "outbox", rows_max: 5_000, sweep: |tx, limit| Box::pin(sweep_outbox(tx, limit)) },
    Step { name: "tombstones", rows_max: 500, sweep: |tx, limit| Box::pin(sweep_tombstones(tx, limit)) },
    Step { name: "purge", rows_max: 500, sweep: |tx, limit| Box::pin(sweep_purge(tx, limit)) },
    Step { name: "tenants", rows_max: 100, sweep: |tx, limit| Box::pin(sweep_tenants(tx, limit)) },
];

/// Sweeps until the shutdown.
pub(crate) async fn run(plane: SharedPlane, shutdown: CancellationToken) {
    loop {
        let pause = if round(&plane).await { BETWEEN_ROUNDS } else { EVERY };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One of everything; true if there is more to do at once.
async fn round(plane: &SharedPlane) -> bool {
    let mut more = false;
    for step in STEPS {
        match in_database(plane, step).await {
            Ok(rows) => {
                plane.metrics.swept_rows.inc_by(rows);
                more |= rows >= step.rows_max.unsigned_abs();
            }
            Err(error) => failed(plane, step.name, &error),
        }
    }
    let to_empty = found(plane, "deleted tenants", sweep_to_empty).await;
    for tenant in &to_empty {
        more |= log_failure(plane, "deleted tenants", empty(plane, *tenant).await);
    }
    let with_expired = found(plane, "expired keys", sweep_expired).await;
    for tenant in &with_expired {
        more |= log_failure(plane, "expired keys", retire_expired(plane, *tenant).await);
    }
    more
}

async fn in_database(plane: &SharedPlane, step: &'static Step) -> Result<u64, DbError> {
    let system = plane.db.system().clone();
    let work = async move {
        let mut tx = system.begin().await?;
        let rows = (step.sweep)(&mut tx, step.rows_max).await?;
        tx.commit().await?;
        Ok::<_, DbError>(rows)
    };
    let rows = plane.db.run(work).await?;
    if rows > 0 {
        // Of a step that adds tombstones.
        plane.wakes.outbox.wake();
    }
    Ok(rows)
}

type Find = for<'t> fn(&'t mut SystemTx) -> BoxFuture<'t, Result<Vec<TenantUid>, DbError>>;

fn sweep_to_empty(tx: &mut SystemTx) -> BoxFuture<'_, Result<Vec<TenantUid>, DbError>> {
    Box::pin(sweep_tenants_to_empty(tx, TENANTS_MAX))
}

fn sweep_expired(tx: &mut SystemTx) -> BoxFuture<'_, Result<Vec<TenantUid>, DbError>> {
    Box::pin(sweep_tenants_with_expired_keys(tx, TENANTS_MAX))
}

/// Tenants with something to be changed; none if the database does not answer.
async fn found(plane: &SharedPlane, step: &'static str, find: Find) -> Vec<TenantUid> {
    let system = plane.db.system().clone();
    let work = async move {
        let mut tx = system.begin().await?;
        let tenants = find(&mut tx).await?;
        tx.rollback().await?;
        Ok::<_, DbError>(tenants)
    };
    plane.db.run(work).await.unwrap_or_else(|error| {
        failed(plane, step, &error);
        Vec::new()
    })
}

/// Whether a change went well, so that there may be more to do at once.
fn log_failure(plane: &SharedPlane, step: &'static str, done: Result<(), sluice_types::Error>) -> bool {
    done.inspect_err(|error| failed(plane, step, error)).is_ok()
}

fn failed(plane: &SharedPlane, step: &'static str, error: &(dyn std::error::Error + 'static)) {
    plane.metrics.sweep_failures.inc();
    tracing::debug!(step, error, "a step of sweeping ended early; trying again");
}
