//! The connection over one gRPC stream.

use std::collections::VecDeque;

use sluice_proto::stream::v1::consume_request::Message;
use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::{
    ConsumeAck, ConsumeCredit, ConsumeExtend, ConsumeNack, ConsumeRequest, ConsumeResponse, ConsumeStart,
    PayloadEncoding, consume_response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::line::{Event, Opening};
use super::orders::{Order, Verb};
use super::room::Demand;

/// Messages on their way to the server.
const SENT: usize = 8;

pub(super) struct StreamLine {
    sender: mpsc::Sender<ConsumeRequest>,
    answers: Streaming<ConsumeResponse>,
    /// What there is to say; at most what is out, in messages.
    outbox: VecDeque<ConsumeRequest>,
    /// The second part of a notice.
    reconnect: bool,
}

impl StreamLine {
    pub(super) async fn open(opening: Opening<'_>) -> Result<Self, Status> {
        let (sender, receiver) = mpsc::channel(SENT);
        let start = ConsumeStart {
            group: opening.group.to_owned(),
            credit: opening.demand.map(credit),
            encoding: PayloadEncoding::Bytes.into(),
            max_batch_records: 0,
            topics: opening.topics.to_vec(),
        };
        let start = ConsumeRequest { message: Some(Message::Start(start)), sequence: 0 };
        if sender.try_send(start).is_err() {
            return Err(Status::internal("a new channel is full"));
        }
        let mut client =
            ConsumerServiceClient::new(opening.session.channel.clone()).max_decoding_message_size(usize::MAX);
        let request = opening.session.endless(ReceiverStream::new(receiver));
        let answer = tokio::time::timeout(opening.timeout, client.consume(request)).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("the stream was not opened in time"))??;
        opening.session.observe(&answer);
        Ok(Self { sender, answers: answer.into_inner(), outbox: VecDeque::new(), reconnect: false })
    }

    pub(super) async fn next(&mut self) -> Result<Event, Status> {
        loop {
            if std::mem::take(&mut self.reconnect) {
                return Ok(Event::Reconnect);
            }
            tokio::select! {
                permit = self.sender.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(message) = self.outbox.pop_front() {
                            permit.send(message);
                        }
                    }
                    // The server does not listen any more; its last word tells why.
                    Err(_) => self.outbox.clear(),
                },
                answer = self.answers.message() => {
                    let answer = answer?.ok_or_else(|| Status::unavailable("the gateway ended the stream"))?;
                    match answer.message {
                        Some(consume_response::Message::Records(records)) => return Ok(Event::Records(records.records)),
                        Some(consume_response::Message::Settled(settled)) => {
                            return Ok(Event::Settled { sequence: settled.sequence, results: settled.results });
                        }
                        Some(consume_response::Message::Notice(notice)) => {
                            self.reconnect = notice.reconnect;
                            return Ok(Event::State(notice.state()));
                        }
                        None => {}
                    }
                }
            }
        }
    }

    pub(super) fn ask(&mut self, demand: Demand) {
        self.outbox.push_back(ConsumeRequest { message: Some(Message::Credit(credit(demand))), sequence: 0 });
    }

    pub(super) fn settle(&mut self, sequence: i64, order: &Order) {
        let ack_ids = order.ids.clone();
        let message = match order.verb {
            Verb::Ack => Message::Ack(ConsumeAck { ack_ids }),
            Verb::Nack(delay) | Verb::Release(delay) => {
                let (delay, reason) = (delay.map(Into::into), order.reason.clone());
                let release = matches!(order.verb, Verb::Release(_));
                Message::Nack(ConsumeNack { ack_ids, delay, reason, release })
            }
            Verb::Extend(time) => Message::Extend(ConsumeExtend { ack_ids, ack_deadline: time.map(Into::into) }),
        };
        self.outbox.push_back(ConsumeRequest { message: Some(message), sequence });
    }
}

fn credit(demand: Demand) -> ConsumeCredit {
    ConsumeCredit { records: demand.records as i32, bytes: demand.bytes as i64 }
}
