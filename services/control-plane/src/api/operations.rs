//! `OperationService`, and how mutations with an operation answer.
//!
//! An operation says `done` only after the barrier: then every live gateway serves its effect, or a condition tells how
//! many have not confirmed. So a change goes from its transaction through provisioning to the gateways within one call,
//! when that takes less than the wait.

use std::time::{Duration, Instant};

use prost::Message as _;
use sluice_proto::admin::v1::operation_service_server::OperationService;
use sluice_proto::admin::v1::{
    Condition, GetOperationRequest, ListOperationsRequest, ListOperationsResponse, OperationMetadata,
    WaitOperationRequest, condition,
};
use sluice_proto::google::longrunning::Operation;
use sluice_proto::google::longrunning::operation::Result as Outcome;
use sluice_proto::google::rpc;
use sluice_proto::wkt::{self, Any, Timestamp};
use sluice_types::{Error, OperationUid, ResourceName, Revision};
use tonic::{Request, Response, Status};

use super::reads::{Page, rpc_of};
use super::{ANSWER_RESERVE, Api, answered, tell, tell_revision};
use crate::changes::key::now_us;
use crate::changes::{Call, Committed, Started, Txn, read};
use crate::domain::fields;
use crate::error::Fault;
use crate::jobs::barrier::Propagation;
use crate::jobs::members::Confirmed;
use crate::plane::{Plane, SharedPlane};
use crate::store::operation::{OperationRow, OperationState, operation_get, operation_list};

/// Between looks at an operation whose end nobody told: notifications may be lost.
const POLL: Duration = Duration::from_secs(1);
const WAIT_DEFAULT: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(30);

#[tonic::async_trait]
impl OperationService for Api {
    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Result<Response<Operation>, Status> {
        answered(request, async |call, request| {
            let uid = parse_name(&request.name)?;
            look(&self.plane, call, rpc_of(&request), uid, request.name, Instant::now()).await
        })
        .await
    }

    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        self.looked(
            request,
            |_| Ok(()),
            |txn, request, ()| {
                Box::pin(async move {
                    let page = Page::begin(txn, request.page_size, &request.page_token, String::new())?;
                    let before = page.after.as_deref().and_then(parse_key);
                    let rows = operation_list(txn.tx(), before, page.limit()).await?;
                    let key = |row: &OperationRow| format!("{}/{}", row.create_us, row.uid);
                    let show = |row: &OperationRow| shown(row, propagation_now(txn.plane(), row).as_ref());
                    let (operations, next_page_token) = page.finish(txn, &rows, key, show);
                    Ok(ListOperationsResponse { operations, next_page_token })
                })
            },
        )
        .await
    }

    async fn wait_operation(&self, request: Request<WaitOperationRequest>) -> Result<Response<Operation>, Status> {
        answered(request, async |call, request| {
            let uid = parse_name(&request.name)?;
            let wait = match request.timeout {
                None => WAIT_DEFAULT,
                Some(timeout) => Duration::try_from(timeout).map_err(|what| Error::invalid("timeout", what))?,
            };
            if wait > WAIT_MAX {
                return Err(Error::invalid("timeout", "must be 0..30 s"));
            }
            let until = Instant::now() + wait;
            look(&self.plane, call, rpc_of(&request), uid, request.name, until).await
        })
        .await
    }
}

/// The answer of a mutation with an operation: waits until it is done, within the server's and the caller's time.
pub(super) async fn finished(
    plane: &SharedPlane,
    call: Call,
    committed: Committed<Started>,
) -> Result<Response<Operation>, Error> {
    let Started { operation, resource } = committed.answer;
    if committed.validated_only {
        let operation = Operation { done: true, result: Some(Outcome::Response(resource)), ..Operation::default() };
        return Ok(Response::new(operation));
    }
    let until = Instant::now() + plane.settings.operation_wait;
    follow(plane, &call, Some(operation), until, || load(plane, call.clone(), operation)).await
}

/// Looks at an operation for its own sake, with authorization.
async fn look(
    plane: &SharedPlane,
    call: Call,
    rpc: &'static sluice_proto::Rpc,
    uid: Option<OperationUid>,
    name: String,
    until: Instant,
) -> Result<Response<Operation>, Error> {
    let visible = || {
        let name = name.clone();
        read(plane, call.clone(), rpc, move |txn| {
            Box::pin(async move {
                let row = match uid {
                    Some(uid) => operation_get(txn.tx(), uid).await?,
                    None => None,
                };
                authorize(txn, &name, row.as_ref())?;
                Ok(row.ok_or_else(|| Error::not_found(&name))?)
            })
        })
    };
    follow(plane, &call, uid, until, visible).await
}

/// An operation may be seen by those who may see all operations, and by those who may look at operations of its target.
fn authorize(txn: &Txn, name: &str, row: Option<&OperationRow>) -> Result<(), Fault> {
    if row.is_some_and(|row| txn.authorize_on(&row.target).is_ok()) {
        return Ok(());
    }
    Ok(txn.authorize_on(name)?)
}

/// The caller's own operation: it may see what it started.
async fn load(plane: &SharedPlane, call: Call, uid: OperationUid) -> Result<OperationRow, Error> {
    read(plane, call, &sluice_proto::rpcs::OPERATION_SERVICE_GET_OPERATION, move |txn| {
        Box::pin(async move {
            let row = operation_get(txn.tx(), uid).await?;
            Ok(row.ok_or_else(|| Error::internal("the operation of a change is missing"))?)
        })
    })
    .await
}

/// Re-reads an operation until it is done on the gateways too, or the time is over.
async fn follow<F>(
    plane: &SharedPlane,
    call: &Call,
    uid: Option<OperationUid>,
    until: Instant,
    load: impl Fn() -> F,
) -> Result<Response<Operation>, Error>
where
    F: Future<Output = Result<OperationRow, Error>>,
{
    let deadline = call.deadline();
    let until = until.min(deadline.checked_sub(ANSWER_RESERVE).unwrap_or(deadline));
    let mut ended = uid.map(|uid| plane.wakes.operation.subscribe(uid));
    let row = loop {
        let row = load().await?;
        let left = until.saturating_duration_since(Instant::now());
        match &mut ended {
            Some(ended) if row.state == OperationState::Running && !left.is_zero() => ended.sleep(left.min(POLL)).await,
            _ => break row,
        }
    };
    let propagation = match row.effect_outbox_id {
        Some(outbox_id) if row.state == OperationState::Succeeded => {
            let barrier = until.min(Instant::now() + plane.settings.barrier_max);
            Some(plane.propagate(outbox_id, barrier).await)
        }
        _ => None,
    };
    let mut response = Response::new(shown(&row, propagation.as_ref()));
    if let Some(propagation) = &propagation {
        tell(&mut response, propagation);
    }
    if let Some(revision) = row.revision.as_ref().and_then(|text| text.parse::<Revision>().ok()) {
        tell_revision(&mut response, revision);
    }
    Ok(response)
}

/// What the barrier says now, from memory: a page has a thousand operations.
fn propagation_now(plane: &Plane, row: &OperationRow) -> Option<Propagation> {
    let outbox_id = row.effect_outbox_id.filter(|_| row.state == OperationState::Succeeded)?;
    // The row gets its revision with the publication, in one transaction.
    let known = row.revision.as_ref().and_then(|text| text.parse::<Revision>().ok());
    let known = known.or_else(|| plane.revisions.offset(outbox_id).and_then(|offset| plane.revisions.revision(offset)));
    let Some(revision) = known else { return Some(Propagation::NotPublished) };
    Some(match plane.revisions.log_id() {
        None => Propagation::published(Some(revision), Confirmed::Unknown),
        Some(log) if revision.topic_id == log.0 => {
            let confirmed = Confirmed::of(plane.members.progress(log, revision.offset));
            Propagation::published(Some(revision), confirmed)
        }
        // Published to an earlier life of the log: whoever serves today has it from the present one.
        Some(_) => Propagation::Everywhere(Some(revision)),
    })
}

/// An operation as the API shows it.
fn shown(row: &OperationRow, propagation: Option<&Propagation>) -> Operation {
    /// How long a finished operation may be on its way to the gateways before it is done with a condition.
    const PROPAGATING_US_MAX: i64 = 2_000_000;
    let fresh = row.end_us.is_some_and(|end| now_us() - end < PROPAGATING_US_MAX);
    let everywhere = propagation.is_none_or(|propagation| matches!(propagation, Propagation::Everywhere(_)));
    let (phase, progress_percent, done) = match row.state {
        OperationState::Running => ("PROVISIONING", 30, false),
        OperationState::Failed => ("FAILED", 100, true),
        OperationState::Succeeded if !everywhere && fresh => ("PROPAGATING", 90, false),
        OperationState::Succeeded if row.purging => ("PURGING", 100, true),
        OperationState::Succeeded => ("DONE", 100, true),
    };
    let revision = propagation.and_then(Propagation::revision).map(|revision| revision.to_string());
    let metadata = OperationMetadata {
        target: row.target.clone(),
        verb: row.verb.clone(),
        phase: phase.to_owned(),
        progress_percent,
        create_time: Some(Timestamp::from_micros(row.create_us)),
        end_time: row.end_us.filter(|_| done).map(Timestamp::from_micros),
        revision: revision.or_else(|| row.revision.clone()).unwrap_or_default(),
        conditions: propagation.and_then(Propagation::condition).into_iter().chain(key_order(row)).collect(),
        poll_after: (!done).then(|| wkt::Duration::from_millis(250)),
    };
    let result = match row.state {
        OperationState::Succeeded if done => {
            let packed = row.response.as_deref().and_then(|bytes| Any::decode(bytes).ok());
            Some(Outcome::Response(packed.unwrap_or_default()))
        }
        OperationState::Failed => Some(Outcome::Error(failure(row))),
        OperationState::Running | OperationState::Succeeded => None,
    };
    Operation { name: format!("operations/{}", row.uid()), metadata: Some(Any::pack(&metadata)), done, result }
}

/// Raised partitions break the order of keys (decision 0014).
fn key_order(row: &OperationRow) -> Option<Condition> {
    let (before, after) = row.partitions_before.zip(row.partitions_after)?;
    let message = format!(
        "The partitions go from {before} to {after}. From then on a record may be in another partition than the earlier records of \
         its key, and be delivered before them."
    );
    (row.state != OperationState::Failed).then(|| Condition {
        r#type: "KeyOrderBroken".into(),
        status: condition::Status::True as i32,
        reason: "PartitionsAdded".into(),
        message,
        observed_generation: row.generation,
        last_transition_time: Some(Timestamp::from_micros(row.end_us.unwrap_or(row.create_us))),
    })
}

fn failure(row: &OperationRow) -> rpc::Status {
    let info = rpc::ErrorInfo {
        reason: sluice_types::Reason::ResourceState.as_str().to_owned(),
        domain: sluice_runtime::statuses::DOMAIN.to_owned(),
        metadata: [("cause".to_owned(), row.error_reason.clone().unwrap_or_default())].into(),
    };
    rpc::Status {
        code: row.error_code.unwrap_or(13),
        message: row.error_message.clone().unwrap_or_default(),
        details: vec![Any::pack(&info)],
    }
}

/// `operations/{operation}`; a part that is no uid belongs to no operation.
fn parse_name(name: &str) -> Result<Option<OperationUid>, Error> {
    match fields::parsed::<ResourceName>("name", name)? {
        ResourceName::Operation(uid) => Ok(uid.parse().ok()),
        _ => Err(Error::invalid("name", "must look like operations/{operation}")),
    }
}

fn parse_key(key: &str) -> Option<(i64, i64)> {
    let (time, uid) = key.split_once('/')?;
    Some((time.parse().ok()?, uid.parse().ok()?))
}
