//! What is asked of a dispatched group.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use sluice_proto::stream::v1::{ResetOffsetsRequest, ResetOffsetsResponse, SettleOutcome};

use crate::groups::model::{
    AttachEvent, AttachOptions, DispatchError, GroupCall, Inspected, LeaseKey, Settle, TakeOptions, Taken,
};

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, DispatchError>>;

/// Who consumes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Caller {
    pub(super) account: Arc<str>,
    pub(super) door: Arc<str>,
}

impl Caller {
    pub(super) fn of(call: &GroupCall) -> Self {
        Self { account: Arc::clone(&call.account), door: Arc::clone(&call.door) }
    }
}

/// Names an attachment within a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AttachmentId(pub(super) u64);

/// One thing asked.
pub(super) enum Command {
    Take {
        caller: Caller,
        options: TakeOptions,
        deadline: Instant,
        reply: Reply<Taken>,
    },
    Settle {
        settle: Settle,
        leases: Vec<LeaseKey>,
        deadline: Instant,
        reply: Reply<Vec<SettleOutcome>>,
    },
    Attach {
        caller: Caller,
        options: AttachOptions,
        events: mpsc::Sender<AttachEvent>,
        reply: Reply<AttachmentId>,
    },
    Credit {
        id: AttachmentId,
        records: u64,
        bytes: u64,
    },
    Room {
        id: AttachmentId,
        bytes: u64,
    },
    Detach {
        id: AttachmentId,
    },
    Inspect {
        deadline: Instant,
        reply: Reply<Inspected>,
    },
    /// Commits all positions again, changed or not.
    Refresh,
    Reset {
        request: ResetOffsetsRequest,
        deadline: Instant,
        reply: Reply<ResetOffsetsResponse>,
    },
}

impl Command {
    /// Answers that the group is not dispatched here any more.
    pub(super) fn refuse(self, error: impl Fn() -> DispatchError) {
        // Whoever went away needs no answer.
        match self {
            Self::Take { reply, .. } => drop(reply.send(Err(error()))),
            Self::Settle { reply, .. } => drop(reply.send(Err(error()))),
            Self::Attach { reply, .. } => drop(reply.send(Err(error()))),
            Self::Inspect { reply, .. } => drop(reply.send(Err(error()))),
            Self::Reset { reply, .. } => drop(reply.send(Err(error()))),
            Self::Credit { .. } | Self::Room { .. } | Self::Detach { .. } | Self::Refresh => {}
        }
    }
}
