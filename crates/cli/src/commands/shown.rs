//! Records as a person or a program reads them.
//!
//! Bytes come from the server as they are and are put into words here, because a JSON number that went through a
//! floating-point number on its way would not be the one that was published.

use std::io::Write;

use anyhow::Result;
use base64::Engine as _;
use serde_json::{Value, json};
use sluice_proto::stream::v1::{Header, Record, header, record};
use sluice_proto::wkt::Timestamp;

use crate::args::Output;
use crate::args::consume::Encoding;
use crate::output::printable;
use crate::when;

/// A record with its key and value as the bytes they were published as.
#[derive(Clone, Copy)]
pub(super) struct Payload<'a> {
    record: &'a Record,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    encoding: Encoding,
}

impl<'a> Payload<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        let key = match &record.key_kind {
            Some(record::KeyKind::Key(bytes)) => Some(bytes.as_ref()),
            _ => None,
        };
        let value = match &record.value_kind {
            Some(record::ValueKind::Value(bytes)) => Some(bytes.as_ref()),
            _ => None,
        };
        Self { record, key, value, encoding: Encoding::Json }
    }

    pub(super) fn encoded(self, encoding: Encoding) -> Self {
        Self { encoding, ..self }
    }

    /// When it was published.
    pub(super) fn time(&self) -> String {
        when::shown(self.record.timestamp.as_ref())
    }

    /// `key  value  headers`.
    pub(super) fn words(&self) -> String {
        let headers: String =
            self.record.headers.iter().map(|header| format!("  {}", header_words(header, self.encoding))).collect();
        let value = self.value.map_or("(null)".into(), |value| words(value, self.encoding));
        format!("{}  {value}{headers}", self.key_words())
    }

    /// The key; `-` for null.
    pub(super) fn key_words(&self) -> String {
        self.key.map_or("-".into(), |key| words(key, self.encoding))
    }

    /// Key, value and headers as members of a JSON object, each with a comma before it.
    pub(super) fn members(&self) -> String {
        let headers: Vec<Value> = self.record.headers.iter().map(|header| header_json(header, self.encoding)).collect();
        let (key, value) = (field("key", self.key, self.encoding), field("value", self.value, self.encoding));
        format!("{key}{value},\"headers\":{}", Value::from(headers))
    }

    /// The JSON of the HTTP API with `encoding=JSON`; `produce --format ndjson` makes the same record of it.
    pub(super) fn json(&self) -> String {
        format!(
            "{{\"partition\":{},\"offset\":\"{}\"{}{}}}",
            self.record.partition,
            self.record.offset,
            time_member("timestamp", self.record.timestamp.as_ref()),
            self.members(),
        )
    }
}

/// Writes a record: `partition/offset  time  key  value  headers`, or its JSON.
pub(super) fn write_record(out: &mut impl Write, output: Output, record: Payload<'_>) -> Result<()> {
    match output {
        Output::Table => {
            let Record { partition, offset, .. } = record.record;
            writeln!(out, "{partition}/{offset}  {}  {}", record.time(), record.words())?;
        }
        Output::Json => writeln!(out, "{}", record.json())?,
    }
    Ok(())
}

/// `,"name":"time"`; nothing for a time that there is not.
pub(super) fn time_member(name: &str, time: Option<&Timestamp>) -> String {
    let time = time.map(|time| when::shown(Some(time))).filter(|time| time != "-");
    time.map_or_else(String::new, |time| format!(",\"{name}\":\"{time}\""))
}

/// `,"valueJson":…`, `,"valueText":"…"` or `,"value":"base64"`; nothing for null.
fn field(name: &str, bytes: Option<&[u8]>, encoding: Encoding) -> String {
    let Some(bytes) = bytes else { return String::new() };
    match text(bytes, encoding) {
        Some(text) if encoding == Encoding::Json && is_json(text) => format!(",\"{name}Json\":{text}"),
        Some(text) => format!(",\"{name}Text\":{}", Value::from(text)),
        None => format!(",\"{name}\":\"{}\"", base64(bytes)),
    }
}

/// Whether a text may stand in a line as JSON and stays what was published. The text `null` would be taken for no value, and
/// white space around it or a line break would be lost.
fn is_json(text: &str) -> bool {
    let may_be = text != "null" && text.trim() == text && !text.contains(['\n', '\r']);
    // Parsed, as a reader does it: broken surrogates and numbers beyond a double's range are no JSON to most.
    may_be && serde_json::from_str::<Value>(text).is_ok()
}

fn header_json(header: &Header, encoding: Encoding) -> Value {
    let Some(bytes) = header_bytes(header) else { return json!({"name": header.name}) };
    match text(bytes, encoding) {
        Some(text) => json!({"name": header.name, "text": text}),
        None => json!({"name": header.name, "bytes": base64(bytes)}),
    }
}

fn header_words(header: &Header, encoding: Encoding) -> String {
    let name = printable(&header.name);
    match header_bytes(header) {
        None => name,
        Some(bytes) => format!("{name}={}", words(bytes, encoding)),
    }
}

fn header_bytes(header: &Header) -> Option<&[u8]> {
    match header.value.as_ref()? {
        header::Value::Text(text) => Some(text.as_bytes()),
        header::Value::Bytes(bytes) => Some(bytes),
    }
}

fn words(bytes: &[u8], encoding: Encoding) -> String {
    text(bytes, encoding).map_or_else(|| format!("base64:{}", base64(bytes)), printable)
}

/// The bytes as text, if they are and may be.
fn text(bytes: &[u8], encoding: Encoding) -> Option<&str> {
    if encoding == Encoding::Bytes { None } else { std::str::from_utf8(bytes).ok() }
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_shown_as_it_was_published_and_on_one_line() {
        let field = |name, bytes| field(name, bytes, Encoding::Json);
        assert_eq!(
            field("value", Some(b"{\"id\":12345678901234567890, \"x\":1.10}")),
            ",\"valueJson\":{\"id\":12345678901234567890, \"x\":1.10}"
        );
        assert_eq!(field("value", Some(b"{\n}")), ",\"valueText\":\"{\\n}\"", "it would not be the same bytes");
        assert_eq!(field("value", Some(b"007")), ",\"valueText\":\"007\"");
        assert_eq!(field("value", Some(b"null")), ",\"valueText\":\"null\"", "null is no value");
        assert_eq!(field("value", Some(b"1e5")), ",\"valueJson\":1e5");
        assert_eq!(field("key", Some(b"007")), ",\"keyText\":\"007\"");
        assert_eq!(field("key", Some(&[0xff])), ",\"key\":\"/w==\"");
        assert_eq!(field("key", None), "");
    }

    #[test]
    fn the_encoding_that_was_asked_for_is_kept_to() {
        assert_eq!(field("value", Some(b"{}"), Encoding::Text), ",\"valueText\":\"{}\"");
        assert_eq!(field("value", Some(b"{}"), Encoding::Bytes), ",\"value\":\"e30=\"");
        assert_eq!(words(b"{}", Encoding::Bytes), "base64:e30=");
    }

    #[test]
    fn what_others_wrote_does_not_steer_the_terminal() {
        assert_eq!(words(b"a\x1b[2Jb\nc", Encoding::Text), "a\\u{1b}[2Jb\\nc");
    }
}
