//! One topic: look at the world, do the next step, look again, until it is as wanted or must wait.
//!
//! Nothing carries over from a run that died: every decision is [`plan`]'s, from the intent and from what the brokers say
//! now. What this adds is only patience, because brokers learn of a change one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_proto::internal::control::v1::report_topic_request::Observed;
use sluice_reconcile::{Lease, Outcome, with_causes};
use sluice_runtime::FailPoints;
use sluice_types::ClusterUid;
use sluice_wire::{KafkaTopicId, code};

use crate::cluster::{Cluster, ClusterError};
use crate::domain::configs::{self, ConfigError};
use crate::domain::intent::{Intent, Want};
use crate::domain::plan::{self, Ownership, Physical, Step, World};
use crate::intents::{CallError, Intents, Report};
use crate::metrics::{Kind, Metrics};

/// How long one run may work on a topic; then it goes back into the queue.
const RUN_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(10);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(500);
/// Between two looks at the ends of a topic that closes: writes in flight land meanwhile.
const SETTLE: Duration = Duration::from_millis(100);
/// Looks at the ends in one run.
const SETTLE_LOOKS_MAX: usize = 20;

/// Why a run did not bring a topic to where it should be.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Kafka cannot be asked, or is not there yet.
    #[error("kafka")]
    Kafka(#[from] ClusterError),
    /// Kafka refuses for good.
    #[error("kafka refuses")]
    Refused(#[source] sluice_wire::Error),
    /// The intent wants what no topic may have.
    #[error("configs")]
    Config(#[from] ConfigError),
    /// The topic is to be on a cluster that this process does not know.
    #[error("another cluster")]
    OtherCluster,
    /// Time was over before brokers agreed.
    #[error("not yet")]
    NotYet,
    /// Records still come in.
    #[error("still written to")]
    StillWritten,
    /// The lease is not ours.
    #[error("lease lost")]
    LeaseLost,
    /// The control plane.
    #[error("control plane")]
    Call(#[source] CallError),
}

/// Does the work.
#[derive(Clone)]
pub struct Reconciler {
    /// The Kafka clusters that the configuration names, by uid.
    pub clusters: Arc<BTreeMap<ClusterUid, Cluster>>,
    /// The control plane.
    pub intents: Intents,
    /// The lease.
    pub lease: Lease,
    /// For tests.
    pub fail_points: FailPoints,
    /// Figures.
    pub metrics: Metrics,
}

/// What this run did already: brokers may not show it yet, and asking twice would only be refused.
#[derive(Default)]
struct Done {
    created: bool,
    extended_to: i32,
    deleted: bool,
}

impl Reconciler {
    /// Works on one topic and reports how that went.
    pub async fn work_on(&self, intent: Intent) -> Outcome {
        let topic = intent.topic;
        let worked = tokio::time::timeout(RUN_WITHIN, self.work(intent.clone())).await;
        let error = match worked.unwrap_or(Err(StepError::NotYet)) {
            Ok(()) => return Outcome::Settled,
            Err(error) => error,
        };
        let report = match &error {
            StepError::LeaseLost | StepError::Call(CallError::LeaseLost) => {
                self.lease.lose();
                return Outcome::Failed;
            }
            StepError::Call(CallError::Outdated(status)) => {
                tracing::info!(%topic, message = status.message(), "the intent has changed meanwhile");
                return Outcome::Settled;
            }
            StepError::Call(error) => {
                tracing::info!(%topic, %error, "the control plane cannot be told");
                return Outcome::Failed;
            }
            other => describe(other),
        };
        tracing::warn!(%topic, reason = report.reason, cause = with_causes(&error), "topic is not as wanted");
        let settled = report.observed == Observed::Failed;
        match self.report(&intent, &report).await {
            Ok(()) if settled => Outcome::Settled,
            _ => Outcome::Failed,
        }
    }

    async fn work(&self, mut intent: Intent) -> Result<(), StepError> {
        let cluster = self.clusters.get(&intent.cluster).ok_or(StepError::OtherCluster)?;
        let mut done = Done::default();
        let mut pause = LOOK_AGAIN_MIN;
        loop {
            let (step, physical) = self.next_step(cluster, &intent, &done).await?;
            tracing::debug!(topic = %intent.topic, ?step, "next step");
            match step {
                Step::RecordAttempt => {
                    let epoch = self.epoch()?;
                    self.intents.record_attempt(epoch, intent.topic).await.map_err(StepError::Call)?;
                    intent.create_attempted = true;
                }
                Step::Create => {
                    self.create(cluster, &intent).await?;
                    done.created = true;
                }
                Step::Extend(total) => {
                    self.extend(cluster, &intent, total).await?;
                    done.extended_to = total;
                }
                Step::Alter(changes) => {
                    self.epoch()?;
                    cluster.alter(&intent.name(), &changes).await.map_err(sorted)?;
                    self.metrics.changed("alter");
                }
                Step::Delete(id) => {
                    self.close_and_delete(cluster, &mut intent, id, &physical).await?;
                    done.deleted = true;
                }
                Step::AwaitServed => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LOOK_AGAIN_MAX);
                }
                Step::ReportReady => return self.report_ready(&intent, &physical).await,
                Step::ReportGone => return self.report(&intent, &Report::new(Observed::Gone)).await,
                Step::ReportLost => return self.report(&intent, &lost()).await,
                Step::ReportForeign => return self.report(&intent, &foreign()).await,
            }
        }
    }

    /// Looks at the world and asks the plan.
    async fn next_step(
        &self,
        cluster: &Cluster,
        intent: &Intent,
        done: &Done,
    ) -> Result<(Step, Option<Physical>), StepError> {
        let name = intent.name();
        let physical = match cluster.observe(&name).await {
            Ok(World::Present(physical)) => physical,
            Ok(World::Absent) if done.created => return Ok((Step::AwaitServed, None)),
            Ok(World::Absent) => return Ok((plan::step_absent(intent), None)),
            Err(ClusterError::Disagreement) => return Ok((Step::AwaitServed, None)),
            Err(error) => return Err(error.into()),
        };
        if done.deleted {
            return Ok((Step::AwaitServed, Some(physical)));
        }
        let ours = match plan::ownership(intent, physical.topic_id) {
            Ownership::Ours => true,
            Ownership::Foreign => false,
            Ownership::OursIfEmpty if !physical.served => return Ok((Step::AwaitServed, Some(physical))),
            Ownership::OursIfEmpty => cluster.ends(&name, physical.partitions).await?.iter().all(|end| *end == 0),
        };
        if !ours {
            return Ok((Step::ReportForeign, Some(physical)));
        }
        let changes = match intent.want {
            Want::Absent => Default::default(),
            Want::Present => configs::changes(&configs::effective(&intent.configs)?, &cluster.configs(&name).await?),
        };
        let step = match plan::step_ours(intent, &physical, changes) {
            Step::Extend(total) if total <= done.extended_to => Step::AwaitServed,
            step => step,
        };
        Ok((step, Some(physical)))
    }

    async fn create(&self, cluster: &Cluster, intent: &Intent) -> Result<(), StepError> {
        let configs = configs::effective(&intent.configs)?;
        self.epoch()?;
        self.fail_points.hit("create.before");
        match cluster.create(&intent.name(), intent.partitions, configs).await {
            // Somebody was faster, maybe we ourselves in a former run; the next look tells whose it is.
            Err(error) if error.kafka_code() == Some(code::TOPIC_ALREADY_EXISTS) => {}
            other => other.map_err(sorted)?,
        }
        self.fail_points.hit("create.after");
        self.metrics.changed("create");
        Ok(())
    }

    async fn extend(&self, cluster: &Cluster, intent: &Intent, total: i32) -> Result<(), StepError> {
        self.epoch()?;
        match cluster.extend(&intent.name(), total).await {
            // It has as many already; brokers will show it.
            Err(error) if error.kafka_code() == Some(code::INVALID_PARTITIONS) => {}
            other => other.map_err(sorted)?,
        }
        self.fail_points.hit("extend.after");
        self.metrics.changed("extend");
        Ok(())
    }

    /// Stores the end offsets with the control plane, sees that they hold, and deletes. Gateways refuse writers by now, but
    /// a write may be on its way.
    async fn close_and_delete(
        &self,
        cluster: &Cluster,
        intent: &mut Intent,
        id: KafkaTopicId,
        physical: &Option<Physical>,
    ) -> Result<(), StepError> {
        let name = intent.name();
        let partitions = physical.as_ref().map_or(0, |physical| physical.partitions);
        let mut looks = 0;
        loop {
            let ends = cluster.ends(&name, partitions).await?;
            tokio::time::sleep(SETTLE).await;
            let again = cluster.ends(&name, partitions).await?;
            if again == ends && covers(&intent.final_end_offsets, &ends) {
                break;
            }
            looks += 1;
            if looks > SETTLE_LOOKS_MAX {
                return Err(StepError::StillWritten);
            }
            if again == ends {
                let report = Report { final_end_offsets: same_length(ends, intent), ..Report::new(Observed::Closing) };
                self.report(intent, &report).await?;
                intent.final_end_offsets = report.final_end_offsets;
                self.fail_points.hit("closing.reported");
            }
        }
        self.epoch()?;
        self.fail_points.hit("delete.before");
        cluster.delete(id).await.map_err(sorted)?;
        self.fail_points.hit("delete.after");
        self.metrics.changed("delete");
        Ok(())
    }

    async fn report_ready(&self, intent: &Intent, physical: &Option<Physical>) -> Result<(), StepError> {
        let Some(physical) = physical else { return Err(StepError::NotYet) };
        let report = Report {
            partitions: physical.partitions,
            kafka_topic_id: physical.topic_id.to_string(),
            ..Report::new(Observed::Ready)
        };
        self.report(intent, &report).await
    }

    async fn report(&self, intent: &Intent, report: &Report) -> Result<(), StepError> {
        let epoch = self.epoch()?;
        self.fail_points.hit("report.before");
        self.intents.report(epoch, intent, report).await.map_err(StepError::Call)?;
        self.metrics.reports.get_or_create(&Kind { kind: report.observed.as_str_name() }).inc();
        Ok(())
    }

    /// Before every change: the lease is surely ours at this moment.
    fn epoch(&self) -> Result<i64, StepError> {
        self.lease.epoch().ok_or(StepError::LeaseLost)
    }
}

/// Whether the stored ends are at least those seen, partition by partition.
fn covers(stored: &[i64], seen: &[i64]) -> bool {
    !stored.is_empty() && stored.iter().zip(seen).all(|(stored, seen)| stored >= seen)
}

/// A topic that grew while it was being deleted has more ends than were stored first; those stay the ones that count.
fn same_length(mut ends: Vec<i64>, intent: &Intent) -> Vec<i64> {
    if !intent.final_end_offsets.is_empty() {
        ends.truncate(intent.final_end_offsets.len());
    }
    ends
}

/// An answer to a change: refused for good, or worth another try.
fn sorted(error: sluice_wire::Error) -> StepError {
    match error.kafka_code() {
        Some(code::INVALID_CONFIG | code::POLICY_VIOLATION | code::INVALID_PARTITIONS | code::INVALID_REQUEST) => {
            StepError::Refused(error)
        }
        _ => StepError::Kafka(error.into()),
    }
}

/// What to report of an error: for people, without physical names, hosts or Kafka's own texts.
fn describe(error: &StepError) -> Report {
    let retrying = |reason, message| Report::because(Observed::Retrying, reason, message);
    let failed = |reason, message| Report::because(Observed::Failed, reason, message);
    match error {
        StepError::Refused(_) => failed("ClusterRefuses", "The streaming cluster refuses a topic with these settings."),
        StepError::Config(_) => failed("ConfigRefused", "A setting of this topic is not allowed."),
        StepError::OtherCluster => {
            retrying("ClusterUnknown", "Provisioning does not know the streaming cluster on which this topic is to be.")
        }
        StepError::NotYet => retrying("NotServedYet", "The streaming cluster does not yet serve every partition."),
        StepError::StillWritten => {
            retrying("StillWritten", "Records still arrive; the topic is deleted when they end.")
        }
        StepError::Kafka(ClusterError::Kafka(error)) => match error.kafka_code() {
            Some(code::INVALID_REPLICATION_FACTOR) => {
                retrying("NotEnoughBrokers", "The streaming cluster has too few brokers for the replicas wanted.")
            }
            Some(code::TOPIC_AUTHORIZATION_FAILED | code::CLUSTER_AUTHORIZATION_FAILED) => {
                retrying("ClusterAccess", "The streaming cluster does not let us manage this topic.")
            }
            _ => retrying("ClusterUnavailable", "The streaming cluster does not answer."),
        },
        StepError::Kafka(ClusterError::Disagreement) | StepError::LeaseLost | StepError::Call(_) => {
            retrying("ClusterUnavailable", "The streaming cluster does not answer.")
        }
    }
}

fn lost() -> Report {
    let message = "The physical topic is gone and its records with it; delete this topic and create it again.";
    Report::because(Observed::Failed, "TopicLost", message)
}

fn foreign() -> Report {
    let message = "Something that we did not make stands in this topic's place; it was not touched.";
    Report::because(Observed::Foreign, "ForeignTopic", message)
}

/// How long a run may last, for whoever waits for all of them to end.
pub const fn run_within() -> Duration {
    RUN_WITHIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_ends_cover_what_was_seen_or_are_stored_again() {
        assert!(!covers(&[], &[]));
        assert!(!covers(&[], &[0]));
        assert!(covers(&[3, 4], &[3, 4]));
        assert!(covers(&[3, 4], &[2, 4]));
        assert!(!covers(&[3, 4], &[3, 5]));
        assert!(covers(&[3], &[3, 9]));
    }

    #[test]
    fn each_failure_is_told_as_a_reason_and_a_sentence_that_a_tenant_understands() {
        let error = sluice_wire::Error::UnknownTopic { topic: "secret.name".into() };
        let told = [
            StepError::Kafka(error.clone().into()),
            StepError::Kafka(ClusterError::Disagreement),
            StepError::Refused(error),
            StepError::OtherCluster,
            StepError::NotYet,
            StepError::StillWritten,
            StepError::Config(ConfigError::NotAllowed("secret.name".into())),
        ];
        for report in told.iter().map(describe).chain([lost(), foreign()]) {
            let (reason, message) = (report.reason, report.message);
            assert!(!reason.is_empty() && reason.chars().all(|c| c.is_ascii_alphabetic()), "{reason}");
            assert!(message.ends_with('.') && !message.contains("Kafka"), "{reason}: {message}");
        }
    }
}
