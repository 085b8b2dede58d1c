//! What a produce call's body is, by its content type; and what is refused because it looks like a mistake.
//!
//! A type that is not ours means one raw record, so whoever sends many records under such a type would find them stored as one.
//! Types of other APIs and of line formats are refused by their names; any other type is refused if the body is a batch of ours. Only
//! `application/octet-stream` says for certain that the body is one record.

use http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::IgnoredAny;

use sluice_types::error::Error;

use super::{JSON, PROTOBUF};
use crate::data::json;

const RAW: &str = "application/octet-stream";

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request in JSON.
    Json,
    /// The request.
    Protobuf,
    /// One record's value.
    Raw,
    /// The same, in any type but the one for bytes: a batch in JSON may be sent so by mistake.
    RawUnlessBatch,
}

pub(super) fn kind(headers: &HeaderMap) -> Result<Kind, Error> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Kind::Json) };
    let text = value.to_str().map_err(|_| Error::invalid("content-type", "must be ASCII"))?;
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "" | JSON => Ok(Kind::Json),
        PROTOBUF | "application/protobuf" | "application/vnd.google.protobuf" => Ok(Kind::Protobuf),
        form if form == "application/x-www-form-urlencoded" || form.starts_with("multipart/") => {
            Err(other(form, "is a form"))
        }
        kafka if kafka.starts_with("application/vnd.kafka.") => Err(other(
            kafka,
            "is the format of another API, whose keys and values have other names here: keyJson, valueJson, key, value",
        )),
        api @ "application/vnd.api+json" => Err(other(api, "is the format of another API")),
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines"
        | "application/json-seq"
        | "application/cloudevents-batch+json" => Err(other(&essence, "holds many records")),
        seq if seq.ends_with("+json-seq") => Err(other(seq, "holds many records")),
        RAW => Ok(Kind::Raw),
        _ => Ok(Kind::RawUnlessBatch),
    }
}

/// Refuses a batch that came as something else, also one with a fault in it.
pub(super) fn refuse_batch(body: &[u8]) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Batch {
        #[serde(rename = "records")]
        _records: Vec<IgnoredAny>,
    }
    // As JSON text sequences begin.
    let text = body.strip_prefix(b"\x1e").unwrap_or(body);
    let text = json::without_mark(text).trim_ascii_start();
    let is_batch = || begins_as_batch(text) || serde_json::from_slice::<Batch>(text).is_ok();
    match text.starts_with(b"{") && is_batch() {
        false => Ok(()),
        true => Err(Error::invalid(
            "content-type",
            format!("the body looks like a batch of records; send it as {JSON}, or as {RAW} to store it as one record"),
        )),
    }
}

/// `{"records":[`, with whatever quotes.
fn begins_as_batch(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    let quotes = [&b"\""[..], b"'", b""];
    let quoted = |quote: &[u8]| text?.strip_prefix(quote)?.strip_prefix(b"records")?.strip_prefix(quote);
    let rest = quotes.into_iter().find_map(quoted).map(<[u8]>::trim_ascii_start);
    let rest = rest.and_then(|rest| rest.strip_prefix(b":")).map(<[u8]>::trim_ascii_start);
    rest.is_some_and(|rest| rest.starts_with(b"["))
}

fn other(essence: &str, what: &str) -> Error {
    let what = format!("{essence} {what}; send {JSON} with \"records\" for a batch, or {RAW} for one raw record");
    Error::invalid("content-type", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: Option<&str>) -> HeaderMap {
        let value = value.map(|value| (header::CONTENT_TYPE, value.parse().expect("header")));
        value.into_iter().collect()
    }

    #[test]
    fn the_content_type_decides_what_a_body_is() {
        let kinds = [
            (None, Kind::Json),
            (Some("application/json; charset=utf-8"), Kind::Json),
            (Some("Application/X-Protobuf"), Kind::Protobuf),
            (Some("text/plain"), Kind::RawUnlessBatch),
            (Some("text/json"), Kind::RawUnlessBatch),
            (Some("application/cloudevents+json"), Kind::RawUnlessBatch),
            (Some("application/json5"), Kind::RawUnlessBatch),
            (Some("application/xml"), Kind::RawUnlessBatch),
            (Some("*/*"), Kind::RawUnlessBatch),
            (Some("application/octet-stream"), Kind::Raw),
        ];
        for (value, expected) in kinds {
            assert_eq!(kind(&headers(value)).expect("known"), expected, "{value:?}");
        }
    }

    #[test]
    fn what_looks_like_a_mistake_is_refused_with_what_to_send() {
        let types = [
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/vnd.kafka.json.v2+json",
            "application/vnd.kafka.binary.v2+json",
            "application/vnd.api+json",
            "application/x-ndjson",
            "application/geo+json-seq",
        ];
        for sent in types {
            let error = kind(&headers(Some(sent))).expect_err(sent);
            assert_eq!(error.field.as_deref(), Some("content-type"));
            assert!(error.message.contains(JSON) && error.message.contains(RAW), "{}", error.message);
        }
    }

    #[test]
    fn a_batch_that_says_it_is_something_else_is_no_record() {
        for batch in [
            &br#" {"records":[{"value":{"a":1}}]}"#[..],
            br#"{"topic":"x","records":[]}"#,
            b"\xef\xbb\xbf{\"records\":[]}",
            b"\x1e{\"records\": [",
            b"{ records: [{valueText: 'json5',}]}",
            b"{'records':[]}",
        ] {
            assert!(refuse_batch(batch).is_err(), "{}", String::from_utf8_lossy(batch));
        }
        for record in
            [&br#"{"a":1}"#[..], br#"{"records":"none"}"#, b"{\"recordset\":[]}", b"records", b"[1]", b"{", b""]
        {
            assert!(refuse_batch(record).is_ok(), "{}", String::from_utf8_lossy(record));
        }
    }
}
