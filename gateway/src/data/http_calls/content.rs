//! What a produce call's body is, by its content type; and what is refused because it looks like a mistake.
//!
//! A type that is not ours means one raw record, so whoever sends many records under such a type would find them stored as one.
//! Types of other APIs and of line formats are refused by their names; text and other JSON is refused if it is a batch of ours.

use http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::IgnoredAny;

use sluice_types::error::Error;

use super::{JSON, PROTOBUF};

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
    /// The same, in a type under which a batch in JSON may be sent by mistake.
    RawText,
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
        text if text.starts_with("text/") || text.ends_with("json") => Ok(Kind::RawText),
        _ => Ok(Kind::Raw),
    }
}

/// Refuses a batch that came as text.
pub(super) fn refuse_batch(body: &[u8]) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Batch {
        #[serde(rename = "records")]
        _records: Vec<IgnoredAny>,
    }
    let is_object = body.trim_ascii_start().starts_with(b"{");
    match is_object && serde_json::from_slice::<Batch>(body).is_ok() {
        false => Ok(()),
        true => Err(Error::invalid(
            "content-type",
            format!("the body looks like a batch of records; send it as {JSON}, or as {RAW} to store it as one record"),
        )),
    }
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
            (Some("text/plain"), Kind::RawText),
            (Some("text/json"), Kind::RawText),
            (Some("application/cloudevents+json"), Kind::RawText),
            (Some("application/xml"), Kind::Raw),
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
        ];
        for sent in types {
            let error = kind(&headers(Some(sent))).expect_err(sent);
            assert_eq!(error.field.as_deref(), Some("content-type"));
            assert!(error.message.contains(JSON) && error.message.contains(RAW), "{}", error.message);
        }
    }

    #[test]
    fn a_batch_that_says_it_is_text_is_no_record() {
        assert!(refuse_batch(br#" {"records":[{"value":{"a":1}}]}"#).is_err());
        for record in [&br#"{"a":1}"#[..], br#"{"records":"none"}"#, b"records", b"[1]", b"{", b""] {
            assert!(refuse_batch(record).is_ok(), "{}", String::from_utf8_lossy(record));
        }
    }
}
