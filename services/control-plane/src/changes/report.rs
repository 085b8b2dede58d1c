//! What provisioning reports: attempts and observations, each in a transaction that carries the lease's epoch.

use std::time::Instant;

use prost::Message as _;
use sluice_db::{Kind, RUN_LIMIT, TenantTx};
use sluice_proto::internal::control::v1::{RecordAttemptRequest, ReportGroupGoneRequest, ReportTopicRequest};
use sluice_types::{Error, ErrorKind, GroupUid, Reason, TenantUid, TopicUid};

use super::key::now_us;
use crate::domain::intent::{self, End};
use crate::domain::{present, record};
use crate::error::Fault;
use crate::plane::SharedPlane;
use crate::store::lease::lease_epoch_locked;
use crate::store::lookup::lookup_topic_tenant;
use crate::store::operation::{Ending, operation_end};
use crate::store::outbox::outbox_insert;
use crate::store::tenant::tenant_lock;
use crate::store::topic::{TopicRow, topic_by_uid, topic_update};
use crate::store::work::work_group_gone;

/// The lease that reports carry.
pub(crate) const PROVISIONING_LEASE: &str = "provisioning";
/// `google.rpc.Code.FAILED_PRECONDITION`.
const FAILED_PRECONDITION: i32 = 9;

/// Remembers that a create is about to be attempted.
pub(crate) async fn attempt(plane: &SharedPlane, request: RecordAttemptRequest) -> Result<(), Error> {
    let uid = parse_uid(&request.topic_uid)?;
    about(plane, uid, move |shared, tenant| async move {
        let (mut tx, row) = begin(&shared, tenant, uid, request.lease_epoch).await?;
        intent::check_attempt(&row)?;
        if !row.create_attempted {
            topic_update(&mut tx, &TopicRow { create_attempted: true, ..row }, 0).await?;
        }
        Ok(tx.commit().await?)
    })
    .await
}

/// Takes a report.
pub(crate) async fn report(plane: &SharedPlane, request: ReportTopicRequest) -> Result<(), Error> {
    let uid = parse_uid(&request.topic_uid)?;
    about(plane, uid, move |shared, tenant| async move {
        let (mut tx, row) = begin(&shared, tenant, uid, request.lease_epoch).await?;
        let step = intent::apply(&row, &request, now_us())?;
        if step.changed {
            write(&mut tx, step).await?;
            shared.fail_points.hit("change.before_commit");
            tx.commit().await?;
            shared.fail_points.hit("change.after_commit");
            shared.wakes.outbox.wake();
        } else {
            tx.rollback().await?;
        }
        Ok(())
    })
    .await
}

/// Takes the report that Kafka does not hold a deleted group.
pub(crate) async fn group_gone(plane: &SharedPlane, request: ReportGroupGoneRequest) -> Result<(), Error> {
    let uid: GroupUid = request.group_uid.parse().map_err(|_| Error::invalid("group_uid", "is not a uid"))?;
    let system = plane.scopes.reports.clone();
    let work = async move {
        let mut tx = system.begin().await?;
        if lease_epoch_locked(tx.conn(), PROVISIONING_LEASE).await? != Some(request.lease_epoch) {
            return Err(lease_lost().into());
        }
        work_group_gone(&mut tx, uid).await?;
        Ok::<_, Fault>(tx.commit().await?)
    };
    plane.db.run(work).await.map_err(Fault::into_answer)
}

/// Runs work on a topic in its tenant's turn. Whose topic it is, is read first, with a connection that is given back before
/// the turn: a busy tenant holds one connection of provisioning, not all.
async fn about<F>(
    plane: &SharedPlane,
    uid: TopicUid,
    work: impl FnOnce(SharedPlane, TenantUid) -> F + Send + 'static,
) -> Result<(), Error>
where
    F: Future<Output = Result<(), Fault>> + Send + 'static,
{
    let system = plane.scopes.reports.clone();
    let lookup = async move {
        let mut tx = system.begin().await?;
        let tenant = lookup_topic_tenant(&mut tx, uid).await?;
        tx.rollback().await?;
        Ok::<_, Fault>(tenant)
    };
    let tenant = plane.db.run(lookup).await.map_err(Fault::into_answer)?.ok_or_else(not_found)?;
    let turn = plane.turns.take(tenant, Kind::Report, Instant::now() + RUN_LIMIT).await?;
    let work = work(plane.clone(), tenant);
    let in_turn = async move {
        let _turn = turn;
        work.await
    };
    plane.db.run(in_turn).await.map_err(Fault::into_answer)
}

async fn write(tx: &mut TenantTx, step: intent::Step) -> Result<(), Fault> {
    let delay_ms = i64::try_from(step.delay.as_millis()).unwrap_or(i64::MAX);
    let row = topic_update(tx, &step.row, delay_ms).await?;
    let uid = row.uid().uid();
    let mut outbox_id = None;
    if step.publish {
        let entry = record::topic(tx.tenant(), &row);
        outbox_id = Some(outbox_insert(tx, entry.aggregate, entry.version, &entry.payload, entry.gone).await?);
    }
    match step.end {
        Some(End::Succeeded { generation }) => {
            let response = sluice_proto::wkt::Any::pack(&present::topic(&row)).encode_to_vec();
            operation_end(tx, uid, generation, &Ending::Succeeded { response, outbox_id }).await?;
        }
        Some(End::Failed { reason, message }) => {
            let message = if message.is_empty() { format!("failed: {reason}") } else { message };
            let ending = Ending::Failed { code: FAILED_PRECONDITION, reason, message };
            operation_end(tx, uid, row.generation, &ending).await?;
        }
        None => {}
    }
    Ok(())
}

/// The topic, with its tenant's changes held off and the lease held fast.
async fn begin(
    plane: &SharedPlane,
    tenant: TenantUid,
    uid: TopicUid,
    epoch: i64,
) -> Result<(TenantTx, TopicRow), Fault> {
    let mut tx = plane.scopes.reports.tenant(tenant).await?;
    tenant_lock(&mut tx).await?;
    if lease_epoch_locked(tx.conn(), PROVISIONING_LEASE).await? != Some(epoch) {
        return Err(lease_lost().into());
    }
    let row = topic_by_uid(&mut tx, uid).await?.ok_or_else(not_found)?;
    Ok((tx, row))
}

fn not_found() -> Error {
    Error::not_found("the topic")
}

fn parse_uid(text: &str) -> Result<TopicUid, Error> {
    text.parse().map_err(|_| Error::invalid("topic_uid", "is not a uid"))
}

fn lease_lost() -> Error {
    Error::new(ErrorKind::Aborted, Reason::LeaseLost, "lease_epoch: is not the current one; acquire the lease again")
}
