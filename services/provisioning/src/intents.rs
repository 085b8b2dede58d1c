//! The control plane as reconciling needs it: the lease, what is wanted, and what we report. Every call has a deadline.

use std::time::Duration;

use sluice_proto::internal::control::v1 as pb;
use sluice_proto::internal::control::v1::intent_service_client::IntentServiceClient;
use sluice_proto::internal::control::v1::report_topic_request::Observed;
use sluice_reconcile::Leases;
use sluice_runtime::statuses;
use sluice_types::{ClusterUid, GroupUid, NamespaceUid, Reason, TopicUid};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::domain::intent::Intent;

const CALL: Duration = Duration::from_secs(5);
/// How long the control plane holds a question for work.
const AWAIT: Duration = Duration::from_secs(10);
const PAGE: i32 = 1_000;
/// Intents in one listing; beyond it the listing fails instead of being cut.
const INTENTS_MAX: usize = 1_000_000;

/// The control plane's intent service. Clones share the channel.
#[derive(Clone)]
pub struct Intents {
    client: IntentServiceClient<Channel>,
}

/// What happened with a call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Another epoch holds: everything stops until the lease is ours again.
    #[error("the lease is not ours")]
    LeaseLost,
    /// The topic is in another state than we thought: its intent must be read anew.
    #[error("the intent has changed")]
    Outdated(#[source] Status),
    /// Anything else; try again.
    #[error("call the control plane")]
    Failed(#[source] Status),
}

/// A deleted group that Kafka may still hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedGroup {
    /// Its namespace.
    pub namespace: NamespaceUid,
    /// The group.
    pub group: GroupUid,
    /// The clusters that may hold it.
    pub clusters: Vec<ClusterUid>,
}

impl DeletedGroup {
    fn read(from: pb::DeletedGroup) -> Option<Self> {
        let mut clusters = from.cluster_uids.iter().map(|uid| uid.parse().ok()).collect::<Option<Vec<_>>>()?;
        if clusters.is_empty() {
            // An older control plane does not say them, and knows one cluster.
            clusters.push(ClusterUid::FIRST);
        }
        Some(Self { namespace: from.namespace_uid.parse().ok()?, group: from.group_uid.parse().ok()?, clusters })
    }
}

/// What is reported of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was seen.
    pub observed: Observed,
    /// Partitions seen.
    pub partitions: i32,
    /// The physical topic's id.
    pub kafka_topic_id: String,
    /// For CLOSING.
    pub final_end_offsets: Vec<i64>,
    /// One word.
    pub reason: &'static str,
    /// A sentence without physical names.
    pub message: &'static str,
}

impl Report {
    /// With nothing but what was seen.
    pub fn new(observed: Observed) -> Self {
        Self {
            observed,
            partitions: 0,
            kafka_topic_id: String::new(),
            final_end_offsets: Vec::new(),
            reason: "",
            message: "",
        }
    }

    /// With a reason and a sentence.
    pub fn because(observed: Observed, reason: &'static str, message: &'static str) -> Self {
        Self { reason, message, ..Self::new(observed) }
    }
}

impl Intents {
    /// Over a channel to the control plane.
    pub fn new(channel: Channel) -> Self {
        Self { client: IntentServiceClient::new(channel) }
    }

    /// Topics to work on; waits for some.
    pub async fn await_work(&self) -> Result<Vec<Intent>, CallError> {
        let request = pb::AwaitWorkRequest { wait: Some(AWAIT.into()), limit: PAGE };
        let answer = self.client.clone().await_work(within(AWAIT + CALL, request)).await.map_err(CallError::Failed)?;
        Ok(answer.into_inner().topics.into_iter().filter_map(read).collect())
    }

    /// All topics that should exist or are on their way out.
    pub async fn list(&self) -> Result<Vec<Intent>, CallError> {
        let mut intents = Vec::new();
        let mut after = String::new();
        loop {
            let request = pb::ListIntentsRequest { after_topic_uid: after, limit: PAGE };
            let page = self.client.clone().list_intents(within(CALL, request)).await.map_err(CallError::Failed)?;
            let page = page.into_inner().topics;
            let Some(last) = page.last() else { return Ok(intents) };
            after = last.topic_uid.clone();
            intents.extend(page.into_iter().filter_map(read));
            if intents.len() > INTENTS_MAX {
                return Err(CallError::Failed(Status::out_of_range("more intents than this process can hold")));
            }
        }
    }

    /// Deleted groups that Kafka may still hold, and where to go on; `None` is all from the first, and the end.
    pub async fn deleted_groups(
        &self,
        after: Option<String>,
    ) -> Result<(Vec<DeletedGroup>, Option<String>), CallError> {
        let request = pb::ListDeletedGroupsRequest { after_group_uid: after.unwrap_or_default(), limit: PAGE };
        let page = self.client.clone().list_deleted_groups(within(CALL, request)).await.map_err(CallError::Failed)?;
        let page = page.into_inner();
        let next = Some(page.next_after_group_uid).filter(|next| !next.is_empty());
        Ok((page.groups.into_iter().filter_map(DeletedGroup::read).collect(), next))
    }

    /// Reports that Kafka does not hold a deleted group.
    pub async fn report_group_gone(&self, epoch: i64, group: GroupUid) -> Result<(), CallError> {
        let request = pb::ReportGroupGoneRequest { lease_epoch: epoch, group_uid: group.to_string() };
        self.client.clone().report_group_gone(within(CALL, request)).await.map(drop).map_err(refused)
    }

    /// Announces that a topic will be made.
    pub async fn record_attempt(&self, epoch: i64, topic: TopicUid) -> Result<(), CallError> {
        let request = pb::RecordAttemptRequest { lease_epoch: epoch, topic_uid: topic.to_string() };
        self.client.clone().record_attempt(within(CALL, request)).await.map(drop).map_err(refused)
    }

    /// Reports.
    pub async fn report(&self, epoch: i64, intent: &Intent, report: &Report) -> Result<(), CallError> {
        let request = pb::ReportTopicRequest {
            lease_epoch: epoch,
            topic_uid: intent.topic.to_string(),
            observed_generation: intent.generation,
            observed: report.observed.into(),
            partitions: report.partitions,
            kafka_topic_id: report.kafka_topic_id.clone(),
            final_end_offsets: report.final_end_offsets.clone(),
            reason: report.reason.to_owned(),
            message: report.message.to_owned(),
            cluster_uid: intent.cluster.to_string(),
        };
        self.client.clone().report_topic(within(CALL, request)).await.map(drop).map_err(refused)
    }
}

/// The lease of the work.
impl Leases for Intents {
    type Error = CallError;

    async fn acquire(&self, holder: &str, ttl: Duration) -> Result<Option<i64>, CallError> {
        let request = pb::AcquireLeaseRequest { holder: holder.to_owned(), ttl: Some(ttl.into()) };
        match self.client.clone().acquire_lease(within(CALL, request)).await {
            Ok(answer) => Ok(Some(answer.into_inner().epoch)),
            Err(status) if status.code() == Code::FailedPrecondition => Ok(None),
            Err(status) => Err(CallError::Failed(status)),
        }
    }

    async fn release(&self, holder: &str) -> Result<(), CallError> {
        let request = pb::AcquireLeaseRequest { holder: holder.to_owned(), ttl: Some(Duration::ZERO.into()) };
        self.client.clone().acquire_lease(within(CALL, request)).await.map(drop).map_err(CallError::Failed)
    }
}

fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Only the reason says that the lease is lost: a tenant whose changes take long must not stop the work on all others.
fn refused(status: Status) -> CallError {
    match status.code() {
        Code::Aborted if statuses::from_tonic(&status).reason == Reason::LeaseLost => CallError::LeaseLost,
        Code::FailedPrecondition | Code::NotFound => CallError::Outdated(status),
        _ => CallError::Failed(status),
    }
}

/// An intent that cannot be read is a fault of ours; it must not stop the others.
fn read(intent: pb::TopicIntent) -> Option<Intent> {
    let uid = intent.topic_uid.clone();
    Intent::try_from(intent).inspect_err(|error| tracing::error!(topic = uid, %error, "intent left out")).ok()
}

#[cfg(test)]
mod tests {
    use sluice_types::{Error, ErrorKind};

    use super::*;

    #[test]
    fn only_a_lost_lease_stops_the_work() {
        let told = |error: Error| refused(statuses::to_tonic(&error, "id"));
        let lost = Error::new(ErrorKind::Aborted, Reason::LeaseLost, "x");
        assert!(matches!(told(lost), CallError::LeaseLost));
        for other in [
            Error::unavailable(Reason::Contended, "a busy tenant"),
            Error::new(
                ErrorKind::Aborted,
                Reason::ControlPlaneUnavailable,
                "a busy tenant, as an older control plane says it",
            ),
        ] {
            assert!(matches!(told(other), CallError::Failed(_)));
        }
    }
}
