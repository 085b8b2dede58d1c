//! What libraries make of a call, as our answers and errors.

use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::Full;
use tonic::{Code, Status};

use sluice_proto::TranscodeError;
use sluice_proto::dispatch::{HttpError, HttpReply};
use sluice_runtime::statuses;
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

use crate::body_limit::too_large;
use crate::{Answer, Body, Response};

/// The answer of a dispatched HTTP call.
pub fn http_answer(outcome: Result<HttpReply, HttpError>) -> Answer {
    match outcome {
        Ok(reply) => Ok(json(reply)),
        Err(HttpError::Request(error)) => Err(unreadable(error)),
        Err(HttpError::Status(status)) => Err(statuses::from_tonic(&status)),
    }
}

fn json(reply: HttpReply) -> Response {
    let mut response = http::Response::new(Body::new(Full::<Bytes>::new(reply.body)));
    // What the handler says to the layers around it.
    *response.extensions_mut() = reply.extensions;
    *response.headers_mut() = reply.metadata.into_headers();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A request that could not be understood.
pub fn unreadable(error: TranscodeError) -> Error {
    match error.field.as_str() {
        "" => Error::new(ErrorKind::InvalidArgument, Reason::MalformedBody, error.to_string()),
        field => Error::invalid(field, &error.reason),
    }
}

/// A status without details was made by the library, for a message it could not read: it becomes an error of ours.
pub fn ours(response: Response, body_bytes_max: u64) -> Answer {
    if !response.headers().contains_key("grpc-status") {
        return Ok(response);
    }
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok && status.details().is_empty() => {
            Err(library_error(&status, body_bytes_max))
        }
        _ => Ok(response),
    }
}

/// What the library says of a message it could not take, as our error.
pub fn library_error(status: &Status, body_bytes_max: u64) -> Error {
    let text = status.message();
    let invalid = |reason, message| Error::new(ErrorKind::InvalidArgument, reason, message);
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => too_large(body_bytes_max),
        Code::Unimplemented => Error::new(
            ErrorKind::Unimplemented,
            Reason::MalformedBody,
            "this message encoding is not supported; send gzip or none",
        ),
        Code::DeadlineExceeded => {
            Error::new(ErrorKind::DeadlineExceeded, Reason::DeadlineExceeded, "time was over before an answer came")
        }
        Code::Cancelled => Error::new(ErrorKind::Cancelled, Reason::DeadlineExceeded, "the call was cancelled"),
        _ if text.contains("recursion limit") => invalid(
            Reason::MalformedBody,
            "the message is nested deeper than 100 messages; send JSON of more than 30 levels as text",
        ),
        _ if UNREADABLE.iter().any(|known| text.contains(known)) => {
            invalid(Reason::MalformedBody, "the message cannot be read: it is not whole, or not of this RPC's type")
        }
        _ => Error::internal(status.clone()),
    }
}

/// What the library says of messages it cannot read.
const UNREADABLE: &[&str] =
    &["decompressing", "decode", "Unexpected EOF", "protocol error", "Missing request message", "h2 protocol", "body"];

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use sluice_proto::stream::v1::produce_record::ValueKind;
    use sluice_proto::stream::v1::{ProduceRecord, ProduceRequest};

    use super::*;

    #[test]
    fn a_message_that_is_too_deep_is_refused_with_the_limit() {
        let json = "[".repeat(90) + &"]".repeat(90);
        let value_kind = Some(ValueKind::ValueJson(serde_json::from_str(&json).expect("JSON")));
        let request =
            ProduceRequest { records: vec![ProduceRecord { value_kind, ..Default::default() }], ..Default::default() };
        let refused = ProduceRequest::decode(&request.encode_to_vec()[..]).expect_err("too deep");
        let error = library_error(&Status::internal(refused.to_string()), 1);
        assert_eq!((error.kind, error.reason), (ErrorKind::InvalidArgument, Reason::MalformedBody));
        assert!(error.message.contains("deeper than 100 messages"), "{}", error.message);
    }
}
