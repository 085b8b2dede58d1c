//! How streams begin: `Consume` in both directions, `Subscribe` in one.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio_stream::Stream;
use tonic::{Code, Status, Streaming};
use tracing::Instrument;

use sluice_edge::replies::library_error;
use sluice_proto::stream::v1::{
    ConsumeRequest, ConsumeResponse, ConsumeStart, ReceivedRecords, SubscribeRequest, SubscribeResponse,
    consume_request, consume_response,
};
use sluice_runtime::statuses;
use sluice_types::error::Error;
use sluice_types::limits::PULL_RECORDS_MAX;
use sluice_types::{ErrorKind, Reason};

use crate::access::DataCall;
use crate::data::answer_by;
use crate::groups::door::admission::Place;
use crate::groups::door::credit::{BYTES_MAX, Credit, RECORDS_MAX};
use crate::groups::door::delivery::messages;
use crate::groups::door::outlet::{Outgoing, Outlet, Said, outlet};
use crate::groups::door::session::{Ask, Input, Opening, Session};
use crate::groups::door::settle::{extend, refuse};
use crate::groups::door::stream_access::StreamAccess;
use crate::groups::door::{Shared, fields};
use crate::groups::model::Settle;
use crate::layers::audit::Denial;
use crate::transport::Progress;

/// How long the first message of a stream may take.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// Records in one message, when the client names none.
const BATCH_RECORDS_DEFAULT: usize = 500;
/// Records of a subscription that are out at a time, when the client names none.
const OUTSTANDING_RECORDS_DEFAULT: usize = 1_000;
/// Their bytes, when the client names none.
const OUTSTANDING_BYTES_DEFAULT: usize = 16 << 20;

/// A stream of gRPC answers.
pub type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Bytes of a message on `Consume`.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

impl Shared {
    /// Begins `Consume`. The answer's head leaves at once: clients may wait for it before they send their first message.
    pub(super) fn consume(
        self: &Arc<Self>,
        call: Arc<DataCall>,
        requests: Streaming<ConsumeRequest>,
    ) -> Result<(Answers<ConsumeResponse>, Progress), Error> {
        let place = self.admission.enter(call.context.tenant.uid())?;
        let (out, outgoing) = outlet();
        let progress = outgoing.progress();
        let id = Arc::clone(&call.context.request_id);
        let (door, work) = (Arc::clone(self), Arc::clone(self).consuming(call, requests, out, place));
        door.tasks.spawn("consume", work.in_current_span());
        let answers = grpc(outgoing, id, |said| {
            let message = match said {
                Said::Records(records) => {
                    consume_response::Message::Records(ReceivedRecords { records: messages(records) })
                }
                Said::Settled(settled) => consume_response::Message::Settled(settled),
                Said::Notice(notice) => consume_response::Message::Notice(notice),
            };
            ConsumeResponse { message: Some(message) }
        });
        Ok((answers, progress))
    }

    async fn consuming(
        self: Arc<Self>,
        call: Arc<DataCall>,
        mut requests: Streaming<ConsumeRequest>,
        out: Outlet,
        place: Place,
    ) {
        let begun = tokio::select! {
            begun = self.begin(&call, &mut requests) => begun,
            // The client has gone.
            () = out.messages.closed() => return,
        };
        match begun {
            Ok((standing, opening)) => {
                let input: Input =
                    Box::pin(requests.map(|request| ask(request.map_err(|status| unreadable(&status))?)));
                Session::new(self, standing, opening, place).run(input, out).await;
            }
            Err(error) => {
                if error.kind == ErrorKind::PermissionDenied {
                    self.audit.denied(Denial { context: &call.context, permission: call.permission() });
                }
                self.metrics.ended(error.kind.as_str());
                out.end(Some(error));
            }
        }
    }

    async fn begin(
        &self,
        call: &Arc<DataCall>,
        requests: &mut Streaming<ConsumeRequest>,
    ) -> Result<(StreamAccess, Opening), Error> {
        let first = tokio::time::timeout(FIRST_MESSAGE, requests.message()).await;
        let first = first.map_err(|_| Error::invalid("start", "did not come in time; send it as the first message"))?;
        let first = first.map_err(|status| unreadable(&status))?.unwrap_or_default();
        let Some(consume_request::Message::Start(start)) = first.message else {
            return Err(Error::invalid("start", "must be the first message of the stream"));
        };
        let group = self.group(call, &start.group, &start.topics, answer_by(call)).await?;
        let opening = opening(&start)?;
        Ok((StreamAccess::new(Arc::clone(call), group), opening))
    }

    /// Begins a subscription.
    pub(super) async fn subscribe(
        self: &Arc<Self>,
        call: &Arc<DataCall>,
        request: &SubscribeRequest,
    ) -> Result<Outgoing, Error> {
        let group = self.group(call, &request.group, &request.topics, answer_by(call)).await?;
        let records = fields::bounded(
            "maxOutstandingRecords",
            request.max_outstanding_records,
            OUTSTANDING_RECORDS_DEFAULT,
            usize::try_from(RECORDS_MAX).unwrap_or(usize::MAX),
        )?;
        let bytes = fields::bounded(
            "maxOutstandingBytes",
            request.max_outstanding_bytes,
            OUTSTANDING_BYTES_DEFAULT,
            usize::try_from(BYTES_MAX).unwrap_or(usize::MAX),
        )?;
        let opening = Opening {
            encoding: fields::encoding(request.encoding)?,
            batch_records: BATCH_RECORDS_DEFAULT.min(records),
            credit: Credit { records: records as u64, bytes: bytes as u64 },
            returns_credit: true,
        };
        let place = self.admission.enter(call.context.tenant.uid())?;
        let (out, outgoing) = outlet();
        let standing = StreamAccess::new(Arc::clone(call), group);
        let session = Session::new(Arc::clone(self), standing, opening, place);
        let nothing: Input = Box::pin(futures::stream::pending());
        self.tasks.spawn("subscribe", session.run(nothing, out).in_current_span());
        Ok(outgoing)
    }
}

/// A subscription's message.
pub(super) fn subscribe_response(said: Said) -> SubscribeResponse {
    match said {
        Said::Records(records) => SubscribeResponse { records: messages(records), notice: None },
        Said::Notice(notice) => SubscribeResponse { records: Vec::new(), notice: Some(notice) },
        // Nobody settles on this stream.
        Said::Settled(_) => SubscribeResponse::default(),
    }
}

/// What goes out, as gRPC.
pub(super) fn grpc<T: Send + 'static>(
    outgoing: Outgoing,
    request_id: Arc<str>,
    message: impl Fn(Said) -> T + Send + 'static,
) -> Answers<T> {
    Box::pin(outgoing.map(move |said| match said {
        Ok(said) => Ok(message(said)),
        Err(error) => {
            crate::data::failure::log(&error);
            Err(statuses::to_tonic(&error, &request_id))
        }
    }))
}

fn opening(start: &ConsumeStart) -> Result<Opening, Error> {
    let batch = start.max_batch_records;
    let mut credit = Credit::default();
    if let Some(first) = start.credit {
        credit.add(Credit::read(first)?);
    }
    Ok(Opening {
        encoding: fields::encoding(start.encoding)?,
        batch_records: fields::bounded("start.maxBatchRecords", batch, BATCH_RECORDS_DEFAULT, PULL_RECORDS_MAX)?,
        credit,
        returns_credit: false,
    })
}

fn ask(request: ConsumeRequest) -> Result<Ask, Error> {
    let sequence = request.sequence;
    let settle = |settle, ids: Vec<String>| {
        fields::ack_ids(&ids)?;
        Ok(Ask::Settle { sequence, settle, ids })
    };
    match request.message {
        Some(consume_request::Message::Credit(credit)) => Ok(Ask::Credit(Credit::read(credit)?)),
        Some(consume_request::Message::Ack(ack)) => settle(Settle::Acknowledge, ack.ack_ids),
        Some(consume_request::Message::Nack(nack)) => {
            settle(refuse(nack.delay, &nack.reason, nack.release)?, nack.ack_ids)
        }
        Some(consume_request::Message::Extend(more)) => settle(extend(more.ack_deadline)?, more.ack_ids),
        Some(consume_request::Message::Start(_)) => {
            Err(Error::invalid("start", "was sent twice; it is the first message, and only that"))
        }
        None => Err(Error::invalid("message", "is empty; send credit, ack, nack or extend")),
    }
}

/// A message that could not be read, or a client that has gone.
fn unreadable(status: &Status) -> Error {
    match status.code() {
        Code::Cancelled | Code::Unavailable | Code::Unknown => {
            Error::new(ErrorKind::Cancelled, Reason::DeadlineExceeded, "the client ended the stream")
        }
        _ => library_error(status, MESSAGE_BYTES_MAX as u64),
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::stream::v1::{ConsumeAck, ConsumeCredit};

    use super::*;

    #[test]
    fn a_stream_begins_with_what_it_was_given_and_no_more() {
        let start = ConsumeStart::default();
        let begun = opening(&start).expect("good");
        assert_eq!((begun.batch_records, begun.credit), (500, Credit::default()), "no credit: paused");
        let credit = Some(ConsumeCredit { records: 20_000, bytes: 0 });
        let begun = opening(&ConsumeStart { credit, ..start.clone() }).expect("good");
        assert_eq!(begun.credit, Credit { records: RECORDS_MAX, bytes: BYTES_MAX });
        for (start, field) in [
            (ConsumeStart { max_batch_records: 1_001, ..start.clone() }, "start.maxBatchRecords"),
            (ConsumeStart { encoding: 9, ..start }, "encoding"),
        ] {
            assert_eq!(opening(&start).expect_err(field).field.as_deref(), Some(field));
        }
    }

    #[test]
    fn messages_that_make_no_sense_end_the_stream_with_their_name() {
        let message = |message| ConsumeRequest { message, sequence: 3 };
        let start = Some(consume_request::Message::Start(ConsumeStart::default()));
        let none = Some(consume_request::Message::Ack(ConsumeAck::default()));
        for (wrong, field) in [(message(start), "start"), (message(None), "message"), (message(none), "ackIds")] {
            assert_eq!(ask(wrong).expect_err(field).field.as_deref(), Some(field));
        }
    }
}
