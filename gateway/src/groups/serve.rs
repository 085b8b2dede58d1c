//! This gateway's dispatcher for the other gateways, on the internal listener.
//!
//! Only gateways pass, and tenant and account come from the signed token of the caller, never from the message. A group that
//! this gateway's view does not have yet is waited for, up to the revision that the door has applied.
//!
//! Records of an answer that did not reach the door are handed back, which counts as no attempt: when the transport has let go of it
//! before it had all of it, and when the door says that it has not come ([`takes`], [`attachments`]).

mod attachments;
mod signed;
mod stream;
mod takes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tower::Layer;

use sluice_edge::deadline::kept;
use sluice_proto::internal::gateway::v1 as wire;
use sluice_proto::internal::gateway::v1::attach_request;
use sluice_proto::internal::gateway::v1::dispatch_service_server::{DispatchService, DispatchServiceServer};
use sluice_runtime::internal::{CallerVerifier, RequireRole, RoleService};
use sluice_runtime::statuses;
use sluice_types::error::Error;
use sluice_types::{ErrorKind, OpContext, Reason, Revision};

use crate::groups::model::{AttachOptions, Dispatch, DispatchError, GroupCall, LeaseKey, Settle, TakeOptions};
use crate::groups::remote::messages::{Malformed, leased_to_wire, outcomes_to_wire, settlement_from_wire};
use crate::transport::TrackedAnswer;
use crate::view::View;
use crate::view::applied::Applied;

use self::attachments::Attachments;
use self::signed::Signed;
use self::takes::Takes;

/// How long a call waits for the revision that its door has applied.
const REVISION_WAIT: Duration = Duration::from_secs(2);
/// How long a stream's first message may take.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// An answer leaves so long before the door stops waiting.
const MARGIN: Duration = Duration::from_millis(30);
/// A settlement of the most ids, and more.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// How long to hand back what an answer held that did not reach its door.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(5);
/// Messages of a stream that wait for the connection.
const RESPONSES: usize = 1;

/// What it is served from.
#[derive(Clone)]
pub struct ServeParts {
    /// This process's dispatcher.
    pub local: Arc<dyn Dispatch>,
    /// Where groups are looked up.
    pub view: Arc<View>,
    /// What is applied of it.
    pub applied: Applied,
}

/// The service, behind its checks.
pub fn service(parts: ServeParts) -> RoleService<Signed<DispatchServiceServer<Served>>> {
    let verifier = CallerVerifier::new(crate::ROLE);
    let served = Served { parts, verifier: verifier.clone(), takes: Takes::new(), attachments: Attachments::default() };
    let server = DispatchServiceServer::new(served).max_decoding_message_size(REQUEST_BYTES_MAX);
    RequireRole::new(&[crate::ROLE]).layer(Signed::new(server, verifier))
}

/// The service.
pub struct Served {
    parts: ServeParts,
    verifier: CallerVerifier,
    takes: Takes,
    attachments: Attachments,
}

impl Served {
    /// The call of the group that a message names, for the caller of the token.
    async fn call(&self, caller: &OpContext, group: Option<wire::GroupRef>) -> Result<GroupCall, DispatchError> {
        let group = group.ok_or_else(|| malformed(Malformed("group")))?;
        let uid = group.group_uid.parse().map_err(|_| malformed(Malformed("group uid")))?;
        if group.tenant_uid != caller.tenant.uid().to_string() {
            return Err(malformed(Malformed("tenant")));
        }
        self.catch_up(&group).await?;
        let tenant = self.parts.view.tenant(caller.tenant.uid());
        let resolved = tenant.and_then(|tenant| tenant.names().group_of(uid));
        Ok(GroupCall {
            group: resolved.ok_or_else(|| Error::not_found(&group.group_uid))?,
            account: caller.principal.account_id.as_str().into(),
            door: group.gateway_id.into(),
            deadline: caller.deadline - kept(caller.remaining(), MARGIN),
        })
    }

    async fn catch_up(&self, group: &wire::GroupRef) -> Result<(), DispatchError> {
        let mut topic_id = [0; 16];
        if group.applied_offset < 0 || hex::decode_to_slice(&group.control_topic_id, &mut topic_id).is_err() {
            return Ok(());
        }
        let wanted = Revision { topic_id, offset: group.applied_offset };
        if self.parts.applied.wait_for(wanted, REVISION_WAIT).await {
            return Ok(());
        }
        Err(DispatchError::Moving("this gateway is behind the control log".into()))
    }

    async fn unary<T>(
        &self,
        caller: Result<OpContext, Status>,
        group: Option<wire::GroupRef>,
        work: impl AsyncFnOnce(GroupCall) -> Result<T, DispatchError>,
    ) -> Result<Response<T>, Status> {
        let caller = caller?;
        let answer = match self.call(&caller, group).await {
            Ok(call) => work(call).await,
            Err(error) => Err(error),
        };
        answer.map(Response::new).map_err(|error| status(error, &caller.request_id))
    }
}

/// Hands records back in the background. If that fails, their leases end by themselves.
fn hand_back(local: Arc<dyn Dispatch>, call: GroupCall, leases: Vec<LeaseKey>) {
    if leases.is_empty() {
        return;
    }
    tokio::spawn(async move {
        let call = GroupCall { deadline: Instant::now() + HAND_BACK_WITHIN, ..call };
        if let Err(error) = local.settle(&call, Settle::HandBack, leases).await {
            tracing::debug!(%error, "records that did not leave come again when their leases end");
        }
    });
}

fn caller<M>(request: &mut Request<M>) -> Result<OpContext, Status> {
    let context = request.extensions_mut().remove::<OpContext>();
    context.ok_or_else(|| statuses::to_tonic(&Error::internal("a call came past the caller layer"), ""))
}

fn malformed(what: Malformed) -> DispatchError {
    DispatchError::Refused(Error::internal(what))
}

/// What the door reads back from a failure.
fn status(error: DispatchError, request_id: &str) -> Status {
    let error = match error {
        DispatchError::NotDispatcher => {
            Error::new(ErrorKind::FailedPrecondition, Reason::NotDispatcher, "this gateway does not dispatch the group")
        }
        DispatchError::Moving(what) => {
            Error::unavailable(Reason::GroupMoving, "the group is moving to another gateway").with_source(what)
        }
        DispatchError::Refused(error) => error,
    };
    statuses::to_tonic(&error, request_id)
}

#[tonic::async_trait]
impl DispatchService for Served {
    async fn take(&self, mut request: Request<wire::TakeRequest>) -> Result<Response<wire::TakeResponse>, Status> {
        let caller = caller(&mut request);
        let wire::TakeRequest { group, max_records, max_bytes, wait_ms, take_id } = request.into_inner();
        let mut parcel = None;
        let answer = self.unary(caller, group, async |call| {
            let options = TakeOptions {
                records: usize::try_from(max_records).unwrap_or(0).max(1),
                bytes: u64::try_from(max_bytes).unwrap_or(0),
                wait: Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)),
            };
            let taken = self.parts.local.take(&call, options).await?;
            let leases: Vec<LeaseKey> = taken.records.iter().map(|leased| leased.key).collect();
            let local = Arc::clone(&self.parts.local);
            if !self.takes.answered(call.group.group_uid, &take_id, &leases) {
                hand_back(local, call, leases);
                return Ok(wire::TakeResponse { records: Vec::new(), state: taken.state.into() });
            }
            let takes = self.takes.clone();
            parcel = (!leases.is_empty()).then(|| {
                TrackedAnswer::new(move |taken| {
                    if !taken {
                        // Unless its door has spoken up before.
                        let leases = match take_id.is_empty() {
                            true => leases,
                            false => takes.unheard(call.group.group_uid, take_id),
                        };
                        hand_back(local, call, leases);
                    }
                })
            });
            let records = taken.records.into_iter().map(leased_to_wire).collect();
            Ok(wire::TakeResponse { records, state: taken.state.into() })
        });
        let mut response = answer.await?;
        parcel.map(|parcel| response.extensions_mut().insert(parcel));
        Ok(response)
    }

    async fn settle(
        &self,
        mut request: Request<wire::SettleRequest>,
    ) -> Result<Response<wire::SettleResponse>, Status> {
        let caller = caller(&mut request);
        let wire::SettleRequest { group, settlement, unheard_take, unheard_attachment } = request.into_inner();
        self.unary(caller, group, async |call| {
            if !unheard_take.is_empty() {
                let leases = self.takes.unheard(call.group.group_uid, unheard_take);
                if !leases.is_empty() {
                    self.parts.local.settle(&call, Settle::HandBack, leases).await?;
                }
                return Ok(wire::SettleResponse::default());
            }
            if let Some(wire::UnheardAttachment { attachment_id, taken }) = unheard_attachment {
                let taken = u64::try_from(taken).unwrap_or(0);
                self.attachments.unheard(call.group.group_uid, attachment_id, taken);
                return Ok(wire::SettleResponse::default());
            }
            let (settle, leases) = settlement_from_wire(settlement.unwrap_or_default()).map_err(malformed)?;
            let outcomes = self.parts.local.settle(&call, settle, leases).await?;
            Ok(wire::SettleResponse { outcomes: outcomes_to_wire(outcomes) })
        })
        .await
    }

    type AttachStream = ReceiverStream<Result<wire::AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<wire::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (metadata, extensions, mut requests) = request.into_parts();
        let first = tokio::time::timeout(FIRST_MESSAGE, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no first message"))??.unwrap_or_default();
        let caller = signed::verify(&self.verifier, &metadata, &extensions, &first)?;
        let Some(attach_request::Message::Start(start)) = first.message else {
            return Err(status(malformed(Malformed("start")), &caller.request_id));
        };
        let credit = start.credit.unwrap_or_default();
        let options = AttachOptions {
            credit_records: u64::try_from(credit.records).unwrap_or(0),
            credit_bytes: u64::try_from(credit.bytes).unwrap_or(0),
            batch_records: usize::try_from(start.max_batch_records).unwrap_or(0).max(1),
            returns_credit: start.returns_credit,
            stream: start.stream,
            paced: start.paced,
        };
        let attached = match self.call(&caller, start.group).await {
            Ok(call) => {
                let deadline = call.deadline.max(Instant::now());
                let attached = tokio::time::timeout_at(deadline.into(), self.parts.local.attach(&call, options)).await;
                let attached = attached.unwrap_or_else(|_| Err(DispatchError::Moving("not attached in time".into())));
                attached.map(|attachment| (attachment, call))
            }
            Err(error) => Err(error),
        };
        let (attachment, call) = attached.map_err(|error| status(error, &caller.request_id))?;
        let (out, responses) = mpsc::channel(RESPONSES);
        let named = self.attachments.begin(call.group.group_uid, start.attachment_id);
        let local = Arc::clone(&self.parts.local);
        tokio::spawn(async move {
            let back = |leases| hand_back(Arc::clone(&local), call.clone(), leases);
            stream::carry(requests, attachment, out, named, back).await;
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn inspect(
        &self,
        mut request: Request<wire::InspectRequest>,
    ) -> Result<Response<wire::InspectResponse>, Status> {
        let caller = caller(&mut request);
        self.unary(caller, request.into_inner().group, async |call| {
            let inspected = self.parts.local.inspect(&call).await?;
            Ok(wire::InspectResponse { dispatching: inspected.dispatching, status: Some(inspected.status) })
        })
        .await
    }

    async fn reset(&self, mut request: Request<wire::ResetRequest>) -> Result<Response<wire::ResetResponse>, Status> {
        let caller = caller(&mut request);
        let wire::ResetRequest { group, request } = request.into_inner();
        self.unary(caller, group, async |call| {
            let response = self.parts.local.reset(&call, request.unwrap_or_default()).await?;
            Ok(wire::ResetResponse { response: Some(response) })
        })
        .await
    }
}
