//! A record as a line.
//!
//! Bytes come from the server as they are and are put into words here, because a JSON number that went through a
//! floating-point number on its way would not be the one that was published.

use std::io::Write;

use anyhow::Result;
use base64::Engine as _;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sluice_proto::stream::v1::{Header, Record, header, record};

use crate::args::{Global, Output};
use crate::output::printable;
use crate::when;

/// Writes a record: `partition/offset  time  key  value  headers`, or the JSON of the HTTP API with `encoding=JSON`.
pub(super) fn write_record(global: &Global, out: &mut impl Write, record: &Record) -> Result<()> {
    let key = match &record.key_kind {
        Some(record::KeyKind::Key(bytes)) => Some(bytes.as_ref()),
        _ => None,
    };
    let value = match &record.value_kind {
        Some(record::ValueKind::Value(bytes)) => Some(bytes.as_ref()),
        _ => None,
    };
    let time = when::shown(record.timestamp.as_ref());
    match global.output {
        Output::Table => {
            let headers: String = record.headers.iter().map(|header| format!("  {}", header_words(header))).collect();
            let (key, value) = (key.map_or("-".into(), words), value.map_or("(null)".into(), words));
            writeln!(out, "{}/{}  {time}  {key}  {value}{headers}", record.partition, record.offset)?;
        }
        Output::Json => {
            let headers: Vec<Value> = record.headers.iter().map(header_json).collect();
            let (key, value) = (field("key", key), field("value", value));
            writeln!(
                out,
                "{{\"partition\":{},\"offset\":\"{}\",\"timestamp\":\"{time}\"{key}{value},\"headers\":{}}}",
                record.partition,
                record.offset,
                Value::from(headers),
            )?;
        }
    }
    Ok(())
}

/// `,"valueJson":…`, `,"valueText":"…"` or `,"value":"base64"`; nothing for null.
fn field(name: &str, bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return String::new() };
    match std::str::from_utf8(bytes) {
        Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            // A line break in JSON stands between its tokens only.
            format!(",\"{name}Json\":{}", text.trim().replace(['\n', '\r'], " "))
        }
        Ok(text) => format!(",\"{name}Text\":{}", Value::from(text)),
        Err(_) => format!(",\"{name}\":\"{}\"", base64(bytes)),
    }
}

fn header_json(header: &Header) -> Value {
    match &header.value {
        None => json!({"name": header.name}),
        Some(header::Value::Text(text)) => json!({"name": header.name, "text": text}),
        Some(header::Value::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => json!({"name": header.name, "text": text}),
            Err(_) => json!({"name": header.name, "bytes": base64(bytes)}),
        },
    }
}

fn header_words(header: &Header) -> String {
    let name = printable(&header.name);
    match &header.value {
        None => name,
        Some(header::Value::Text(text)) => format!("{name}={}", printable(text)),
        Some(header::Value::Bytes(bytes)) => format!("{name}={}", words(bytes)),
    }
}

fn words(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => printable(text),
        Err(_) => format!("base64:{}", base64(bytes)),
    }
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_shown_as_it_was_published_and_on_one_line() {
        assert_eq!(
            field("value", Some(b"{\"id\":12345678901234567890,\n\"x\":1.10}")),
            ",\"valueJson\":{\"id\":12345678901234567890, \"x\":1.10}"
        );
        assert_eq!(field("value", Some(b"007")), ",\"valueText\":\"007\"");
        assert_eq!(field("key", Some(&[0xff])), ",\"key\":\"/w==\"");
        assert_eq!(field("key", None), "");
    }

    #[test]
    fn what_others_wrote_does_not_steer_the_terminal() {
        assert_eq!(words(b"a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
    }
}
