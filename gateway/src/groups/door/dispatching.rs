//! From a group to its dispatcher, wherever it is now, and on to the next one while the group moves.
//!
//! Who owns a group is known from the members' log and may be a moment old. A dispatcher that says it is not the one, that is
//! leaving, or that cannot be reached is left for a fresh look, until the caller's time is over. A call to a gateway that has
//! lost the group gets a last second for its answer: a stopped process must not hold its callers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use sluice_edge::deadline::{MARGIN, kept};
use sluice_proto::stream::v1::{ResetOffsetsRequest, ResetOffsetsResponse, SettleOutcome};
use sluice_types::error::Error;
use sluice_types::{GroupUid, OpContext, Reason};
use tokio::sync::watch;

use crate::data::{failure, time_left};
use crate::groups::model::{
    AttachOptions, Attachment, Dispatch, DispatchError, GroupCall, Inspected, LeaseKey, Owner, Owners, Peer, Settle,
    TakeOptions, Taken,
};

/// Between two looks, unless the owners change.
const PAUSE: Duration = Duration::from_millis(50);
/// What a gateway that has lost the group may still take for an answer.
const LAST_WORD: Duration = Duration::from_secs(1);
/// What an answer may take beside the time that the call waits.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// One attempt to begin a stream.
const ATTACH_WITHIN: Duration = Duration::from_secs(10);

/// The way to other gateways.
pub trait Peers: Send + Sync + 'static {
    /// The dispatcher there, for this caller. Does no I/O yet.
    fn dispatch(&self, peer: &Peer, caller: &Arc<OpContext>) -> Result<Arc<dyn Dispatch>, DispatchError>;
}

/// Finds the dispatcher of a group for every call.
#[derive(Clone)]
pub struct Dispatching {
    /// Of this process.
    pub local: Arc<dyn Dispatch>,
    /// Who owns what.
    pub owners: Arc<dyn Owners>,
    /// The others.
    pub peers: Arc<dyn Peers>,
}

/// Why a call came to no answer of a dispatcher.
#[derive(Debug)]
pub enum NoAnswer {
    /// The group was moving.
    Moving,
    /// The caller's time was over, and nothing says that the group was moving.
    Late,
    /// For the caller.
    Refused(Error),
}

impl NoAnswer {
    /// As callers see it.
    pub fn into_error(self, group: &str) -> Error {
        match self {
            Self::Refused(error) => error,
            Self::Late => failure::late_dispatcher(),
            Self::Moving => Error::unavailable(
                Reason::GroupMoving,
                format!("{group} is moving between gateways at the moment; try again"),
            )
            .with_retry_after(Duration::from_millis(500)),
        }
    }
}

/// Who asks for which group.
pub struct DispatchRequest<'a> {
    /// The caller.
    pub caller: &'a Arc<OpContext>,
    /// The group; the deadline is set for each attempt.
    pub call: GroupCall,
    /// When the search for a dispatcher ends.
    pub until: Instant,
}

type Attempt<T> = BoxFuture<'static, Result<T, DispatchError>>;

impl Dispatching {
    /// See [`Dispatch::take`]. One attempt waits at most as the options say.
    pub async fn take(&self, asking: &DispatchRequest<'_>, options: TakeOptions) -> Result<Taken, NoAnswer> {
        self.ask(asking, options.wait + ANSWER_WITHIN, |dispatch, call| {
            Box::pin(async move { dispatch.take(&call, options).await })
        })
        .await
    }

    /// See [`Dispatch::settle`].
    pub async fn settle(
        &self,
        asking: &DispatchRequest<'_>,
        settle: Settle,
        leases: Vec<LeaseKey>,
    ) -> Result<Vec<SettleOutcome>, NoAnswer> {
        self.ask(asking, Duration::MAX, |dispatch, call| {
            let (settle, leases) = (settle.clone(), leases.clone());
            Box::pin(async move { dispatch.settle(&call, settle, leases).await })
        })
        .await
    }

    /// See [`Dispatch::inspect`].
    pub async fn inspect(&self, asking: &DispatchRequest<'_>) -> Result<Inspected, NoAnswer> {
        self.ask(asking, Duration::MAX, |dispatch, call| Box::pin(async move { dispatch.inspect(&call).await })).await
    }

    /// See [`Dispatch::reset`].
    pub async fn reset(
        &self,
        asking: &DispatchRequest<'_>,
        request: ResetOffsetsRequest,
    ) -> Result<ResetOffsetsResponse, NoAnswer> {
        self.ask(asking, Duration::MAX, |dispatch, call| {
            let request = request.clone();
            Box::pin(async move { dispatch.reset(&call, request).await })
        })
        .await
    }

    /// See [`Dispatch::attach`]; tells the owner, too.
    pub async fn attach(&self, asking: &DispatchRequest<'_>, options: AttachOptions) -> Result<Attachment, NoAnswer> {
        self.ask(asking, ATTACH_WITHIN, |dispatch, call| Box::pin(async move { dispatch.attach(&call, options).await }))
            .await
    }

    /// Asks the owner, then the next one, until there is an answer or the time is over.
    async fn ask<T>(
        &self,
        asking: &DispatchRequest<'_>,
        within: Duration,
        attempt: impl Fn(Arc<dyn Dispatch>, GroupCall) -> Attempt<T>,
    ) -> Result<T, NoAnswer> {
        let group = asking.call.group.group_uid;
        let mut changes = self.owners.changes();
        let mut moves = false;
        loop {
            changes.mark_unchanged();
            let owner = self.owners.owner(group);
            if let Some(dispatch) = self.at(&owner, asking.caller) {
                let attempt_until =
                    Instant::now().checked_add(within).map_or(asking.until, |end| end.min(asking.until));
                let over = dispatcher_ends(attempt_until);
                let call = GroupCall { deadline: attempt_until, ..asking.call.clone() };
                let answer = tokio::select! {
                    answer = attempt(dispatch, call) => answer,
                    () = self.lost(group, &owner) => Err(DispatchError::Moving("it has lost the group".into())),
                    () = tokio::time::sleep_until(attempt_until.into()) => Err(DispatchError::Moving("no answer".into())),
                };
                match answer {
                    Ok(answer) => return Ok(answer),
                    // The dispatcher ran out of the same time.
                    Err(DispatchError::Refused(error))
                        if error.reason == Reason::Overloaded
                            && attempt_until == asking.until
                            && Instant::now() >= over =>
                    {
                        return Err(NoAnswer::Late);
                    }
                    Err(DispatchError::Refused(error)) => return Err(NoAnswer::Refused(error)),
                    Err(error) => {
                        // An end of the attempt says nothing of the group.
                        moves |= Instant::now() < over;
                        tracing::debug!(%error, ?owner, group = %asking.call.group.name, "asking again");
                        if let (DispatchError::Moving(_), Owner::There(peer)) = (&error, &owner) {
                            self.owners.doubt(peer).await;
                        }
                    }
                }
            } else {
                moves = true;
            }
            let pause = tokio::time::timeout(PAUSE, changed(&mut changes));
            let is_over = Instant::now() >= asking.until;
            if is_over || tokio::time::timeout_at(asking.until.into(), pause).await.is_err() {
                return Err(if moves { NoAnswer::Moving } else { NoAnswer::Late });
            }
        }
    }

    fn at(&self, owner: &Owner, caller: &Arc<OpContext>) -> Option<Arc<dyn Dispatch>> {
        match owner {
            Owner::Here => Some(Arc::clone(&self.local)),
            Owner::There(peer) => match self.peers.dispatch(peer, caller) {
                Ok(dispatch) => Some(dispatch),
                Err(error) => {
                    tracing::warn!(%error, ?peer, "no way to a gateway");
                    None
                }
            },
            Owner::Nobody => None,
        }
    }

    /// Ends a second after the group has gone from this owner.
    pub async fn lost(&self, group: GroupUid, owner: &Owner) {
        let mut changes = self.owners.changes();
        while self.owners.owner(group) == *owner {
            changed(&mut changes).await;
        }
        tokio::time::sleep(LAST_WORD).await;
    }
}

/// When a dispatcher that has not done its work says so at the earliest: one at another gateway keeps some of the call's time for the
/// way back.
pub(super) fn dispatcher_ends(until: Instant) -> Instant {
    until - kept(time_left(until), MARGIN)
}

async fn changed(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        // Nobody will tell any more, in a process that ends.
        std::future::pending::<()>().await;
    }
}
