//! One stream of records from another gateway, at the door's end.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tonic::Streaming;

use sluice_proto::internal::gateway::v1 as wire;
use sluice_proto::internal::gateway::v1::{attach_request, attach_response};
use sluice_proto::stream::v1::DeliveryState;

use crate::groups::model::{AttachCommand, AttachEvent};
use crate::groups::remote::messages::{Malformed, all_from_wire, outcomes_from_wire, settlement_to_wire};
use crate::groups::remote::unheard::Unheard;

pub(super) fn credit(records: u64, bytes: u64) -> wire::AttachCredit {
    wire::AttachCredit {
        records: i64::try_from(records).unwrap_or(i64::MAX),
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
    }
}

/// Carries commands there and events back until either side ends. Events are read as they come, so that they never wait in the
/// shared connection; the dispatcher sends only so many ahead of what is reported as taken. What the door has not taken when this
/// ends, whether it has arrived here or not, is handed back by way of [`Unheard`].
pub(super) async fn carry(
    mut commands: mpsc::Receiver<AttachCommand>,
    requests: mpsc::Sender<wire::AttachRequest>,
    mut responses: Streaming<wire::AttachResponse>,
    events: mpsc::Sender<AttachEvent>,
    mut unheard: Unheard,
) {
    // An event is absent if this build does not know it.
    let mut arrived: VecDeque<Option<AttachEvent>> = VecDeque::new();
    let mut taken = 0;
    loop {
        tokio::select! {
            response = responses.message() => match response {
                Ok(Some(response)) => match event(response) {
                    Ok(event) => arrived.push_back(event),
                    Err(error) => {
                        tracing::error!(%error, "another gateway sent what cannot be read");
                        break;
                    }
                },
                // All has arrived. What has is still good: its leases run.
                Ok(None) => {
                    if hand_on(arrived, &events, &mut unheard).await {
                        unheard.heard();
                    }
                    return;
                }
                Err(status) => {
                    tracing::debug!(code = ?status.code(), message = status.message(), "stream from a dispatcher ended");
                    break;
                }
            },
            permit = events.reserve(), if !arrived.is_empty() => {
                // Whoever took the events has gone.
                let Ok(permit) = permit else { return };
                if let Some(event) = arrived.pop_front() {
                    if let Some(event) = event {
                        permit.send(event);
                    }
                    unheard.message_taken();
                    taken += 1;
                }
            }
            permit = requests.reserve(), if taken > 0 => {
                let Ok(permit) = permit else { break };
                permit.send(wire::AttachRequest { taken: std::mem::take(&mut taken), ..Default::default() });
            }
            command = commands.recv() => {
                let Some(command) = command else { return };
                let mut request = request(command);
                request.taken = std::mem::take(&mut taken);
                // A dispatcher that takes no commands holds up this stream alone.
                if requests.send(request).await.is_err() {
                    break;
                }
            }
        }
    }
    // The door may take the rest much later: what it has no room for now goes back.
    for event in arrived {
        match event.map_or(Ok(()), |event| events.try_send(event)) {
            Ok(()) => unheard.message_taken(),
            Err(_) => return,
        }
    }
}

/// Hands on all that has arrived; false if the door has let go of the stream before.
async fn hand_on(
    arrived: VecDeque<Option<AttachEvent>>,
    events: &mpsc::Sender<AttachEvent>,
    unheard: &mut Unheard,
) -> bool {
    for event in arrived {
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return false;
        }
        unheard.message_taken();
    }
    true
}

fn request(command: AttachCommand) -> wire::AttachRequest {
    let (message, sequence) = match command {
        AttachCommand::Credit { records, bytes } => (attach_request::Message::Credit(credit(records, bytes)), 0),
        AttachCommand::Room { bytes } => {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            (attach_request::Message::Room(wire::AttachRoom { bytes }), 0)
        }
        AttachCommand::Settle { sequence, settle, leases } => {
            (attach_request::Message::Settlement(settlement_to_wire(&settle, &leases)), sequence)
        }
    };
    wire::AttachRequest { message: Some(message), sequence, taken: 0 }
}

fn event(response: wire::AttachResponse) -> Result<Option<AttachEvent>, Malformed> {
    Ok(match response.message {
        Some(attach_response::Message::Records(records)) => Some(AttachEvent::Records(all_from_wire(records.records)?)),
        Some(attach_response::Message::Settled(settled)) => {
            Some(AttachEvent::Settled { sequence: settled.sequence, outcomes: outcomes_from_wire(&settled.outcomes) })
        }
        Some(attach_response::Message::State(state)) => {
            Some(AttachEvent::State(DeliveryState::try_from(state).unwrap_or_default()))
        }
        // Of a newer build.
        None => None,
    })
}
