//! Calls that other processes answer: admin calls by the control plane, usage calls by billing, unknown keys.
//!
//! What goes out is the message, the caller's signed token, request id, trace and deadline, and nothing else the client
//! sent. What comes back is the answer, its revision, and errors as our own processes made them; a process that cannot be
//! reached is UNAVAILABLE, and no address of ours is in the answer.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Status};

use prost::Message as _;

use sluice_edge::deadline::{MARGIN, kept};
use sluice_edge::identify::REVISION;
use sluice_proto::Rpc;
use sluice_proto::admin::v1::group_service_client::GroupServiceClient;
use sluice_proto::admin::v1::{CreateGroupRequest, Group};
use sluice_proto::forward::{ForwardCall, ForwardContext, Prepared};
use sluice_proto::google::longrunning::operation;
use sluice_proto::internal::control::v1::key_lookup_service_client::KeyLookupServiceClient;
use sluice_proto::internal::control::v1::{ControlRecord, LookupKeyRequest};
use sluice_runtime::internal::{CALLER_KEY, CallerClaims, CallerSigner, SignedChannel, call_as};
use sluice_runtime::statuses::{self, REQUEST_ID};
use sluice_types::error::Error;
use sluice_types::{ErrorKind, GroupId, KeyUid, NamespaceId, OpContext, Reason};

use crate::auth::{KeySource, LookupFailure};
use crate::groups::door::MakeGroups;

/// Less is not worth a call.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

tokio::task_local! {
    /// The id of the call being forwarded, for errors that no other process made.
    static FORWARDED_ID: Arc<str>;
}

/// Runs a forwarded call under its request id.
pub async fn with_request_id<F: Future>(id: Arc<str>, call: F) -> F::Output {
    FORWARDED_ID.scope(id, call).await
}

/// Forwards to one process.
pub struct ToService {
    /// Its channel.
    pub channel: Channel,
    /// Signs as this gateway.
    pub signer: CallerSigner,
    /// Its role.
    pub audience: &'static str,
    /// It decides by the grants it is told; otherwise it knows them itself.
    pub decides_by_grants: bool,
    /// What its absence is called.
    pub unavailable: Reason,
}

#[tonic::async_trait]
impl ForwardContext for ToService {
    type Service = Channel;

    async fn prepare(&self, call: ForwardCall<'_>) -> Result<Prepared<Channel>, Status> {
        let refuse = |error: Error| statuses::to_tonic(&error, &forwarded_id());
        let context = call.extensions.get::<Arc<OpContext>>();
        let context = context.ok_or_else(|| refuse(Error::internal("a call to forward has no context")))?;
        let claims = CallerClaims::from_context(context).map_err(refuse)?;
        let claims = match self.decides_by_grants {
            true => claims.with_grants_on(&context.principal.grants, call.resource.unwrap_or_default()),
            false => claims,
        };
        let token = self.signer.sign(self.audience, call.rpc.path, call.message, &claims);
        let mut metadata = MetadataMap::new();
        let mut put = |key: &'static str, value: &str| match MetadataValue::try_from(value) {
            Ok(value) => {
                metadata.insert(key, value);
                Ok(())
            }
            Err(cause) => Err(refuse(Error::internal(cause))),
        };
        put(CALLER_KEY, &token)?;
        put(REQUEST_ID, &context.request_id)?;
        if let Some(traceparent) = &context.traceparent {
            put("traceparent", traceparent)?;
        }
        let left = context.remaining();
        let timeout = (left - kept(left, MARGIN)).max(TIMEOUT_MIN);
        Ok(Prepared { service: self.channel.clone(), metadata, timeout })
    }

    fn on_response(&self, _: &'static Rpc, metadata: &mut MetadataMap) {
        let revision = metadata.remove(REVISION);
        *metadata = MetadataMap::new();
        if let Some(revision) = revision {
            metadata.insert(REVISION, revision);
        }
    }

    fn on_error(&self, rpc: &'static Rpc, status: Status) -> Status {
        let error = statuses::from_tonic_for(&status, self.unavailable);
        if error.source.is_some() {
            tracing::warn!(rpc = rpc.path, to = self.audience, code = ?status.code(), message = status.message(), "forwarded call failed");
        }
        statuses::to_tonic(&error, &forwarded_id())
    }
}

fn forwarded_id() -> Arc<str> {
    FORWARDED_ID.try_with(Arc::clone).unwrap_or_else(|_| "".into())
}

/// Makes groups at the control plane, as the caller.
pub struct ControlPlaneGroups(pub GroupServiceClient<SignedChannel>);

impl MakeGroups for ControlPlaneGroups {
    fn make<'a>(
        &'a self,
        caller: &'a OpContext,
        namespace: &'a NamespaceId,
        group: &'a GroupId,
        topics: &'a [String],
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let message = CreateGroupRequest {
                parent: format!("namespaces/{namespace}"),
                group_id: group.to_string(),
                group: Some(Group { topics: topics.to_vec(), ..Group::default() }),
                ..CreateGroupRequest::default()
            };
            let request = call_as(caller, message)?;
            let answer = tokio::time::timeout(caller.remaining(), self.0.clone().create_group(request)).await;
            let operation = match answer {
                Ok(Ok(answer)) => answer.into_inner(),
                // Another consumer was first.
                Ok(Err(status)) if status.code() == Code::AlreadyExists => return Ok(()),
                Ok(Err(status)) => return Err(statuses::from_tonic_for(&status, Reason::ControlPlaneUnavailable)),
                Err(_) => {
                    return Err(Error::unavailable(
                        Reason::ControlPlaneUnavailable,
                        "the group could not be made in time; try again",
                    ));
                }
            };
            match operation.result {
                Some(operation::Result::Error(status)) if status.code == ErrorKind::AlreadyExists.grpc_code() => Ok(()),
                Some(operation::Result::Error(status)) => {
                    let status =
                        Status::with_details(status.code.into(), &status.message, status.encode_to_vec().into());
                    Err(statuses::from_tonic_for(&status, Reason::ControlPlaneUnavailable))
                }
                Some(operation::Result::Response(_)) | None => Ok(()),
            }
        })
    }
}

/// Asks the control plane for keys.
pub struct ControlPlaneKeys(pub KeyLookupServiceClient<Channel>);

impl KeySource for ControlPlaneKeys {
    fn look_up(&self, id: KeyUid) -> BoxFuture<'static, Result<Vec<ControlRecord>, LookupFailure>> {
        let mut client = self.0.clone();
        Box::pin(async move {
            match client.lookup_key(LookupKeyRequest { key_id: id.to_string() }).await {
                Ok(answer) => Ok(answer.into_inner().records),
                Err(status) if status.code() == Code::NotFound => Err(LookupFailure::Absent),
                Err(status) => Err(LookupFailure::Unavailable(format!("{:?}: {}", status.code(), status.message()))),
            }
        })
    }
}
