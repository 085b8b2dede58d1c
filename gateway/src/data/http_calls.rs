//! The hot routes over HTTP.
//!
//! Produce takes, by content type:
//! - `application/json` (or none): the request message in JSON; JSON payloads keep their digits (see [`json`]);
//! - `application/x-protobuf`: the request message; the answer comes so, too;
//! - `application/x-www-form-urlencoded` and `multipart/…` are refused: they are what tools send unasked; so are formats of other
//!   APIs and of many records in one body, and a batch in JSON under any type but `application/octet-stream` (see [`content`]);
//! - anything else: one record whose value is the body as it is. Its key is `?key=`, its partition `?partition=`, its time
//!   `?timestamp=` (RFC 3339), and each header `x-record-header-{name}` one of its headers. Header names arrive in lower case.
//!
//! The answer is 200 when every record is PERSISTED, 207 when one is not: each result says which.
//!
//! Fetch is the request message as query parameters; beside the canonical forms it takes `offset=earliest`, `offset=latest`,
//! `wait_ms=`, and enum values without their prefix (`encoding=JSON`). `accept: application/x-protobuf` gets the message.

mod content;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::Full;
use prost::Message;
use serde::Serialize;

use sluice_edge::Body;
use sluice_edge::query::pairs;
use sluice_proto::stream::v1::produce_record::{KeyKind, ValueKind};
use sluice_proto::stream::v1::{FetchRequest, Header, Outcome, ProduceRecord, ProduceRequest, header as record_header};
use sluice_proto::{Audience, RouteMatch, TranscodeError, decode_request, match_route};
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

use crate::access::DataCall;
use crate::data::fetch::Form;
use crate::data::http_calls::content::Kind;
use crate::data::{Data, json};

pub(crate) const PROTOBUF: &str = "application/x-protobuf";
pub(crate) const JSON: &str = "application/json";
/// Request headers that become record headers.
const RECORD_HEADER_PREFIX: &str = "x-record-header-";

/// An HTTP call on a hot route: the body is whole, inflated and within the body limit.
pub(crate) struct HttpCall {
    /// Method, URI with query, headers, extensions.
    pub(crate) parts: http::request::Parts,
    /// The path's variable `topic`, percent-decoded, e.g. `namespaces/prod/topics/orders`; its grammar is not checked yet.
    pub(crate) topic: String,
    /// The body.
    pub(crate) body: Bytes,
    /// The authenticated call.
    pub(crate) call: Arc<DataCall>,
}

impl Data {
    /// `POST …/records`: JSON, or a raw record, or protobuf, by content type.
    pub(crate) async fn http_produce(&self, call: HttpCall) -> Result<http::Response<Body>, Error> {
        let kind = content::kind(&call.parts.headers)?;
        // Whether the caller may know the topic comes before what is wrong with its request.
        call.call.topic("topic", &call.topic)?;
        let protobuf = kind == Kind::Protobuf || accepts_protobuf(&call.parts.headers);
        let request = match kind {
            Kind::Json => from_json(&call)?,
            Kind::Protobuf => from_protobuf(&call)?,
            Kind::Raw => raw(&call)?,
            Kind::RawUnlessBatch => {
                content::refuse_batch(&call.body)?;
                raw(&call)?
            }
        };
        let response = self.produce_records(&call.call, request).await?;
        let persisted = |result: &sluice_proto::stream::v1::RecordResult| result.outcome() == Outcome::Persisted;
        let status = if response.results.iter().all(persisted) { StatusCode::OK } else { StatusCode::MULTI_STATUS };
        answer(status, &response, protobuf)
    }

    /// `GET …/records`.
    pub(crate) async fn http_fetch(&self, call: HttpCall) -> Result<http::Response<Body>, Error> {
        call.call.topic("topic", &call.topic)?;
        let protobuf = accepts_protobuf(&call.parts.headers);
        let query = spelled_out(pairs(&call.parts.uri)?)?;
        let request: FetchRequest = decode_request(&route(&call)?, &query, &call.body).map_err(unreadable)?;
        let form = if protobuf { Form::Message } else { Form::Json };
        let mut found = self.fetch_records(&call.call, request, form).await?;
        let parcel = found.parcel.take();
        let mut response = match protobuf {
            true => answer(StatusCode::OK, &found.into_message(), true)?,
            false => respond(StatusCode::OK, found.into_json()?, JSON),
        };
        parcel.map(|parcel| response.extensions_mut().insert(parcel));
        Ok(response)
    }
}

/// Whether the answer shall be a message.
pub(crate) fn accepts_protobuf(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).is_some_and(|value| value == PROTOBUF)
}

fn from_json(call: &HttpCall) -> Result<ProduceRequest, Error> {
    no_query(call)?;
    let sent = json::without_mark(&call.body);
    let taken = json::take(sent)?;
    let body = taken.as_ref().map_or(sent, |taken| &taken.body);
    // The quick way first; what it refuses is read again by the careful one, which knows where the fault is.
    let quick = serde_json::from_slice::<ProduceRequest>(body).ok();
    let mut request = match quick.filter(|request| request.topic.is_empty() || request.topic == call.topic) {
        Some(request) => request,
        None => decode_request(&route(call)?, &[], body).map_err(unreadable)?,
    };
    if let Some(taken) = taken {
        taken.put_back(&mut request.records);
    }
    Ok(ProduceRequest { topic: call.topic.clone(), ..request })
}

fn from_protobuf(call: &HttpCall) -> Result<ProduceRequest, Error> {
    no_query(call)?;
    let request = ProduceRequest::decode(call.body.clone()).map_err(|error| {
        let what = format!("the body is not a sluice.stream.v1.ProduceRequest: {error}");
        Error::new(ErrorKind::InvalidArgument, Reason::MalformedBody, what)
    })?;
    if !request.topic.is_empty() && request.topic != call.topic {
        return Err(Error::invalid("topic", format!("differs from the path, which says {:?}", call.topic)));
    }
    Ok(ProduceRequest { topic: call.topic.clone(), ..request })
}

fn no_query(call: &HttpCall) -> Result<(), Error> {
    match pairs(&call.parts.uri)?.first() {
        None => Ok(()),
        Some((name, _)) => Err(Error::invalid(
            name.clone(),
            "belongs in the body: only a raw record (neither JSON nor protobuf) takes query parameters",
        )),
    }
}

fn raw(call: &HttpCall) -> Result<ProduceRequest, Error> {
    let mut record =
        ProduceRecord { value_kind: Some(ValueKind::Value(call.body.clone())), ..ProduceRecord::default() };
    for (name, value) in pairs(&call.parts.uri)? {
        match name.as_str() {
            "key" if record.key_kind.is_none() => record.key_kind = Some(KeyKind::KeyText(value)),
            "partition" if record.partition.is_none() => {
                let partition = value.parse().map_err(|_| Error::invalid("partition", "must be a whole number"))?;
                record.partition = Some(partition);
            }
            "timestamp" if record.timestamp.is_none() => {
                let time = serde_json::from_value(value.into());
                record.timestamp =
                    Some(time.map_err(|_| Error::invalid("timestamp", "must be RFC 3339, e.g. 2026-11-21T12:00:00Z"))?);
            }
            "key" | "partition" | "timestamp" => return Err(Error::invalid(name, "is given twice; send it once")),
            _ => {
                return Err(Error::invalid(
                    name,
                    "no such query parameter; a raw record takes key, partition and timestamp",
                ));
            }
        }
    }
    for (name, value) in &call.parts.headers {
        if let Some(name) = name.as_str().strip_prefix(RECORD_HEADER_PREFIX) {
            let value = record_header::Value::Bytes(Bytes::copy_from_slice(value.as_bytes()));
            record.headers.push(Header { name: name.to_owned(), value: Some(value) });
        }
    }
    Ok(ProduceRequest { topic: call.topic.clone(), records: vec![record] })
}

/// The query with short forms spelled out.
fn spelled_out(pairs: Vec<(String, String)>) -> Result<Vec<(String, String)>, Error> {
    let prefixed = |prefix: &str, value: &str| match value.starts_with(prefix) || value.parse::<i32>().is_ok() {
        true => value.to_owned(),
        false => format!("{prefix}{}", value.to_ascii_uppercase()),
    };
    let spell = |(name, value): (String, String)| {
        Ok(match (name.as_str(), value.as_str()) {
            ("offset", "earliest" | "latest") => ("position".to_owned(), prefixed("POSITION_", &value)),
            ("position", _) => (name, prefixed("POSITION_", &value)),
            ("encoding", _) => (name, prefixed("PAYLOAD_ENCODING_", &value)),
            ("isolation", _) => (name, prefixed("ISOLATION_", &value)),
            ("wait_ms" | "waitMs", _) => {
                let millis: u32 =
                    value.parse().map_err(|_| Error::invalid(name, "must be a number of milliseconds"))?;
                ("wait".to_owned(), format!("{}.{:03}s", millis / 1_000, millis % 1_000))
            }
            _ => (name, value),
        })
    };
    pairs.into_iter().map(spell).collect()
}

fn route(call: &HttpCall) -> Result<RouteMatch, Error> {
    match_route(Audience::Tenant, &call.parts.method, call.parts.uri.path())
        .map_err(|_| Error::internal("a hot route that the route table does not know"))
}

fn unreadable(error: TranscodeError) -> Error {
    match error.field.as_str() {
        "" => Error::new(ErrorKind::InvalidArgument, Reason::MalformedBody, error.to_string()),
        field => Error::invalid(field, &error.reason),
    }
}

fn answer<M: Message + Serialize>(
    status: StatusCode,
    message: &M,
    protobuf: bool,
) -> Result<http::Response<Body>, Error> {
    let (body, kind) = match protobuf {
        true => (message.encode_to_vec(), PROTOBUF),
        false => (serde_json::to_vec(message).map_err(Error::internal)?, JSON),
    };
    Ok(respond(status, body, kind))
}

/// An answer with this body of this content type.
pub(crate) fn respond(status: StatusCode, body: Vec<u8>, kind: &'static str) -> http::Response<Body> {
    let mut response = http::Response::new(Body::new(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_mean_what_their_long_ones_mean() {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let spelled = spelled_out(pairs(&[
            ("offset", "earliest"),
            ("wait_ms", "1500"),
            ("encoding", "json"),
            ("isolation", "ISOLATION_READ_COMMITTED"),
            ("partition", "1"),
        ]));
        let wanted: Vec<(String, String)> = pairs(&[
            ("position", "POSITION_EARLIEST"),
            ("wait", "1.500s"),
            ("encoding", "PAYLOAD_ENCODING_JSON"),
            ("isolation", "ISOLATION_READ_COMMITTED"),
            ("partition", "1"),
        ]);
        assert_eq!(spelled.expect("good"), wanted);
        assert!(spelled_out(pairs(&[("wait_ms", "soon")])).is_err());
        let number = spelled_out(pairs(&[("offset", "17")])).expect("good");
        assert_eq!(number, pairs(&[("offset", "17")]));
    }
}
