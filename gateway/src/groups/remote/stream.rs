//! One stream of records from another gateway, at the door's end.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::Streaming;

use sluice_proto::internal::gateway::v1 as wire;
use sluice_proto::internal::gateway::v1::{attach_request, attach_response};
use sluice_proto::stream::v1::DeliveryState;

use crate::groups::model::{AttachCommand, AttachEvent, LeaseKey, Settle};
use crate::groups::remote::messages::{Malformed, all_from_wire, outcomes_from_wire, settlement_to_wire};

/// How long to wait for the word that records went back.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(1);
/// The number of that settlement; those of streams are not negative.
const HANDED_BACK: i64 = -1;

pub(super) fn credit(records: u64, bytes: u64) -> wire::AttachCredit {
    wire::AttachCredit {
        records: i64::try_from(records).unwrap_or(i64::MAX),
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
    }
}

/// Carries commands there and events back until either side ends. Events are read as they come, so that they never wait in the
/// shared connection; the dispatcher sends only so many ahead of what is reported as taken.
pub(super) async fn carry(
    mut commands: mpsc::Receiver<AttachCommand>,
    requests: mpsc::Sender<wire::AttachRequest>,
    mut responses: Streaming<wire::AttachResponse>,
    events: mpsc::Sender<AttachEvent>,
) {
    let mut arrived: VecDeque<AttachEvent> = VecDeque::new();
    let mut taken = 0;
    loop {
        tokio::select! {
            response = responses.message() => match response {
                Ok(Some(response)) => match event(response) {
                    Ok(Some(event)) => arrived.push_back(event),
                    Ok(None) => taken += 1,
                    Err(error) => {
                        tracing::error!(%error, "another gateway sent what cannot be read");
                        break;
                    }
                },
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(code = ?status.code(), message = status.message(), "stream from a dispatcher ended");
                    break;
                }
            },
            permit = events.reserve(), if !arrived.is_empty() => {
                let Ok(permit) = permit else {
                    return hand_back(arrived, taken, &requests, responses).await;
                };
                if let Some(event) = arrived.pop_front() {
                    permit.send(event);
                    taken += 1;
                }
            }
            permit = requests.reserve(), if taken > 0 => {
                let Ok(permit) = permit else { break };
                permit.send(wire::AttachRequest { taken: std::mem::take(&mut taken), ..Default::default() });
            }
            command = commands.recv() => {
                let Some(command) = command else {
                    // Whoever took the events has gone.
                    return hand_back(arrived, taken, &requests, responses).await;
                };
                let mut request = request(command);
                request.taken = std::mem::take(&mut taken);
                // A dispatcher that takes no commands holds up this stream alone.
                if requests.send(request).await.is_err() {
                    break;
                }
            }
        }
    }
    // What has arrived is still good: its leases run. The dispatcher has gone, so there is nobody to hand it back to but through the
    // door, which reads all of its events before it looks for another one.
    for event in arrived {
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// The door has let go of the stream: what it has not taken goes back, and so does what is on its way, until the dispatcher says so.
async fn hand_back(
    arrived: VecDeque<AttachEvent>,
    taken: i32,
    requests: &mpsc::Sender<wire::AttachRequest>,
    mut responses: Streaming<wire::AttachResponse>,
) {
    let back = |events: Vec<AttachEvent>, taken: usize| {
        let leases: Vec<LeaseKey> = events.iter().flat_map(leases_of).collect();
        let command = AttachCommand::Settle { sequence: HANDED_BACK, settle: Settle::HandBack, leases };
        wire::AttachRequest { taken: i32::try_from(taken).unwrap_or(i32::MAX), ..request(command) }
    };
    let count = arrived.len() + usize::try_from(taken).unwrap_or(0);
    let answered = async {
        if arrived.iter().flat_map(leases_of).next().is_none() {
            return;
        }
        if requests.send(back(arrived.into(), count)).await.is_err() {
            return;
        }
        while let Ok(Some(response)) = responses.message().await {
            match event(response) {
                Ok(Some(AttachEvent::Settled { sequence: HANDED_BACK, .. })) | Err(_) => return,
                Ok(Some(event @ AttachEvent::Records(_))) => {
                    if requests.send(back(vec![event], 1)).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
            }
        }
    };
    if tokio::time::timeout(HAND_BACK_WITHIN, answered).await.is_err() {
        tracing::debug!("records that did not leave come again when their leases end");
    }
}

fn leases_of(event: &AttachEvent) -> Vec<LeaseKey> {
    match event {
        AttachEvent::Records(records) => records.iter().map(|leased| leased.key).collect(),
        AttachEvent::Settled { .. } | AttachEvent::State(_) => Vec::new(),
    }
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
