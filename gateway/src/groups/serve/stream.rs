//! One stream of records to another gateway, at the dispatcher's end.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use sluice_proto::internal::gateway::v1 as wire;
use sluice_proto::internal::gateway::v1::{attach_request, attach_response};

use crate::groups::model::{ATTACH_EVENTS, AttachCommand, AttachEvent, Attachment, LeaseKey, Settle};
use crate::groups::remote::messages::{in_messages, lease_from_wire, outcomes_to_wire, settlement_from_wire};
use crate::groups::serve::attachments::{Named, Sent};

/// How long to wait for the word that records went back.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(1);
/// How long to read what a door has said on an attachment that is over for it.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The number of that settlement; those of doors are not negative.
const HANDED_BACK: i64 = -1;

/// Carries commands in and events out until either side ends; at most [`ATTACH_EVENTS`] messages ahead of the door. Gives the leases
/// of what was sent and has not arrived, as far as the door says so.
pub(super) async fn carry(
    mut requests: Streaming<wire::AttachRequest>,
    attachment: Attachment,
    out: mpsc::Sender<Result<wire::AttachResponse, Status>>,
    mut named: Named,
) -> Vec<LeaseKey> {
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
    hand_back(waiting, commands, events).await;
    if sent.has_leases() { sent.behind(named.taken().await) } else { Vec::new() }
}

/// The stream is over: records that the door has not been sent are not lost until their leases end.
async fn hand_back(
    waiting: VecDeque<attach_response::Message>,
    commands: mpsc::Sender<AttachCommand>,
    mut events: mpsc::Receiver<AttachEvent>,
) {
    let mut leases: Vec<LeaseKey> = waiting.iter().flat_map(leases_of).collect();
    while let Ok(event) = events.try_recv() {
        if let AttachEvent::Records(records) = event {
            leases.extend(records.iter().map(|leased| leased.key));
        }
    }
    if leases.is_empty() {
        return;
    }
    let back = AttachCommand::Settle { sequence: HANDED_BACK, settle: Settle::HandBack, leases };
    let answered = async {
        if commands.send(back).await.is_err() {
            return;
        }
        // The attachment ends with its events, and what it was told last with it.
        let mut unanswered = 1;
        while unanswered > 0
            && let Some(event) = events.recv().await
        {
            match event {
                AttachEvent::Settled { sequence: HANDED_BACK, .. } => unanswered -= 1,
                AttachEvent::Records(records) => {
                    let leases = records.iter().map(|leased| leased.key).collect();
                    let back = AttachCommand::Settle { sequence: HANDED_BACK, settle: Settle::HandBack, leases };
                    unanswered += usize::from(commands.try_send(back).is_ok());
                }
                AttachEvent::Settled { .. } | AttachEvent::State(_) => {}
            }
        }
    };
    if tokio::time::timeout(HAND_BACK_WITHIN, answered).await.is_err() {
        tracing::debug!("records that did not leave come again when their leases end");
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

#[cfg(test)]
mod tests {
    use sluice_types::TopicUid;
    use sluice_wire::{Record, TimestampType};

    use crate::groups::model::Leased;

    use super::*;

    fn leased(offset: i64) -> Leased {
        let key = LeaseKey { topic: TopicUid::random(), partition: 0, offset, term: 1, attempt: 1 };
        let timestamp_type = TimestampType::CreateTime;
        let record = Record { offset, timestamp_ms: 0, timestamp_type, key: None, value: None, headers: Vec::new() };
        Leased { key, lease_end_ms: 0, record }
    }

    #[tokio::test]
    async fn what_a_stream_had_not_sent_goes_back_before_it_lets_go() {
        let (commands, mut told) = mpsc::channel(4);
        let (happened, events) = mpsc::channel(4);
        let (one, other, late) = (leased(1), leased(2), leased(3));
        let mut keys = vec![one.key, other.key];
        let mut waiting = VecDeque::new();
        messages(AttachEvent::Records(vec![one]), &mut waiting);
        happened.send(AttachEvent::Records(vec![other])).await.expect("room");
        let ends = tokio::spawn(hand_back(waiting, commands, events));
        let Some(AttachCommand::Settle { sequence, settle: Settle::HandBack, leases }) = told.recv().await else {
            panic!("no word of it");
        };
        assert_eq!(leases, keys);
        keys = vec![late.key];
        happened.send(AttachEvent::Records(vec![late])).await.expect("it waits for the answer");
        let Some(AttachCommand::Settle { leases, .. }) = told.recv().await else { panic!("no word of it") };
        assert_eq!(leases, keys);
        for _ in 0..2 {
            assert!(!ends.is_finished(), "it waits for the answer");
            happened.send(AttachEvent::Settled { sequence, outcomes: Vec::new() }).await.expect("room");
        }
        ends.await.expect("an end");
        assert!(happened.is_closed());
    }
}
