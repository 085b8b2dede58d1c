//! The topics of tenants, as what the driver reconciles: where work comes from, and what is told of it.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_reconcile::{Figures, Outcome, Resource, Round, with_causes};
use sluice_types::ClusterUid;

use super::reconcile::Reconciler;
use super::resync::{ResyncError, resync};
use crate::domain::intent::Intent;
use crate::domain::orphans::Orphans;

impl Resource for Reconciler {
    type Item = Intent;
    type Error = ResyncError;
    type Memory = BTreeMap<ClusterUid, Orphans>;

    const POLLS: &'static str = "control-plane";
    const ROUNDS: &'static str = "resync";
    const ROUND_EVERY: Duration = Duration::from_secs(30);
    const ROUND_AGAIN: Duration = Duration::from_secs(5);

    async fn poll(&self) -> Result<Vec<Intent>, ResyncError> {
        Ok(self.intents.await_work().await?)
    }

    async fn round(&self, orphans: &mut Self::Memory) -> Result<Round<Intent>, ResyncError> {
        let found = resync(self, orphans).await?;
        self.metrics.drifted.inc_by(found.drifted);
        self.metrics.orphans.set(i64::try_from(found.orphans).unwrap_or(i64::MAX));
        let unseen = found.unseen.into_iter().map(|(cluster, error)| (cluster, with_causes(&error))).collect();
        Ok(Round { work: found.work, intents: found.intents, is_part: false, unseen })
    }

    async fn run(&self, intent: Intent) -> Outcome {
        self.work_on(intent).await
    }

    fn tell(&self, figures: Figures) {
        self.metrics.busy.set(i64::try_from(figures.busy).unwrap_or(i64::MAX));
        self.metrics.failing.set(i64::try_from(figures.failing).unwrap_or(i64::MAX));
    }
}
