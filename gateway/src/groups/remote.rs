//! Dispatchers of other gateways, over mutual TLS.
//!
//! Every call carries the caller's token, signed by this gateway and bound to the first message, so tenant and account come from
//! there. What cannot be reached, or does not answer by the call's deadline, counts as moving: the door looks again who owns the
//! group. Streams are flow-controlled per stream ([`ATTACH_EVENTS`] messages ahead), so that one that nobody reads never fills
//! the connection that all groups of two gateways share.

pub(crate) mod messages;
mod stream;
mod unheard;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use moka::sync::Cache;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use sluice_proto::internal::gateway::v1 as wire;
use sluice_proto::internal::gateway::v1::dispatch_service_client::DispatchServiceClient;
use sluice_proto::rpcs;
use sluice_proto::stream::v1::{DeliveryState, ResetOffsetsRequest, ResetOffsetsResponse, SettleOutcome};
use sluice_runtime::internal::{CALLER_KEY, CallerClaims, CallerSigner, SignedChannel, call_as, internal_channel};
use sluice_runtime::statuses;
use sluice_runtime::tls::InternalTls;
use sluice_types::error::Error;
use sluice_types::{ErrorKind, OpContext, Reason};

use crate::groups::door::dispatching::Peers;
use crate::groups::model::{
    ATTACH_COMMANDS, ATTACH_EVENTS, AttachOptions, Attachment, Dispatch, DispatchError, GroupCall, Inspected, LeaseKey,
    Peer, Settle, TakeOptions, Taken,
};
use crate::groups::remote::messages::{Malformed, all_from_wire, outcomes_from_wire, settlement_to_wire};
use crate::groups::remote::unheard::Unheard;
use crate::view::applied::Applied;

/// Channels kept; that of a gateway that nobody asks any more goes.
const CHANNELS_MAX: u64 = 1_000;
const CHANNEL_IDLE: Duration = Duration::from_secs(120);
/// An answer holds at most the bytes a pull may ask for, and one large record more.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Messages on their way to the dispatcher of a stream.
const REQUESTS: usize = 8;

/// The other gateways.
pub struct Remotes {
    tls: InternalTls,
    signer: CallerSigner,
    gateway_id: Arc<str>,
    applied: Applied,
    channels: Cache<Peer, Channel>,
}

impl Remotes {
    /// As this gateway; `applied` is what its view has applied, for dispatchers that are behind.
    pub fn new(tls: InternalTls, gateway_id: Arc<str>, applied: Applied) -> Self {
        let channels = Cache::builder().max_capacity(CHANNELS_MAX).time_to_idle(CHANNEL_IDLE).build();
        Self { signer: CallerSigner::from(&tls), tls, gateway_id, applied, channels }
    }
}

impl Peers for Remotes {
    fn dispatch(&self, peer: &Peer, caller: &Arc<OpContext>) -> Result<Arc<dyn Dispatch>, DispatchError> {
        let channel =
            self.channels.try_get_with_by_ref(peer, || internal_channel(&peer.address, &self.tls, crate::ROLE));
        let channel = channel.map_err(|error| DispatchError::Moving(error.to_string()))?;
        Ok(Arc::new(Remote {
            channel,
            signer: self.signer.clone(),
            caller: Arc::clone(caller),
            gateway_id: Arc::clone(&self.gateway_id),
            applied: self.applied.clone(),
        }))
    }
}

/// Another gateway's dispatcher, for one caller.
#[derive(Clone)]
struct Remote {
    channel: Channel,
    signer: CallerSigner,
    caller: Arc<OpContext>,
    gateway_id: Arc<str>,
    applied: Applied,
}

type Client<C> = DispatchServiceClient<C>;

impl Remote {
    fn group(&self, call: &GroupCall) -> wire::GroupRef {
        let applied = self.applied.revision();
        wire::GroupRef {
            tenant_uid: call.group.tenant_uid.to_string(),
            group_uid: call.group.group_uid.to_string(),
            applied_offset: applied.map_or(-1, |revision| revision.offset),
            control_topic_id: applied.map(|revision| hex::encode(revision.topic_id)).unwrap_or_default(),
            service_account: call.account.to_string(),
            gateway_id: self.gateway_id.to_string(),
        }
    }

    /// The caller, with the time of this call.
    fn context(&self, call: &GroupCall) -> OpContext {
        OpContext { deadline: call.deadline, ..(*self.caller).clone() }
    }

    fn client(&self) -> Client<SignedChannel> {
        let channel = SignedChannel::new(self.channel.clone(), self.signer.clone(), crate::ROLE);
        DispatchServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    fn request<M>(&self, call: &GroupCall, message: M) -> Result<Request<M>, DispatchError> {
        Ok(call_as(&self.context(call), message)?)
    }

    async fn begin(&self, call: &GroupCall, options: AttachOptions) -> Result<Attachment, DispatchError> {
        let unheard = Unheard::attachment(self, call);
        let start = wire::AttachStart {
            group: Some(self.group(call)),
            credit: Some(stream::credit(options.credit_records, options.credit_bytes)),
            max_batch_records: i32::try_from(options.batch_records).unwrap_or(i32::MAX),
            returns_credit: options.returns_credit,
            stream: options.stream,
            paced: options.paced,
            attachment_id: unheard.id(),
        };
        let first = wire::AttachRequest {
            message: Some(wire::attach_request::Message::Start(start)),
            ..wire::AttachRequest::default()
        };
        let context = self.context(call);
        let claims = CallerClaims::from_context(&context)?;
        let path = rpcs::DISPATCH_SERVICE_ATTACH.path;
        let token = self.signer.sign(crate::ROLE, path, &first.encode_to_vec(), &claims);
        let (requests, queue) = mpsc::channel(REQUESTS);
        requests.try_send(first).map_err(Error::internal)?;
        let mut request = Request::new(ReceiverStream::new(queue));
        let put = |request: &mut Request<_>, key: &'static str, value: &str| {
            value.parse().map(|value| drop(request.metadata_mut().insert(key, value))).map_err(Error::internal)
        };
        put(&mut request, CALLER_KEY, &token)?;
        put(&mut request, statuses::REQUEST_ID, &context.request_id)?;
        let mut client = DispatchServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let responses = match answered(call, client.attach(request)).await {
            Ok(responses) => responses,
            Err(error) => {
                if !matches!(error, DispatchError::Moving(_)) {
                    unheard.heard();
                }
                return Err(error);
            }
        };
        let (commands, commanded) = mpsc::channel(ATTACH_COMMANDS);
        let (happened, events) = mpsc::channel(ATTACH_EVENTS);
        tokio::spawn(stream::carry(commanded, requests, responses, happened, unheard));
        Ok(Attachment { commands, events })
    }
}

/// Waits for an answer until the call's deadline.
async fn answered<T>(
    call: &GroupCall,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, DispatchError> {
    match tokio::time::timeout_at(call.deadline.into(), answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failed(&status, call)),
        Err(_) => Err(DispatchError::Moving("no answer in time".into())),
    }
}

fn failed(status: &Status, call: &GroupCall) -> DispatchError {
    let error = statuses::from_tonic_for(status, Reason::GroupMoving);
    match (error.reason, error.kind) {
        (Reason::NotDispatcher, _) => DispatchError::NotDispatcher,
        (Reason::GroupMoving | Reason::DeadlineExceeded | Reason::RevisionBehind, _) | (_, ErrorKind::Cancelled) => {
            DispatchError::Moving(error.source.map_or(error.message, |source| source.to_string()))
        }
        // The names that the other gateway knows are not those the caller sent.
        (_, ErrorKind::NotFound) => DispatchError::Refused(Error::not_found(&call.group.name)),
        // Between gateways the credential is ours.
        (_, ErrorKind::Unauthenticated | ErrorKind::Unimplemented) => DispatchError::Refused(Error::internal(error)),
        _ => DispatchError::Refused(error),
    }
}

fn malformed(what: Malformed) -> DispatchError {
    DispatchError::Refused(Error::internal(what))
}

impl Dispatch for Remote {
    fn take<'a>(&'a self, call: &'a GroupCall, options: TakeOptions) -> BoxFuture<'a, Result<Taken, DispatchError>> {
        Box::pin(async move {
            let unheard = Unheard::take(self, call);
            let message = wire::TakeRequest {
                group: Some(self.group(call)),
                max_records: i32::try_from(options.records).unwrap_or(i32::MAX),
                max_bytes: i64::try_from(options.bytes).unwrap_or(i64::MAX),
                wait_ms: i64::try_from(options.wait.as_millis()).unwrap_or(i64::MAX),
                take_id: unheard.id(),
            };
            let answer = answered(call, self.client().take(self.request(call, message)?)).await;
            if matches!(answer, Ok(_) | Err(DispatchError::NotDispatcher)) {
                unheard.heard();
            }
            let answer = answer?;
            let state = DeliveryState::try_from(answer.state).unwrap_or_default();
            Ok(Taken { records: all_from_wire(answer.records).map_err(malformed)?, state })
        })
    }

    fn settle<'a>(
        &'a self,
        call: &'a GroupCall,
        settle: Settle,
        leases: Vec<LeaseKey>,
    ) -> BoxFuture<'a, Result<Vec<SettleOutcome>, DispatchError>> {
        Box::pin(async move {
            let settlement = Some(settlement_to_wire(&settle, &leases));
            let group = Some(self.group(call));
            let message = wire::SettleRequest { group, settlement, ..wire::SettleRequest::default() };
            let answer = answered(call, self.client().settle(self.request(call, message)?)).await?;
            Ok(outcomes_from_wire(&answer.outcomes))
        })
    }

    fn attach<'a>(
        &'a self,
        call: &'a GroupCall,
        options: AttachOptions,
    ) -> BoxFuture<'a, Result<Attachment, DispatchError>> {
        Box::pin(self.begin(call, options))
    }

    fn inspect<'a>(&'a self, call: &'a GroupCall) -> BoxFuture<'a, Result<Inspected, DispatchError>> {
        Box::pin(async move {
            let message = wire::InspectRequest { group: Some(self.group(call)) };
            let answer = answered(call, self.client().inspect(self.request(call, message)?)).await?;
            Ok(Inspected { dispatching: answer.dispatching, status: answer.status.unwrap_or_default() })
        })
    }

    fn reset<'a>(
        &'a self,
        call: &'a GroupCall,
        request: ResetOffsetsRequest,
    ) -> BoxFuture<'a, Result<ResetOffsetsResponse, DispatchError>> {
        Box::pin(async move {
            let message = wire::ResetRequest { group: Some(self.group(call)), request: Some(request) };
            let answer = answered(call, self.client().reset(self.request(call, message)?)).await?;
            Ok(answer.response.unwrap_or_default())
        })
    }
}
