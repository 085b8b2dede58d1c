//! Groups that were deleted go from Kafka too: their positions, and what was remembered of their dead letters.
//!
//! The control plane lists a group only when every gateway knows that it is gone, so none begins to dispatch it again. One that
//! still does is a member, and Kafka refuses to delete a group with members: it is tried again until the dispatcher has left, or
//! its session is over. All of it is harmless to repeat.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_reconcile::{Figures, Item, Outcome, Resource, Round, with_causes};
use sluice_types::physical::PhysicalGroup;
use sluice_types::{ClusterUid, GroupUid, NamespaceUid};
use sluice_wire::Error;

use super::reconcile::Reconciler;
use crate::intents::{CallError, DeletedGroup};

impl Item for DeletedGroup {
    type Key = GroupUid;
    type Turn = NamespaceUid;
    type Place = ClusterUid;
    type Want = ();

    fn key(&self) -> GroupUid {
        self.group
    }

    fn turn(&self) -> NamespaceUid {
        self.namespace
    }

    /// If there are several, one that is not the first: the first has the groups of almost all, who must not wait for the others.
    fn place(&self) -> ClusterUid {
        self.clusters.iter().copied().max().unwrap_or(ClusterUid::FIRST)
    }

    fn want(&self) {}
}

/// Why a group is still there.
#[derive(Debug, thiserror::Error)]
enum StepError {
    /// Kafka refuses, or cannot be asked.
    #[error("delete the group")]
    Kafka(#[from] Error),
    /// The configuration does not name its cluster.
    #[error("the cluster {0} is not known")]
    OtherCluster(ClusterUid),
    /// The control plane.
    #[error("report the group")]
    Call(#[from] CallError),
}

/// Deleted groups, as what the driver reconciles. Only rounds find them.
#[derive(Clone)]
pub struct DeletedGroups(pub Reconciler);

impl Resource for DeletedGroups {
    type Item = DeletedGroup;
    type Error = CallError;
    type Memory = ();

    const POLLS: &'static str = "deleted groups";
    const ROUNDS: &'static str = "deleted groups";
    const ROUND_EVERY: Duration = Duration::from_secs(5);
    const ROUND_AGAIN: Duration = Duration::from_secs(5);

    async fn poll(&self) -> Result<Vec<DeletedGroup>, CallError> {
        std::future::pending().await
    }

    async fn round(&self, (): &mut ()) -> Result<Round<DeletedGroup>, CallError> {
        let (mut work, mut after) = (Vec::new(), None);
        loop {
            let (groups, next) = self.0.intents.deleted_groups(after).await?;
            work.extend(groups);
            // What is left comes by a later round.
            if next.is_none() || work.len() >= ROUND_MAX {
                return Ok(Round { intents: work.len(), work, unseen: BTreeMap::new() });
            }
            after = next;
        }
    }

    async fn run(&self, item: DeletedGroup) -> Outcome {
        match self.forget(&item).await {
            Ok(()) => Outcome::Settled,
            Err(StepError::Call(CallError::LeaseLost)) => {
                self.0.lease.lose();
                Outcome::Failed
            }
            Err(error) => {
                let cause = with_causes(&error);
                tracing::info!(group = %item.group, cause, "a deleted group is still in Kafka; later again");
                Outcome::Failed
            }
        }
    }

    fn tell(&self, figures: Figures) {
        // One that failed and is tried again is counted once.
        let left = figures.busy.max(figures.failing);
        self.0.metrics.groups_left.set(i64::try_from(left).unwrap_or(i64::MAX));
    }
}

/// Groups taken by one round.
const ROUND_MAX: usize = 10_000;

impl DeletedGroups {
    async fn forget(&self, item: &DeletedGroup) -> Result<(), StepError> {
        // None begins when the lease may have run out.
        let epoch = self.0.lease.epoch().ok_or(CallError::LeaseLost)?;
        for uid in &item.clusters {
            let cluster = self.0.clusters.get(uid).ok_or(StepError::OtherCluster(*uid))?;
            for name in
                [PhysicalGroup::new(item.namespace, item.group), PhysicalGroup::redrive(item.namespace, item.group)]
            {
                cluster.delete_group(&name).await?;
            }
        }
        self.0.intents.report_group_gone(epoch, item.group).await?;
        self.0.metrics.changed("delete-group");
        Ok(())
    }
}
