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
    /// A cluster took too long.
    #[error("not in time")]
    TooLate,
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
    /// Where the next round begins, if the last one ended early.
    type Memory = Option<String>;

    const POLLS: &'static str = "deleted groups";
    const ROUNDS: &'static str = "deleted groups";
    const ROUND_EVERY: Duration = Duration::from_secs(5);
    const ROUND_AGAIN: Duration = Duration::from_secs(5);

    async fn poll(&self) -> Result<Vec<DeletedGroup>, CallError> {
        std::future::pending().await
    }

    async fn round(&self, begin_after: &mut Option<String>) -> Result<Round<DeletedGroup>, CallError> {
        let mut after = begin_after.take();
        let (mut work, mut is_part) = (Vec::new(), after.is_some());
        loop {
            let (groups, next) = self.0.intents.deleted_groups(after).await?;
            work.extend(groups);
            // What is left comes by the next round.
            if next.is_none() || work.len() >= ROUND_MAX {
                is_part |= next.is_some();
                *begin_after = next;
                return Ok(Round { intents: work.len(), work, is_part, unseen: BTreeMap::new() });
            }
            after = next;
        }
    }

    async fn run(&self, item: DeletedGroup) -> Outcome {
        let Some(epoch) = self.0.lease.epoch() else { return Outcome::Failed };
        let forgotten = tokio::time::timeout(RUN_WITHIN, self.forget(epoch, &item)).await;
        match forgotten.unwrap_or(Err(StepError::TooLate)) {
            Ok(()) => Outcome::Settled,
            Err(StepError::Call(CallError::LeaseLost)) => {
                self.0.lease.lose_epoch(epoch);
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
/// How long one run may take; two questions to a cluster that does not answer.
const RUN_WITHIN: Duration = Duration::from_secs(20);

impl DeletedGroups {
    async fn forget(&self, epoch: i64, item: &DeletedGroup) -> Result<(), StepError> {
        // All at once: one that does not answer keeps the group from going from none of the others.
        let clusters = item.clusters.iter().map(|uid| self.forget_on(*uid, epoch, item));
        futures::future::join_all(clusters).await.into_iter().collect::<Result<(), _>>()?;
        self.0.intents.report_group_gone(epoch, item.group).await?;
        self.0.metrics.changed("delete-group");
        Ok(())
    }

    async fn forget_on(&self, uid: ClusterUid, epoch: i64, item: &DeletedGroup) -> Result<(), StepError> {
        let cluster = self.0.clusters.get(&uid).ok_or(StepError::OtherCluster(uid))?;
        for name in [PhysicalGroup::new(item.namespace, item.group), PhysicalGroup::redrive(item.namespace, item.group)]
        {
            // None begins when the lease may have run out.
            if self.0.lease.epoch() != Some(epoch) {
                return Err(CallError::LeaseLost.into());
            }
            cluster.delete_group(&name).await?;
        }
        Ok(())
    }
}
