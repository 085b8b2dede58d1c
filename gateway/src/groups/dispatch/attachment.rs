//! The door's end of an attachment: commands in, answers to settlements out.
//!
//! A task of its own per attachment, so that a door that does not take its answers holds up only itself: the group's task never
//! waits for a door.

use std::collections::VecDeque;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use sluice_proto::stream::v1::SettleOutcome;

use crate::groups::dispatch::command::{AttachmentId, Command};
use crate::groups::model::{ATTACH_COMMANDS, AttachCommand, AttachEvent, DispatchError};

/// A settlement on a stream is answered within this.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);

type Answer = BoxFuture<'static, Option<(i64, Vec<SettleOutcome>)>>;

/// Runs until the door or the group goes away.
pub(super) async fn run(
    id: AttachmentId,
    mut commands: mpsc::Receiver<AttachCommand>,
    events: mpsc::Sender<AttachEvent>,
    inbox: mpsc::Sender<Command>,
) {
    let mut answers: FuturesUnordered<Answer> = FuturesUnordered::new();
    // Answers that the door has no room for do not keep its commands waiting: by them it tells that it has room again.
    let mut ready: VecDeque<AttachEvent> = VecDeque::new();
    let mut group_is_here = true;
    loop {
        tokio::select! {
            command = commands.recv(), if group_is_here && answers.len() + ready.len() < ATTACH_COMMANDS => {
                let Some(command) = command else { break };
                group_is_here = inbox.send(translate(id, command, &mut answers)).await.is_ok();
            }
            Some(answer) = answers.next(), if !answers.is_empty() => {
                let Some((sequence, outcomes)) = answer else { continue };
                ready.push_back(AttachEvent::Settled { sequence, outcomes });
            }
            permit = events.reserve(), if !ready.is_empty() => {
                let Ok(permit) = permit else { break };
                if let Some(answer) = ready.pop_front() {
                    permit.send(answer);
                }
            }
            () = events.closed() => break,
            () = inbox.closed(), if group_is_here => group_is_here = false,
        }
        if !group_is_here && answers.is_empty() && ready.is_empty() {
            // Dropping the last sender tells the door to look for the group elsewhere.
            return;
        }
    }
    let _ended = inbox.send(Command::Detach { id }).await;
}

fn translate(id: AttachmentId, command: AttachCommand, answers: &mut FuturesUnordered<Answer>) -> Command {
    match command {
        AttachCommand::Credit { records, bytes } => Command::Credit { id, records, bytes },
        AttachCommand::Room { bytes } => Command::Room { id, bytes },
        AttachCommand::Settle { sequence, settle, leases } => {
            let (reply, outcome) = oneshot::channel();
            let count = leases.len();
            answers.push(answer(sequence, count, outcome).boxed());
            Command::Settle { settle, leases, deadline: Instant::now() + SETTLE_WITHIN, reply }
        }
    }
}

/// Nothing, if the group went away before it knew: the door asks the next dispatcher.
async fn answer(
    sequence: i64,
    count: usize,
    outcome: oneshot::Receiver<Result<Vec<SettleOutcome>, DispatchError>>,
) -> Option<(i64, Vec<SettleOutcome>)> {
    match outcome.await {
        Ok(Ok(outcomes)) => Some((sequence, outcomes)),
        Ok(Err(DispatchError::Refused(_))) => Some((sequence, vec![SettleOutcome::Unavailable; count])),
        Ok(Err(DispatchError::NotDispatcher | DispatchError::Moving(_))) | Err(_) => None,
    }
}
