//! One stream of records to another gateway, at the dispatcher's end.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use sluice_proto::internal::gateway::v1 as wire;
use sluice_proto::internal::gateway::v1::{attach_request, attach_response};

use crate::groups::model::{ATTACH_EVENTS, AttachCommand, AttachEvent, Attachment, LeaseKey, left_in};
use crate::groups::remote::messages::{in_messages, lease_from_wire, outcomes_to_wire, settlement_from_wire};
use crate::groups::serve::attachments::{Named, Sent};

/// How long to read what a door has said on an attachment that is over for it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Carries commands in and events out until either side ends; at most [`ATTACH_EVENTS`] messages ahead of the door. Gives the leases
/// `back` of what was not sent, and of what was sent and has not arrived, as far as the door says so.
pub(super) async fn carry(
    mut requests: Streaming<wire::AttachRequest>,
    attachment: Attachment,
    out: mpsc::Sender<Result<wire::AttachResponse, Status>>,
    mut named: Named,
    back: impl Fn(Vec<LeaseKey>),
) {
    let Attachment { commands, mut events } = attachment;
    let mut waiting: VecDeque<attach_response::Message> = VecDeque::new();
    let mut sent = Sent::default();
    // The door has let go: what it said on the attachment before may still be on the way.
    let mut over_at = None::<Instant>;
    loop {
        let has_room = sent.ahead() < ATTACH_EVENTS && over_at.is_none();
        tokio::select! {
            request = requests.message() => {
                // The door has gone, or its process has.
                let Ok(Some(request)) = request else { break };
                sent.taken(usize::try_from(request.taken).unwrap_or(0));
                match command(request) {
                    // If it takes none any more, its events end, too.
                    Ok(Some(command)) => drop(commands.send(command).await),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::error!(%error, "another gateway sent what cannot be read");
                        break;
                    }
                }
            }
            // What comes once it is over goes back with the rest.
            event = events.recv(), if over_at.is_some() || (waiting.is_empty() && has_room) => match event {
                Some(event) => messages(event, &mut waiting),
                None => break,
            },
            permit = out.reserve(), if !waiting.is_empty() && has_room => {
                let Ok(permit) = permit else { break };
                if let Some(message) = waiting.pop_front() {
                    sent.sent(leases_of(&message));
                    permit.send(Ok(wire::AttachResponse { message: Some(message) }));
                }
            }
            () = named.is_over(), if over_at.is_none() => over_at = Some(Instant::now() + LAST_WORDS),
            () = tokio::time::sleep_until(over_at.unwrap_or_else(Instant::now)), if over_at.is_some() => break,
            () = out.closed(), if over_at.is_none() => over_at = Some(Instant::now() + LAST_WORDS),
        }
    }
    // The door hears at once that this is over.
    drop((out, requests));
    // The dispatcher sends no more once it has done what it was told.
    drop(commands);
    let mut leases: Vec<LeaseKey> = waiting.iter().flat_map(leases_of).collect();
    leases.extend(left_in(events).await);
    back(leases);
    if sent.has_leases() {
        back(sent.behind(named.taken().await));
    }
}

fn leases_of(message: &attach_response::Message) -> Vec<LeaseKey> {
    let attach_response::Message::Records(records) = message else { return Vec::new() };
    // Made here: they can be read.
    records.records.iter().filter_map(|leased| lease_from_wire(leased).ok()).collect()
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
