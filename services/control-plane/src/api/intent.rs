//! `IntentService`: what provisioning reads and reports. Its role is checked by the layer; every report carries its lease.

use std::time::{Duration, Instant};

use sluice_db::DbError;
use sluice_proto::internal::control::v1::intent_service_server::IntentService;
use sluice_proto::internal::control::v1::{
    AcquireLeaseRequest, AcquireLeaseResponse, AwaitWorkRequest, AwaitWorkResponse, DeletedGroup,
    ListDeletedGroupsRequest, ListDeletedGroupsResponse, ListIntentsRequest, ListIntentsResponse, RecordAttemptRequest,
    RecordAttemptResponse, ReportGroupGoneRequest, ReportGroupGoneResponse, ReportTopicRequest, ReportTopicResponse,
};
use sluice_types::{Error, ErrorKind, GroupUid, Reason, TopicUid};
use tonic::{Request, Response, Status};

use super::{Api, refuse};
use crate::changes::report::{self, PROVISIONING_LEASE};
use crate::domain::intent::intent;
use crate::store::lease::{lease_acquire, lease_release};
use crate::store::topic::TopicRow;
use crate::store::work::{work_deleted_groups, work_due, work_list};

const WAIT_MAX: Duration = Duration::from_secs(30);
/// Notifications may be lost.
const POLL: Duration = Duration::from_secs(1);
const ITEMS_MAX: i32 = 1_000;
const LEASE_TTL_MIN: Duration = Duration::from_millis(500);
const LEASE_TTL_MAX: Duration = Duration::from_secs(60);

#[tonic::async_trait]
impl IntentService for Api {
    async fn acquire_lease(
        &self,
        request: Request<AcquireLeaseRequest>,
    ) -> Result<Response<AcquireLeaseResponse>, Status> {
        self.lease(request.into_inner()).await.map(Response::new).map_err(|error| refuse(error, ""))
    }

    async fn await_work(&self, request: Request<AwaitWorkRequest>) -> Result<Response<AwaitWorkResponse>, Status> {
        self.work(request.into_inner()).await.map(Response::new).map_err(|error| refuse(error, ""))
    }

    async fn list_intents(
        &self,
        request: Request<ListIntentsRequest>,
    ) -> Result<Response<ListIntentsResponse>, Status> {
        self.intents(request.into_inner()).await.map(Response::new).map_err(|error| refuse(error, ""))
    }

    async fn record_attempt(
        &self,
        request: Request<RecordAttemptRequest>,
    ) -> Result<Response<RecordAttemptResponse>, Status> {
        let done = report::attempt(&self.plane, request.into_inner()).await;
        done.map(|()| Response::new(RecordAttemptResponse {})).map_err(|error| refuse(error, ""))
    }

    async fn list_deleted_groups(
        &self,
        request: Request<ListDeletedGroupsRequest>,
    ) -> Result<Response<ListDeletedGroupsResponse>, Status> {
        self.deleted_groups(request.into_inner()).await.map(Response::new).map_err(|error| refuse(error, ""))
    }

    async fn report_group_gone(
        &self,
        request: Request<ReportGroupGoneRequest>,
    ) -> Result<Response<ReportGroupGoneResponse>, Status> {
        let done = report::group_gone(&self.plane, request.into_inner()).await;
        done.map(|()| Response::new(ReportGroupGoneResponse {})).map_err(|error| refuse(error, ""))
    }

    async fn report_topic(
        &self,
        request: Request<ReportTopicRequest>,
    ) -> Result<Response<ReportTopicResponse>, Status> {
        let done = report::report(&self.plane, request.into_inner()).await;
        done.map(|()| Response::new(ReportTopicResponse {})).map_err(|error| refuse(error, ""))
    }
}

impl Api {
    async fn lease(&self, request: AcquireLeaseRequest) -> Result<AcquireLeaseResponse, Error> {
        if request.holder.is_empty() || request.holder.len() > 128 {
            return Err(Error::invalid("holder", "must have 1..128 bytes"));
        }
        let ttl = duration("ttl", request.ttl)?.unwrap_or(LEASE_TTL_MIN);
        if ttl.is_zero() {
            return self.release(request.holder).await;
        }
        let ttl = ttl.clamp(LEASE_TTL_MIN, LEASE_TTL_MAX);
        let system = self.plane.scopes.leases.clone();
        let work = async move {
            let mut tx = system.begin().await?;
            let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            let epoch = lease_acquire(&mut tx, PROVISIONING_LEASE, &request.holder, ttl_ms).await?;
            tx.commit().await?;
            Ok::<_, DbError>(epoch)
        };
        let epoch = self.plane.db.run(work).await.map_err(unavailable)?.ok_or_else(|| {
            Error::new(ErrorKind::FailedPrecondition, Reason::ResourceState, "another holder has the lease; try later")
        })?;
        Ok(AcquireLeaseResponse { epoch })
    }

    async fn release(&self, holder: String) -> Result<AcquireLeaseResponse, Error> {
        let system = self.plane.scopes.leases.clone();
        let work = async move {
            let mut tx = system.begin().await?;
            lease_release(&mut tx, PROVISIONING_LEASE, &holder).await?;
            tx.commit().await
        };
        self.plane.db.run(work).await.map_err(unavailable)?;
        Ok(AcquireLeaseResponse::default())
    }

    async fn work(&self, request: AwaitWorkRequest) -> Result<AwaitWorkResponse, Error> {
        let until = Instant::now() + duration("wait", request.wait)?.unwrap_or_default().min(WAIT_MAX);
        let limit = i64::from(request.limit.clamp(1, ITEMS_MAX));
        let mut woken = self.plane.wakes.intent.subscribe();
        loop {
            let (due, next_ms) = self.due(limit).await?;
            let left = until.saturating_duration_since(Instant::now());
            if !due.is_empty() || left.is_zero() || self.plane.closing.is_cancelled() {
                return Ok(AwaitWorkResponse { topics: due.iter().map(|row| self.intent_of(row)).collect() });
            }
            let next = next_ms.map_or(POLL, |ms| Duration::from_millis(ms.clamp(1, 1_000) as u64));
            tokio::select! {
                () = woken.sleep(left.min(POLL).min(next)) => {}
                () = self.plane.closing.cancelled() => {}
            }
        }
    }

    async fn due(&self, limit: i64) -> Result<(Vec<TopicRow>, Option<i64>), Error> {
        let system = self.plane.scopes.reports.clone();
        let work = async move {
            let mut tx = system.begin().await?;
            let due = work_due(&mut tx, limit).await?;
            tx.rollback().await?;
            Ok::<_, DbError>(due)
        };
        self.plane.db.run(work).await.map_err(unavailable)
    }

    async fn intents(&self, request: ListIntentsRequest) -> Result<ListIntentsResponse, Error> {
        let after: Option<TopicUid> = match request.after_topic_uid.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| Error::invalid("after_topic_uid", "is not a uid"))?),
        };
        let limit = i64::from(request.limit.clamp(1, ITEMS_MAX));
        let system = self.plane.scopes.reports.clone();
        let work = async move {
            let mut tx = system.begin().await?;
            let rows = work_list(&mut tx, after, limit).await?;
            tx.rollback().await?;
            Ok::<_, DbError>(rows)
        };
        let rows = self.plane.db.run(work).await.map_err(unavailable)?;
        Ok(ListIntentsResponse { topics: rows.iter().map(|row| self.intent_of(row)).collect() })
    }

    async fn deleted_groups(&self, request: ListDeletedGroupsRequest) -> Result<ListDeletedGroupsResponse, Error> {
        let after: Option<GroupUid> = match request.after_group_uid.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| Error::invalid("after_group_uid", "is not a uid"))?),
        };
        let limit = request.limit.clamp(1, ITEMS_MAX);
        let system = self.plane.scopes.reports.clone();
        let work = async move {
            let mut tx = system.begin().await?;
            let rows = work_deleted_groups(&mut tx, after, i64::from(limit)).await?;
            tx.rollback().await?;
            Ok::<_, DbError>(rows)
        };
        let rows = self.plane.db.run(work).await.map_err(unavailable)?;
        let next = rows.last().filter(|_| rows.len() >= limit.unsigned_abs() as usize).map(|row| row.uid().to_string());
        let groups = rows.iter().filter(|row| self.plane.is_everywhere(row.published_offset)).map(|row| DeletedGroup {
            namespace_uid: row.namespace_uid().to_string(),
            group_uid: row.uid().to_string(),
            cluster_uids: row.cluster_uids().map(|uid| uid.to_string()).collect(),
        });
        Ok(ListDeletedGroupsResponse { groups: groups.collect(), next_after_group_uid: next.unwrap_or_default() })
    }

    fn intent_of(&self, row: &TopicRow) -> sluice_proto::internal::control::v1::TopicIntent {
        intent(row, self.plane.settings.defaults.max_message_bytes.bytes())
    }
}

fn duration(field: &str, sent: Option<sluice_proto::wkt::Duration>) -> Result<Option<Duration>, Error> {
    sent.map(|sent| Duration::try_from(sent).map_err(|what| Error::invalid(field, what))).transpose()
}

fn unavailable(error: DbError) -> Error {
    error.into_error(Reason::ControlPlaneUnavailable)
}
