//! Groups that were deleted go from Kafka too: their positions, and what was remembered of their dead letters.
//!
//! The control plane lists a group only when every gateway knows that it is gone, so none begins to dispatch it again. One that
//! still does is a member, and Kafka refuses to delete a group with members: it is tried again until the dispatcher has left, or
//! its session is over. It may have been on several clusters, one after the other; it is gone when each of them says so. All of it is
//! harmless to repeat.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use sluice_types::ClusterUid;
use sluice_types::physical::PhysicalGroup;
use sluice_wire::Error;
use tokio_util::sync::CancellationToken;

use super::reconcile::Reconciler;
use crate::intents::{CallError, DeletedGroup};

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
    /// The configuration does not name its cluster.
    #[error("the cluster {0} is not known")]
    OtherCluster(ClusterUid),
    /// Its cluster did not answer for another group.
    #[error("the cluster {0} does not answer")]
    Silent(ClusterUid),
    /// The control plane.
    #[error("report the group")]
    Call(#[from] CallError),
}

/// One look at all of them.
struct Round<'a> {
    reconciler: &'a Reconciler,
    epoch: i64,
    /// Clusters that did not answer in this round. They are not asked again in it: groups of other clusters would wait behind
    /// questions that each take their whole time.
    silent: Mutex<BTreeSet<ClusterUid>>,
}

/// Works until the shutdown, while the lease is ours.
pub async fn run(reconciler: Reconciler, shutdown: CancellationToken) {
    let work = async {
        loop {
            let epoch = reconciler.lease.held().await;
            let round = Round { reconciler: &reconciler, epoch, silent: Mutex::default() };
            if let Err(error) = round.run().await {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::info!(%error, cause, "deleted groups cannot be listed; next time");
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    shutdown.run_until_cancelled(work).await;
}

impl Round<'_> {
    /// Every group that is listed, once.
    async fn run(&self) -> Result<(), CallError> {
        let (mut after, mut left) = (None, 0);
        loop {
            let (groups, next) = self.reconciler.intents.deleted_groups(after).await?;
            let forgotten = futures::stream::iter(groups)
                .map(|group| async move { self.is_forgotten(&group).await })
                .buffer_unordered(AT_ONCE);
            left += forgotten.filter(|forgotten| std::future::ready(!forgotten)).count().await;
            if next.is_none() || self.reconciler.lease.epoch() != Some(self.epoch) {
                self.reconciler.metrics.groups_left.set(i64::try_from(left).unwrap_or(i64::MAX));
                return Ok(());
            }
            after = next;
        }
    }

    async fn is_forgotten(&self, group: &DeletedGroup) -> bool {
        // None begins when the lease may have run out.
        if self.reconciler.lease.epoch() != Some(self.epoch) {
            return false;
        }
        match self.forget(group).await {
            Ok(()) => true,
            Err(StepError::Call(CallError::LeaseLost)) => {
                self.reconciler.lease.lose();
                false
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::info!(group = %group.group, %error, cause, "a deleted group is still in Kafka; next time");
                false
            }
        }
    }

    async fn forget(&self, group: &DeletedGroup) -> Result<(), StepError> {
        for cluster in &group.clusters {
            self.forget_on(*cluster, group).await?;
        }
        self.reconciler.intents.report_group_gone(self.epoch, group.group).await?;
        self.reconciler.metrics.changed("delete-group");
        Ok(())
    }

    async fn forget_on(&self, uid: ClusterUid, group: &DeletedGroup) -> Result<(), StepError> {
        let cluster = self.reconciler.clusters.get(&uid).ok_or(StepError::OtherCluster(uid))?;
        for name in
            [PhysicalGroup::new(group.namespace, group.group), PhysicalGroup::redrive(group.namespace, group.group)]
        {
            if self.silent.lock().contains(&uid) {
                return Err(StepError::Silent(uid));
            }
            cluster.delete_group(&name).await.inspect_err(|error| {
                if error.kafka_code().is_none() {
                    self.silent.lock().insert(uid);
                }
            })?;
        }
        Ok(())
    }
}
