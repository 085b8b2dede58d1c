//! The services: decode, call, encode. A file per resource; what is common stands here.

mod accounts;
mod groups;
pub(crate) mod intent;
pub(crate) mod lookup;
mod namespaces;
mod operations;
pub(crate) mod operator;
pub(crate) mod operator_listener;
mod reads;
mod tenant;
mod topics;

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use sluice_proto::ApiRequest;
use sluice_proto::admin::v1::{ApiKey, Condition, ServiceAccount};
use sluice_proto::google::longrunning::Operation;
use sluice_proto::operator::v1::Tenant;
use sluice_runtime::statuses::{REQUEST_ID, to_tonic};
use sluice_types::{Error, ErrorKind, OpContext, Revision};
use tonic::{Request, Response, Status};

use self::operations::finished;
use crate::changes::{Call, Committed, Started, Txn, read};
use crate::error::Fault;
use crate::jobs::barrier::Propagation;
use crate::plane::SharedPlane;

/// Response metadata: the revision that holds the change.
const REVISION: &str = "sluice-revision";
/// Response metadata: how many gateways have not confirmed the change.
const PENDING: &str = "sluice-propagation-pending";
/// Kept free at the end of a caller's time, for the answer's way back.
const ANSWER_RESERVE: Duration = Duration::from_millis(100);

/// Serves `sluice.admin.v1` and `sluice.internal.control.v1`.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) plane: SharedPlane,
}

/// A tenant's call, as the caller layer verified it.
fn tenant_call<T>(request: Request<T>) -> Result<(Call, T), Status> {
    let (metadata, extensions, message) = request.into_parts();
    match extensions.get::<OpContext>() {
        Some(context) => Ok((Call::Tenant(context.clone()), message)),
        None => {
            let id = metadata.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
            Err(refuse(Error::internal("a tenant's call without a context"), id))
        }
    }
}

/// An error as the status it is answered with. What is our fault goes to the log here, and only here.
fn refuse(error: Error, request_id: &str) -> Status {
    if error.kind == ErrorKind::Internal {
        tracing::error!(request_id, error = causes(&error), "internal error");
    } else if error.kind == ErrorKind::Unavailable {
        tracing::debug!(request_id, error = causes(&error), "unavailable");
    }
    to_tonic(&error, request_id)
}

/// An error with its causes, for the log.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn request_id_of(call: &Call) -> String {
    match call {
        Call::Tenant(context) => context.request_id.to_string(),
        Call::Operator { request_id, .. } => request_id.to_string(),
    }
}

/// Answers with what a function of the call and its message returns.
async fn answered<T, R, F>(request: Request<T>, work: impl FnOnce(Call, T) -> F) -> Result<Response<R>, Status>
where
    F: Future<Output = Result<Response<R>, Error>>,
{
    let (call, message) = tenant_call(request)?;
    let id = request_id_of(&call);
    work(call, message).await.map_err(|error| refuse(error, &id))
}

impl Api {
    /// Answers a mutation that has an operation.
    async fn operated<T>(
        &self,
        request: Request<T>,
        change: impl AsyncFnOnce(&SharedPlane, Call, T) -> Result<Committed<Started>, Error>,
    ) -> Result<Response<Operation>, Status> {
        answered(request, async |call, request| {
            let committed = change(&self.plane, call.clone(), request).await?;
            finished(&self.plane, call, committed).await
        })
        .await
    }

    /// Answers a mutation without one.
    async fn changed<T, M: Conditioned>(
        &self,
        request: Request<T>,
        change: impl AsyncFnOnce(&SharedPlane, Call, T) -> Result<Committed<M>, Error>,
    ) -> Result<Response<M>, Status> {
        answered(request, async |call, request| {
            let deadline = call.deadline();
            Ok(settled(&self.plane, deadline, change(&self.plane, call, request).await?).await)
        })
        .await
    }

    /// Answers a read: what the request alone tells comes first, then whether the caller may, then the look.
    async fn looked<R, P, M>(
        &self,
        request: Request<R>,
        parse: impl FnOnce(&R) -> Result<P, Error>,
        look: impl for<'t> FnOnce(&'t mut Txn, R, P) -> BoxFuture<'t, Result<M, Fault>> + Send + 'static,
    ) -> Result<Response<M>, Status>
    where
        R: ApiRequest + Send + 'static,
        P: Send + 'static,
        M: Send + 'static,
    {
        answered(request, async |call, request| {
            let parsed = parse(&request)?;
            let shown = read(&self.plane, call, R::rpc(), move |txn| {
                Box::pin(async move {
                    txn.authorize(&request)?;
                    look(txn, request, parsed).await
                })
            });
            Ok(Response::new(shown.await?))
        })
        .await
    }
}

/// A resource that can say that its change has not reached all gateways.
trait Conditioned {
    fn conditions(&mut self) -> &mut Vec<Condition>;
}

impl Conditioned for ServiceAccount {
    fn conditions(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }
}

impl Conditioned for ApiKey {
    fn conditions(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }
}

impl Conditioned for Tenant {
    fn conditions(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }
}

/// The answer to a plain mutation, after the barrier.
async fn settled<M: Conditioned>(plane: &SharedPlane, deadline: Instant, committed: Committed<M>) -> Response<M> {
    let mut response = Response::new(committed.answer);
    let Some(outbox_id) = committed.outbox_id else { return response };
    let until =
        (Instant::now() + plane.settings.barrier_max).min(deadline.checked_sub(ANSWER_RESERVE).unwrap_or(deadline));
    let propagation = plane.propagate(outbox_id, until).await;
    response.get_mut().conditions().extend(propagation.condition());
    tell(&mut response, &propagation);
    response
}

/// Puts what the barrier found into the answer's metadata.
fn tell<M>(response: &mut Response<M>, propagation: &Propagation) {
    if let Some(revision) = propagation.revision() {
        tell_revision(response, revision);
    }
    if let Some(pending) = propagation.pending() {
        response.metadata_mut().insert(PENDING, pending.into());
    }
}

fn tell_revision<M>(response: &mut Response<M>, revision: Revision) {
    if let Ok(text) = revision.to_string().parse() {
        response.metadata_mut().insert(REVISION, text);
    }
}
