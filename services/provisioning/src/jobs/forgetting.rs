//! Groups that were deleted go from Kafka too: their positions, and what was remembered of their dead letters.
//!
//! The control plane lists a group only when every gateway knows that it is gone, so none begins to dispatch it again. One that
//! still does is a member, and Kafka refuses to delete a group with members: it is tried again until the dispatcher has left, or
//! its session is over. All of it is harmless to repeat.

use std::time::Duration;

use futures::StreamExt as _;
use sluice_types::physical::PhysicalGroup;
use sluice_types::{GroupUid, NamespaceUid};
use sluice_wire::Error;
use tokio_util::sync::CancellationToken;

use super::reconcile::Reconciler;
use crate::intents::CallError;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(5);
/// Groups worked on at a time.
const AT_ONCE: usize = 8;

/// Why a group is still there.
#[derive(Debug, thiserror::Error)]
enum StepError {
    /// Kafka refuses, or cannot be asked.
    #[error("delete the group")]
    Kafka(#[from] Error),
    /// The control plane.
    #[error("report the group")]
    Call(#[from] CallError),
}

/// Works until the shutdown, while the lease is ours.
pub async fn run(reconciler: Reconciler, shutdown: CancellationToken) {
    let work = async {
        loop {
            let epoch = reconciler.lease.held().await;
            if let Err(error) = round(&reconciler, epoch).await {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::info!(%error, cause, "deleted groups cannot be listed; next time");
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    shutdown.run_until_cancelled(work).await;
}

/// Every group that is listed, once.
async fn round(reconciler: &Reconciler, epoch: i64) -> Result<(), CallError> {
    let (mut after, mut left) = (None, 0);
    loop {
        let (groups, next) = reconciler.intents.deleted_groups(after).await?;
        let forgotten = futures::stream::iter(groups)
            .map(|(namespace, group)| async move { is_forgotten(reconciler, epoch, namespace, group).await })
            .buffer_unordered(AT_ONCE);
        left += forgotten.filter(|forgotten| std::future::ready(!forgotten)).count().await;
        if next.is_none() || reconciler.lease.epoch() != Some(epoch) {
            reconciler.metrics.groups_left.set(i64::try_from(left).unwrap_or(i64::MAX));
            return Ok(());
        }
        after = next;
    }
}

async fn is_forgotten(reconciler: &Reconciler, epoch: i64, namespace: NamespaceUid, group: GroupUid) -> bool {
    // None begins when the lease may have run out.
    if reconciler.lease.epoch() != Some(epoch) {
        return false;
    }
    match forget(reconciler, epoch, namespace, group).await {
        Ok(()) => true,
        Err(StepError::Call(CallError::LeaseLost)) => {
            reconciler.lease.lose();
            false
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::info!(%group, %error, cause, "a deleted group is still in Kafka; next time");
            false
        }
    }
}

async fn forget(
    reconciler: &Reconciler,
    epoch: i64,
    namespace: NamespaceUid,
    group: GroupUid,
) -> Result<(), StepError> {
    for name in [PhysicalGroup::new(namespace, group), PhysicalGroup::redrive(namespace, group)] {
        reconciler.cluster.delete_group(&name).await?;
    }
    reconciler.intents.report_group_gone(epoch, group).await?;
    reconciler.metrics.changed("delete-group");
    Ok(())
}
