//! The frame of every change and every read: whose transaction, the caller's rights in it, the remembered answer, the
//! commit.

use std::time::Instant;

use futures::future::BoxFuture;
use serde_json::json;
use sluice_db::{Kind, TenantTx, Turn};
use sluice_proto::{ApiRequest, Rpc};
use sluice_types::{Credential, Error, ErrorKind, Grant, Reason, TenantUid, Uid};
use uuid::Uuid;

use crate::changes::{Answer, Call};
use crate::domain::record::Entry;
use crate::domain::{access, fields};
use crate::error::Fault;
use crate::plane::{Plane, Settings, SharedPlane};
use crate::store::audit::{Event, Outcome, audit_insert};
use crate::store::caller::caller_get;
use crate::store::idempotency::{Slot, idempotency_claim, idempotency_elsewhere, idempotency_store};
use crate::store::outbox::outbox_insert;
use crate::store::tenant::tenant_lock;

/// What is common to all mutations' requests.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    rpc: &'static Rpc,
    request_id: Option<Uuid>,
    hash: [u8; 32],
    validate_only: bool,
}

impl Envelope {
    /// Of work that has no request, under the RPC that led to it.
    pub(crate) fn unnamed(rpc: &'static Rpc) -> Self {
        Self { rpc, request_id: None, hash: [0; 32], validate_only: false }
    }

    /// Of a request.
    pub(crate) fn of<R: ApiRequest>(request: &R, validate_only: bool) -> Result<Self, Error> {
        let request_id = fields::request_id(request.request_id().unwrap_or_default())?;
        let hash = *blake3::hash(&request.encode_to_vec()).as_bytes();
        Ok(Self { rpc: R::rpc(), request_id, hash, validate_only })
    }
}

/// A change that happened, or would have.
#[derive(Debug)]
pub(crate) struct Committed<T> {
    pub(crate) answer: T,
    /// The last outbox row of the change.
    pub(crate) outbox_id: Option<i64>,
    /// Nothing was changed: it was only checked.
    pub(crate) validated_only: bool,
}

/// A transaction with its caller.
pub(crate) struct Txn {
    tx: TenantTx,
    call: Call,
    rpc: &'static Rpc,
    plane: SharedPlane,
    grants: Vec<Grant>,
    outbox_id: Option<i64>,
}

impl Txn {
    /// For the store.
    pub(crate) fn tx(&mut self) -> &mut TenantTx {
        &mut self.tx
    }

    pub(crate) fn tenant(&self) -> TenantUid {
        self.tx.tenant()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.plane.settings
    }

    pub(crate) fn plane(&self) -> &Plane {
        &self.plane
    }

    /// What the caller may do. The operator may do all.
    pub(crate) fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Whether the caller may do what it asks for, on the resource that the RPC's option names.
    pub(crate) fn authorize<R: ApiRequest>(&self, request: &R) -> Result<(), Error> {
        self.authorize_on(request.resource_name().unwrap_or_default())
    }

    /// The same on another resource.
    pub(crate) fn authorize_on(&self, resource: &str) -> Result<(), Error> {
        self.authorize_for(self.rpc.permission, resource)
    }

    /// Whether the caller has a permission besides that of the RPC.
    pub(crate) fn authorize_for(&self, permission: &str, resource: &str) -> Result<(), Error> {
        match self.call {
            Call::Operator { .. } => Ok(()),
            Call::Tenant(_) => access::authorize(&self.grants, permission, resource),
        }
    }

    /// Who calls, for binding page tokens.
    pub(crate) fn caller_key(&self) -> String {
        format!("{}/{}", self.tenant(), self.call.actor().0)
    }

    /// The RPC's path.
    pub(crate) fn rpc_path(&self) -> &'static str {
        self.rpc.path
    }

    /// Puts a state on its way to the gateways.
    pub(crate) async fn publish(&mut self, entry: &Entry) -> Result<i64, Fault> {
        let id = outbox_insert(&mut self.tx, entry.aggregate, entry.version, &entry.payload, entry.gone).await?;
        self.outbox_id = Some(id);
        Ok(id)
    }

    /// Tells the audit log of this change.
    pub(crate) async fn audit(&mut self, resource: &str, uid: Uid, detail: serde_json::Value) -> Result<(), Fault> {
        self.tell(Outcome::Success, resource, uid.as_u64() as i64, detail).await
    }

    async fn tell(
        &mut self,
        outcome: Outcome,
        resource: &str,
        resource_uid: i64,
        detail: serde_json::Value,
    ) -> Result<(), Fault> {
        let (actor, credential) = self.call.actor();
        let event = Event {
            actor: &actor,
            credential: &credential,
            method: self.rpc.path,
            resource,
            resource_uid,
            request_id: self.call.request_id(),
            source_address: self.call.peer().map(|peer| peer.to_string()),
            detail,
            outbox_id: self.outbox_id,
            outcome,
        };
        Ok(audit_insert(&mut self.tx, event).await?)
    }

    /// Loads what the caller may do, as it stands in this transaction.
    async fn admit(&mut self) -> Result<(), Fault> {
        let Call::Tenant(context) = &self.call else { return Ok(()) };
        let Credential::ApiKey(key) = context.principal.credential else {
            return Err(access::credential_invalid().into());
        };
        let row = caller_get(&mut self.tx, context.principal.account, key).await?;
        let row = row.filter(|row| row.tenant_active && row.credential_works).ok_or_else(access::credential_invalid)?;
        if row.suspended {
            return Err(access::tenant_suspended().into());
        }
        self.grants = row.grants;
        Ok(())
    }

    fn slot(&self, request_id: Uuid) -> Slot {
        let tenant_uid = match &self.call {
            Call::Tenant(_) => self.tenant().as_i64(),
            Call::Operator { .. } => 0,
        };
        Slot { tenant_uid, principal: self.call.actor().0, method: self.rpc.path, request_id }
    }
}

/// Runs a change to its commit, in a task that the caller's going away does not cut. On any error nothing has happened,
/// save UNAVAILABLE and DEADLINE_EXCEEDED, after which a repetition with the same request id tells.
pub(crate) async fn change<T, F>(
    plane: &SharedPlane,
    call: Call,
    envelope: Envelope,
    body: F,
) -> Result<Committed<T>, Error>
where
    T: Answer,
    F: for<'t> FnOnce(&'t mut Txn) -> BoxFuture<'t, Result<T, Fault>> + Send + 'static,
{
    let deadline = call.deadline();
    let turn = turn(plane, &call, Kind::Change).await?;
    let shared = plane.clone();
    let work = async move {
        let _turn = turn;
        let validated_only = envelope.validate_only;
        let mut txn = begin(shared, call, envelope.rpc).await?;
        let done = match attempt(&mut txn, &envelope, body).await {
            Ok(done) => done,
            Err(fault) => {
                // Only to keep the connection: dropped, the transaction ends as well.
                let _ = txn.tx.rollback().await;
                tell_if_denied(txn.plane, txn.call, txn.rpc, &fault).await;
                return Err(fault);
            }
        };
        let plane = txn.plane.clone();
        if validated_only {
            txn.tx.rollback().await?;
        } else {
            plane.fail_points.hit("change.before_commit");
            txn.tx.commit().await?;
            plane.fail_points.hit("change.after_commit");
            plane.wakes.outbox.wake();
            plane.wakes.intent.wake();
        }
        let (answer, outbox_id) = done;
        Ok(Committed { answer, outbox_id: outbox_id.filter(|_| !validated_only), validated_only })
    };
    within(deadline, plane.db.run(work)).await
}

/// Runs a read with the caller's rights.
pub(crate) async fn read<T, F>(plane: &SharedPlane, call: Call, rpc: &'static Rpc, body: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut Txn) -> BoxFuture<'t, Result<T, Fault>> + Send + 'static,
{
    let deadline = call.deadline();
    let turn = turn(plane, &call, Kind::Read).await?;
    let shared = plane.clone();
    let work = async move {
        let _turn = turn;
        let mut txn = begin(shared, call, rpc).await?;
        let done = match txn.admit().await {
            Ok(()) => body(&mut txn).await,
            Err(fault) => Err(fault),
        };
        let _ = txn.tx.rollback().await;
        if let Err(fault) = &done {
            tell_if_denied(txn.plane, txn.call, txn.rpc, fault).await;
        }
        done
    };
    within(deadline, plane.db.run(work)).await
}

/// The tenant's turn to have a connection. The operator's calls take none.
async fn turn(plane: &SharedPlane, call: &Call, kind: Kind) -> Result<Option<Turn>, Error> {
    match call {
        Call::Tenant(context) => plane.turns.take(context.tenant.uid(), kind, call.deadline()).await.map(Some),
        Call::Operator { .. } => Ok(None),
    }
}

async fn begin(plane: SharedPlane, call: Call, rpc: &'static Rpc) -> Result<Txn, Fault> {
    let tx = match &call {
        Call::Tenant(context) => plane.db.tenant(&context.tenant).await?,
        Call::Operator { tenant, .. } => plane.db.system().tenant(*tenant).await?,
    };
    Ok(Txn { tx, call, rpc, plane, grants: Vec::new(), outbox_id: None })
}

/// Tells the audit log of a call that was refused for want of a right, in a transaction of its own: that of the call leaves
/// nothing. The caller's answer does not depend on it.
async fn tell_if_denied(plane: SharedPlane, call: Call, rpc: &'static Rpc, fault: &Fault) {
    let Fault::Answer(error) = fault else { return };
    if error.kind != ErrorKind::PermissionDenied {
        return;
    }
    let found = |key| error.metadata.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
    let detail = json!({ "reason": error.reason.as_str(), "permission": found("permission") });
    let told = async {
        let mut txn = begin(plane, call, rpc).await?;
        txn.tell(Outcome::Denied, found("resource").unwrap_or_default(), 0, detail).await?;
        Ok::<_, Fault>(txn.tx.commit().await?)
    };
    if let Err(error) = told.await {
        tracing::warn!(%error, method = rpc.path, "a refused call is missing in the audit log");
    }
}

async fn attempt<T, F>(txn: &mut Txn, envelope: &Envelope, body: F) -> Result<(T, Option<i64>), Fault>
where
    T: Answer,
    F: for<'t> FnOnce(&'t mut Txn) -> BoxFuture<'t, Result<T, Fault>>,
{
    tenant_lock(&mut txn.tx).await?;
    txn.admit().await?;
    let slot = envelope.request_id.filter(|_| !envelope.validate_only).map(|id| txn.slot(id));
    if let Some(slot) = &slot
        && idempotency_elsewhere(&mut txn.tx, slot).await?
    {
        return Err(request_id_reused().into());
    }
    if let Some(slot) = &slot
        && let Some(held) = idempotency_claim(&mut txn.tx, slot, &envelope.hash).await?
    {
        if held.request_hash != envelope.hash {
            return Err(request_id_reused().into());
        }
        // A claim commits together with its answer, so a held slot always has one.
        let answer = held.answer.ok_or_else(|| Error::internal("a remembered request has no answer"))?;
        return Ok((T::replayed(&answer)?, held.outbox_id));
    }
    let answer = body(txn).await?;
    if let Some(slot) = &slot {
        idempotency_store(&mut txn.tx, slot, &answer.stored(), txn.outbox_id).await?;
    }
    Ok((answer, txn.outbox_id))
}

/// The answer, or DEADLINE_EXCEEDED when the caller's time is over; the work goes on to its end.
async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Error> {
    match tokio::time::timeout_at(deadline.into(), work).await {
        Ok(done) => done.map_err(Fault::into_answer),
        Err(_) => Err(Error::new(
            ErrorKind::DeadlineExceeded,
            Reason::DeadlineExceeded,
            "time was over before the database answered; repeat a change with the same request_id",
        )),
    }
}

fn request_id_reused() -> Error {
    let mut error = Error::new(
        ErrorKind::InvalidArgument,
        Reason::RequestIdReused,
        "request_id: was used with another request within 24 h; take a new UUID for each new request",
    );
    error.field = Some("request_id".into());
    error
}

/// The detail of an audit event: what was asked for, without secrets.
pub(crate) fn fields_changed(paths: &[&str]) -> serde_json::Value {
    json!({ "fields": paths })
}
