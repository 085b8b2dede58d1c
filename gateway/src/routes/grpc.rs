//! gRPC calls: to the server of their service.

use tonic::{Code, Status};
use tower::Service;

use sluice_proto::Rpc;
use sluice_proto::forward::ForwardContext;
use sluice_proto::stream::v1::stream_service_server::StreamService;
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

use crate::groups::door::watched;
use crate::layers::body_limit::too_large;
use crate::layers::call::Target;
use crate::layers::{Answer, Request, Response};
use crate::ports::DataPath;
use crate::routes::Served;

impl<D: StreamService + DataPath, C: ForwardContext> Served<D, C> {
    pub(super) async fn grpc(&self, rpc: &'static Rpc, request: Request) -> Answer {
        macro_rules! call {
            ($server:ident) => {{
                let Ok(response) = self.$server.clone().call(request).await;
                response
            }};
        }
        let response = match rpc.service {
            "sluice.stream.v1.StreamService" => call!(stream),
            "sluice.stream.v1.ConsumerService" => watched(call!(consumer)),
            "sluice.admin.v1.TenantService" => call!(tenants),
            "sluice.admin.v1.NamespaceService" => call!(namespaces),
            "sluice.admin.v1.TopicService" => call!(topics),
            "sluice.admin.v1.GroupService" => call!(groups),
            "sluice.admin.v1.ServiceAccountService" => call!(accounts),
            "sluice.admin.v1.OperationService" => call!(operations),
            "sluice.billing.v1.UsageService" => call!(usages),
            other => return Err(Error::internal(format!("{other} is in the access table and not served"))),
        };
        ours(response, Target::Grpc(rpc).body_bytes_max(self.body_bytes_max))
    }

    /// Health and reflection.
    pub(super) async fn open(&self, request: Request) -> Answer {
        if request.uri().path().starts_with("/grpc.health.") {
            let Ok(response) = self.health.clone().call(request).await;
            Ok(response)
        } else {
            Ok(self.reflection.call(request).await)
        }
    }
}

/// A status without details was made by the library, for a message it could not read: it becomes an error of ours.
fn ours(response: Response, body_bytes_max: u64) -> Answer {
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
pub(crate) fn library_error(status: &Status, body_bytes_max: u64) -> Error {
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
