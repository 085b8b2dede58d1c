//! One stream of records to another gateway, at the dispatcher's end.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use sluice_proto::internal::gateway::v1 as wire;
use sluice_proto::internal::gateway::v1::{attach_request, attach_response};

use crate::groups::model::{ATTACH_EVENTS, AttachCommand, AttachEvent, Attachment};
use crate::groups::remote::messages::{in_messages, outcomes_to_wire, settlement_from_wire};

/// Carries commands in and events out until either side ends; at most [`ATTACH_EVENTS`] messages ahead of the door.
pub(super) async fn carry(
    mut requests: Streaming<wire::AttachRequest>,
    attachment: Attachment,
    out: mpsc::Sender<Result<wire::AttachResponse, Status>>,
) {
    let Attachment { commands, mut events } = attachment;
    let mut waiting: VecDeque<attach_response::Message> = VecDeque::new();
    let mut ahead: usize = 0;
    loop {
        tokio::select! {
            request = requests.message() => {
                // The door has gone, or its process has.
                let Ok(Some(request)) = request else { return };
                ahead = ahead.saturating_sub(usize::try_from(request.taken).unwrap_or(0));
                match command(request) {
                    // If it takes none any more, its events end, too.
                    Ok(Some(command)) => drop(commands.send(command).await),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::error!(%error, "another gateway sent what cannot be read");
                        return;
                    }
                }
            }
            event = events.recv(), if waiting.is_empty() && ahead < ATTACH_EVENTS => match event {
                Some(event) => messages(event, &mut waiting),
                None => break,
            },
            permit = out.reserve(), if !waiting.is_empty() && ahead < ATTACH_EVENTS => {
                let Ok(permit) = permit else { return };
                if let Some(message) = waiting.pop_front() {
                    permit.send(Ok(wire::AttachResponse { message: Some(message) }));
                    ahead += 1;
                }
            }
            () = out.closed() => return,
        }
    }
}

fn command(request: wire::AttachRequest) -> Result<Option<AttachCommand>, crate::groups::remote::messages::Malformed> {
    Ok(match request.message {
        Some(attach_request::Message::Credit(credit)) => Some(AttachCommand::Credit {
            records: u64::try_from(credit.records).unwrap_or(0),
            bytes: u64::try_from(credit.bytes).unwrap_or(0),
        }),
        Some(attach_request::Message::Room(room)) => {
            Some(AttachCommand::Room { bytes: u64::try_from(room.bytes).unwrap_or(0) })
        }
        Some(attach_request::Message::Settlement(settlement)) => {
            let (settle, leases) = settlement_from_wire(settlement)?;
            Some(AttachCommand::Settle { sequence: request.sequence, settle, leases })
        }
        Some(attach_request::Message::Start(_)) | None => None,
    })
}

fn messages(event: AttachEvent, waiting: &mut VecDeque<attach_response::Message>) {
    match event {
        AttachEvent::Records(records) => {
            waiting.extend(in_messages(records).into_iter().map(attach_response::Message::Records));
        }
        AttachEvent::Settled { sequence, outcomes } => {
            let outcomes = outcomes_to_wire(outcomes);
            waiting.push_back(attach_response::Message::Settled(wire::SettledLeases { sequence, outcomes }));
        }
        AttachEvent::State(state) => waiting.push_back(attach_response::Message::State(state.into())),
    }
}
