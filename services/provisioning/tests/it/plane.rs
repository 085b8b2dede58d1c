//! A small control plane: the intent service over mutual TLS, with leases, generations and the rules for reports, in memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sluice_proto::internal::control::v1::intent_service_server::{IntentService, IntentServiceServer};
use sluice_proto::internal::control::v1::report_topic_request::Observed;
use sluice_proto::internal::control::v1::topic_intent::Want;
use sluice_proto::internal::control::v1::*;
use sluice_runtime::config::InternalTlsConfig;
use sluice_runtime::internal::RequireRole;
use sluice_runtime::server::{Edge, bind, serve};
use sluice_runtime::tls::InternalTls;
use sluice_types::physical::PhysicalTopic;
use sluice_types::{ClusterUid, GroupUid, NamespaceUid, TenantUid, TopicUid};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tower::Layer as _;

/// What the control plane knows of a topic.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) intent: TopicIntent,
    /// The last report.
    pub(crate) observed: Observed,
    pub(crate) reason: String,
    /// On which cluster it was seen.
    pub(crate) cluster_uid: String,
    pub(crate) partitions: i32,
    /// Out of the way: no work until the generation changes.
    pub(crate) settled: bool,
    /// How often anything was reported.
    pub(crate) reports: u32,
}

impl Known {
    pub(crate) fn name(&self) -> PhysicalTopic {
        let log = [&self.intent.log_uid, &self.intent.topic_uid].into_iter().find(|uid| !uid.is_empty()).unwrap();
        PhysicalTopic::of_log(self.intent.namespace_uid.parse().unwrap(), log.parse().unwrap())
    }
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Known>,
    holder: String,
    epoch: i64,
    expires: Option<Instant>,
    /// Reports about this topic fail.
    broken: Option<String>,
    /// Groups that Kafka should not hold, by uid.
    groups: BTreeMap<String, DeletedGroup>,
}

/// The control plane. Clones are the same.
#[derive(Clone)]
pub(crate) struct Plane {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    pub(crate) addr: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Plane {
    fn drop(&mut self) {
        // The server itself holds a clone.
        if Arc::strong_count(&self.state) <= 2 {
            self.stop.cancel();
        }
    }
}

impl Plane {
    /// As if the time of the lease were over.
    pub(crate) fn lease_runs_out(&self) {
        self.state.lock().expires = None;
    }

    fn lease_runs_out_of(&self, holder: &str) {
        let mut state = self.state.lock();
        if state.holder == holder {
            state.expires = None;
        }
    }

    pub(crate) async fn start(identity: &InternalTlsConfig) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (state, changed, stop) = (Arc::default(), Arc::default(), CancellationToken::new());
        let plane = Self { state, changed, addr, stop: stop.clone() };
        let layer = RequireRole::new(&["provisioning"]);
        let routes = Routes::new(layer.layer(IntentServiceServer::new(plane.clone()))).prepare();
        let tls = InternalTls::load(identity).unwrap().server_tls().unwrap();
        tokio::spawn(serve(listener, Some(tls), Edge::internal(), move |_| routes.clone(), stop, Duration::ZERO));
        plane
    }

    /// Wants a new topic; its uid.
    pub(crate) fn want(&self, partitions: i32, configs: &[(&str, &str)]) -> String {
        let uid = TopicUid::random().to_string();
        let intent = TopicIntent {
            tenant_uid: TenantUid::random().to_string(),
            namespace_uid: NamespaceUid::random().to_string(),
            topic_uid: uid.clone(),
            generation: 1,
            want: Want::Present.into(),
            partitions,
            configs: configs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ..Default::default()
        };
        self.put(intent);
        uid
    }

    pub(crate) fn put(&self, intent: TopicIntent) {
        let known = Known {
            observed: Observed::Unspecified,
            reason: String::new(),
            cluster_uid: String::new(),
            partitions: 0,
            settled: false,
            reports: 0,
            intent,
        };
        self.state.lock().topics.insert(known.intent.topic_uid.clone(), known);
        self.changed.notify_waiters();
    }

    /// Changes an intent: a new generation.
    pub(crate) fn change(&self, uid: &str, change: impl FnOnce(&mut TopicIntent)) {
        let mut state = self.state.lock();
        let known = state.topics.get_mut(uid).unwrap();
        change(&mut known.intent);
        known.intent.generation += 1;
        known.settled = false;
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn delete(&self, uid: &str) {
        self.change(uid, |intent| intent.want = Want::Absent.into());
    }

    pub(crate) fn known(&self, uid: &str) -> Known {
        self.state.lock().topics[uid].clone()
    }

    pub(crate) fn break_reports_of(&self, uid: &str) {
        self.state.lock().broken = Some(uid.to_owned());
    }

    /// A group that was deleted.
    pub(crate) fn delete_group(&self, namespace: NamespaceUid, group: GroupUid) {
        self.delete_group_on(&[], namespace, group);
    }

    /// The same where the control plane says on which clusters it may be.
    pub(crate) fn delete_group_on(&self, clusters: &[ClusterUid], namespace: NamespaceUid, group: GroupUid) {
        let deleted = DeletedGroup {
            namespace_uid: namespace.to_string(),
            group_uid: group.to_string(),
            cluster_uids: clusters.iter().map(ToString::to_string).collect(),
        };
        self.state.lock().groups.insert(group.to_string(), deleted);
    }

    /// Whether it was reported that Kafka does not hold the group.
    pub(crate) fn is_group_gone(&self, group: GroupUid) -> bool {
        !self.state.lock().groups.contains_key(&group.to_string())
    }

    fn report(&self, request: ReportTopicRequest) -> Result<(), Status> {
        let mut state = self.state.lock();
        if state.epoch != request.lease_epoch {
            return Err(Status::aborted("old epoch"));
        }
        if state.broken.as_deref() == Some(request.topic_uid.as_str()) {
            return Err(Status::internal("broken for a test"));
        }
        let known = state.topics.get_mut(&request.topic_uid).ok_or_else(|| Status::not_found("no such topic"))?;
        let leaving = known.intent.want() == Want::Absent;
        let observed = request.observed();
        match observed {
            Observed::Ready if leaving => return Ok(()),
            Observed::Ready => {
                let id = &known.intent.kafka_topic_id;
                if !id.is_empty() && *id != request.kafka_topic_id {
                    return Err(Status::failed_precondition("another physical topic"));
                }
                known.intent.kafka_topic_id = request.kafka_topic_id;
                known.intent.observed_generation = known.intent.observed_generation.max(request.observed_generation);
                known.partitions = request.partitions;
                known.settled = known.intent.observed_generation == known.intent.generation;
            }
            Observed::Closing | Observed::Gone if !leaving => {
                return Err(Status::failed_precondition("it should be there"));
            }
            Observed::Closing => {
                let before = &known.intent.final_end_offsets;
                assert!(before.iter().zip(&request.final_end_offsets).all(|(a, b)| a <= b), "ends only grow");
                known.intent.final_end_offsets = request.final_end_offsets;
            }
            Observed::Gone | Observed::Failed | Observed::Foreign => known.settled = true,
            Observed::Retrying => {}
            Observed::Unspecified => return Err(Status::invalid_argument("observed")),
        }
        known.observed = observed;
        known.reason = request.reason;
        known.cluster_uid = request.cluster_uid;
        known.reports += 1;
        Ok(())
    }
}

#[tonic::async_trait]
impl IntentService for Plane {
    async fn acquire_lease(
        &self,
        request: Request<AcquireLeaseRequest>,
    ) -> Result<Response<AcquireLeaseResponse>, Status> {
        let request = request.into_inner();
        let ttl = Duration::try_from(request.ttl.unwrap()).unwrap();
        if ttl.is_zero() {
            self.lease_runs_out_of(&request.holder);
            return Ok(Response::new(AcquireLeaseResponse::default()));
        }
        let (mut state, now) = (self.state.lock(), Instant::now());
        if state.holder != request.holder {
            if state.expires.is_some_and(|at| now < at) {
                return Err(Status::failed_precondition("another holder"));
            }
            state.holder = request.holder;
            state.epoch += 1;
        }
        state.expires = Some(now + ttl);
        Ok(Response::new(AcquireLeaseResponse { epoch: state.epoch }))
    }

    async fn await_work(&self, request: Request<AwaitWorkRequest>) -> Result<Response<AwaitWorkResponse>, Status> {
        let until = Instant::now() + Duration::try_from(request.into_inner().wait.unwrap()).unwrap();
        loop {
            let changed = self.changed.notified();
            let topics: Vec<TopicIntent> = self
                .state
                .lock()
                .topics
                .values()
                .filter(|known| !known.settled)
                .map(|known| known.intent.clone())
                .collect();
            let left = until.saturating_duration_since(Instant::now());
            if !topics.is_empty() || left.is_zero() {
                return Ok(Response::new(AwaitWorkResponse { topics }));
            }
            let _ = tokio::time::timeout(left, changed).await;
        }
    }

    async fn list_intents(
        &self,
        request: Request<ListIntentsRequest>,
    ) -> Result<Response<ListIntentsResponse>, Status> {
        let request = request.into_inner();
        let state = self.state.lock();
        let after =
            state.topics.range((std::ops::Bound::Excluded(request.after_topic_uid), std::ops::Bound::Unbounded));
        let wanted = after.filter(|(_, known)| known.observed != Observed::Gone);
        let topics = wanted.map(|(_, known)| known.intent.clone()).take(request.limit as usize).collect();
        Ok(Response::new(ListIntentsResponse { topics }))
    }

    async fn record_attempt(
        &self,
        request: Request<RecordAttemptRequest>,
    ) -> Result<Response<RecordAttemptResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        if state.epoch != request.lease_epoch {
            return Err(Status::aborted("old epoch"));
        }
        let known = state.topics.get_mut(&request.topic_uid).ok_or_else(|| Status::not_found("no such topic"))?;
        if known.intent.want() == Want::Absent {
            return Err(Status::failed_precondition("on its way out"));
        }
        known.intent.create_attempted = true;
        Ok(Response::new(RecordAttemptResponse {}))
    }

    async fn list_deleted_groups(
        &self,
        request: Request<ListDeletedGroupsRequest>,
    ) -> Result<Response<ListDeletedGroupsResponse>, Status> {
        // One at a time.
        let after = (std::ops::Bound::Excluded(request.into_inner().after_group_uid), std::ops::Bound::Unbounded);
        let state = self.state.lock();
        let next = state.groups.range(after).next();
        let next_after_group_uid = next.map(|(group, _)| group.clone()).unwrap_or_default();
        Ok(Response::new(ListDeletedGroupsResponse {
            groups: next.map(|(_, group)| group.clone()).into_iter().collect(),
            next_after_group_uid,
        }))
    }

    async fn report_group_gone(
        &self,
        request: Request<ReportGroupGoneRequest>,
    ) -> Result<Response<ReportGroupGoneResponse>, Status> {
        let (request, mut state) = (request.into_inner(), self.state.lock());
        if state.epoch != request.lease_epoch {
            return Err(Status::aborted("old epoch"));
        }
        state.groups.remove(&request.group_uid);
        Ok(Response::new(ReportGroupGoneResponse {}))
    }

    async fn report_topic(
        &self,
        request: Request<ReportTopicRequest>,
    ) -> Result<Response<ReportTopicResponse>, Status> {
        self.report(request.into_inner()).map(|()| Response::new(ReportTopicResponse {}))
    }
}
