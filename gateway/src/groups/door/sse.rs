//! A subscription over HTTP: server-sent events.
//!
//! Event `records` has a SubscribeResponse as its data, `notice` one with a notice, `reconnect` the same when this gateway shuts
//! down, `error` the error that ended the stream, as every other answer has it. A comment every 15 s keeps proxies awake.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use futures::{Stream, StreamExt};
use http::{HeaderName, HeaderValue, header};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::Status;

use sluice_edge::Body;
use sluice_proto::stream::v1::SubscribeResponse;
use sluice_runtime::statuses;
use sluice_types::error::Error;

use crate::data::encode::answer_json;
use crate::groups::door::outlet::{Outgoing, Said};
use crate::groups::door::streams::subscribe_response;

/// Between two comments.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When a client connects again.
const RETRY_MS: u64 = 1_000;

/// The answer with this stream as its body.
pub(super) fn response(outgoing: Outgoing, request_id: &str) -> http::Response<Body> {
    let progress = outgoing.progress();
    let frames = events(outgoing, request_id.to_owned()).map(|event| Ok::<_, Status>(Frame::data(event)));
    let mut response = http::Response::new(Body::new(StreamBody::new(frames)));
    response.extensions_mut().insert(progress);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // Or a proxy would collect events.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn events(outgoing: Outgoing, request_id: String) -> impl Stream<Item = Bytes> + Send {
    let first = stream::once(async { Bytes::from(format!("retry: {RETRY_MS}\n\n")) });
    let rest = stream::unfold(Some(outgoing), move |outgoing| {
        let request_id = request_id.clone();
        async move {
            let mut outgoing = outgoing?;
            match tokio::time::timeout(KEEP_ALIVE, outgoing.next()).await {
                Err(_) => Some((Bytes::from_static(b": still here\n\n"), Some(outgoing))),
                Ok(Some(Ok(said))) => Some((said_event(said), Some(outgoing))),
                Ok(Some(Err(error))) => Some((error_event(&error, &request_id), None)),
                Ok(None) => None,
            }
        }
    });
    first.chain(rest)
}

fn said_event(said: Said) -> Bytes {
    let name = match &said {
        Said::Records(_) => "records",
        Said::Notice(notice) if notice.reconnect => "reconnect",
        Said::Notice(_) | Said::Settled(_) => "notice",
    };
    let json = match said {
        Said::Records(records) => answer_json(records, &SubscribeResponse::default()),
        other => serde_json::to_vec(&subscribe_response(other)),
    };
    match json {
        Ok(mut json) => {
            // An event's data is one line. Line breaks are white space there: JSON has none within strings.
            json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
            [b"event: ", name.as_bytes(), b"\ndata: ", &json, b"\n\n"].concat().into()
        }
        Err(error) => error_event(&Error::internal(error), ""),
    }
}

fn error_event(error: &Error, request_id: &str) -> Bytes {
    crate::data::failure::log(error);
    format!("event: error\ndata: {}\n\n", statuses::to_json(error, request_id)).into()
}

#[cfg(test)]
mod tests {
    use sluice_proto::stream::v1::{DeliveryState, Notice};

    use crate::groups::door::delivery::tests::received;
    use crate::groups::door::outlet::outlet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_events_comments_and_an_end_that_says_why() {
        let (out, outgoing) = outlet();
        let mut events = Box::pin(events(outgoing, "r".into()));
        assert_eq!(events.next().await.expect("first"), "retry: 1000\n\n");
        assert_eq!(events.next().await.expect("silence"), ": still here\n\n");
        out.messages.send(Said::Records(vec![received("a", "[0.1000,\n12345678901234567890]")])).await.expect("room");
        let text = events.next().await.expect("records");
        let text = std::str::from_utf8(&text).expect("text");
        assert!(text.starts_with("event: records\ndata: {") && text.contains("\"ackId\":\"a\""), "{text}");
        assert!(text.contains("\"valueJson\":[0.1000, 12345678901234567890]"), "every digit, in one line: {text}");
        assert_eq!(text.matches('\n').count(), 3, "data is one line");
        let notice = Notice { state: DeliveryState::NoRecords.into(), reconnect: true };
        out.messages.send(Said::Notice(notice)).await.expect("room");
        let text = events.next().await.expect("notice");
        assert!(text.starts_with(b"event: reconnect\n"), "{text:?}");
        out.end(Some(Error::not_found("x")));
        let text = events.next().await.expect("the end");
        assert!(text.starts_with(b"event: error\ndata: {\"error\":{\"code\":404"), "{text:?}");
        assert_eq!(events.next().await, None);
    }
}
