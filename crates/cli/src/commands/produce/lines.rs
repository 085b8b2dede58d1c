//! Lines of standard input as records.

use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use bytes::Bytes;
use serde::de::IgnoredAny;
use sluice_proto::stream::v1::{ProduceRecord, header, produce_record};
use sluice_types::limits::RECORD_BYTES_MAX;
use sluice_types::record::logical_bytes;
use tokio::io::{AsyncBufReadExt, BufReader, Stdin};

use super::members::{Members, payload};
use super::record;
use crate::args::{InputFormat, Produce};
use crate::failure::Usage;
use crate::input;

/// Longest line: a record of which every byte is escaped (`\u0001`), with room for what is around it.
const LINE_BYTES_MAX: usize = 8 << 20;

/// How long a pause of the input is waited out before a batch goes as it is.
const PAUSE: Duration = Duration::from_millis(5);

/// Records, and the numbers of the lines that they came from.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<ProduceRecord>,
    pub(super) lines: Vec<u64>,
}

/// Where a batch ended.
pub(super) enum End {
    /// There is more.
    NotYet,
    /// At the end of the input.
    OfInput,
    /// At a line that is no record.
    Wrong(Error),
}

/// The reader of lines.
pub(super) struct Lines {
    input: BufReader<Stdin>,
    format: InputFormat,
    key_separator: Option<String>,
    key_field: Option<String>,
    partition: Option<i32>,
    number: u64,
}

impl Lines {
    pub(super) fn new(command: &Produce) -> Result<Self> {
        if command.key_separator.is_some() && command.format != InputFormat::Lines {
            bail!(Usage("--key-separator goes with --format lines".into()));
        }
        if command.key_field.is_some() && command.format != InputFormat::Json {
            bail!(Usage("--key-field goes with --format json".into()));
        }
        Ok(Self {
            input: BufReader::with_capacity(1 << 16, tokio::io::stdin()),
            format: command.format,
            key_separator: command.key_separator.clone(),
            key_field: command.key_field.clone(),
            partition: command.partition,
            number: 0,
        })
    }

    /// Up to `count` records or about `bytes` of payload, and whether there is more. Does not wait for a whole batch when
    /// input pauses: what is there goes out.
    pub(super) async fn batch(&mut self, count: usize, bytes: usize) -> (Batch, End) {
        let mut batch = Batch::default();
        let mut size = 0;
        while batch.records.len() < count && size < bytes {
            if !batch.records.is_empty() && self.input.buffer().is_empty() {
                let more = tokio::time::timeout(PAUSE, self.input.fill_buf()).await;
                if more.is_err() {
                    break;
                }
            }
            let line = match input::line(&mut self.input, LINE_BYTES_MAX, &mut self.number).await {
                Ok(Some(line)) => line,
                Ok(None) => return (batch, End::OfInput),
                Err(error) => return (batch, End::Wrong(error)),
            };
            size += line.len();
            match self.record(line).with_context(|| format!("line {}", self.number)) {
                Ok(record) => {
                    batch.records.push(ProduceRecord { partition: self.partition.or(record.partition), ..record });
                    batch.lines.push(self.number);
                }
                Err(error) => return (batch, End::Wrong(error)),
            }
        }
        (batch, End::NotYet)
    }

    fn record(&self, line: Vec<u8>) -> Result<ProduceRecord> {
        let record = match self.format {
            InputFormat::Lines => {
                refuse_nul(&line)?;
                self.plain(line)
            }
            InputFormat::Json => self.document(line)?,
            InputFormat::Ndjson => record::parse(&line)?,
        };
        check(&record)?;
        Ok(record)
    }

    fn plain(&self, line: Vec<u8>) -> ProduceRecord {
        let separator = self.key_separator.as_deref().unwrap_or_default().as_bytes();
        let at = (!separator.is_empty()).then(|| line.windows(separator.len()).position(|part| part == separator));
        match at.flatten() {
            Some(at) => ProduceRecord {
                key_kind: Some(produce_record::KeyKind::Key(Bytes::copy_from_slice(&line[..at]))),
                value_kind: Some(value(Bytes::copy_from_slice(&line[at + separator.len()..]))),
                ..Default::default()
            },
            None => ProduceRecord { value_kind: Some(value(line.into())), ..Default::default() },
        }
    }

    fn document(&self, line: Vec<u8>) -> Result<ProduceRecord> {
        let _: IgnoredAny = serde_json::from_slice(&line).context("not JSON")?;
        let key = match &self.key_field {
            Some(name) => field(&line, name)?,
            None => None,
        };
        Ok(ProduceRecord {
            key_kind: key.map(|key| produce_record::KeyKind::Key(key.into())),
            value_kind: Some(value(line.into())),
            ..Default::default()
        })
    }
}

/// Text has no NUL: most often it is UTF-16 without the mark that says so.
fn refuse_nul(line: &[u8]) -> Result<()> {
    if line.contains(&0) {
        bail!(
            "has a NUL byte, so it is no line of text; convert UTF-16 to UTF-8 first, e.g. with iconv -f UTF-16LE -t UTF-8; bytes go \
             in as base64: --format ndjson with {{\"value\": \"…\", \"headers\": []}}"
        );
    }
    Ok(())
}

/// A record that the server would refuse, with all others of its call.
fn check(record: &ProduceRecord) -> Result<()> {
    let key = match &record.key_kind {
        Some(produce_record::KeyKind::Key(key)) => Some(key.as_ref()),
        _ => None,
    };
    let value = match &record.value_kind {
        Some(produce_record::ValueKind::Value(value)) => Some(value.as_ref()),
        _ => None,
    };
    let headers = record.headers.iter().map(|header| {
        let value = header.value.as_ref().map(|value| match value {
            header::Value::Text(text) => text.as_bytes(),
            header::Value::Bytes(bytes) => bytes.as_ref(),
        });
        (header.name.as_bytes(), value)
    });
    let bytes = logical_bytes(key, value, headers);
    if bytes > RECORD_BYTES_MAX as u64 {
        bail!(
            "the record has {bytes} bytes; key, value and headers together may have {RECORD_BYTES_MAX}: split it, or publish \
             a reference to where the data is"
        );
    }
    Ok(())
}

fn value(bytes: Bytes) -> produce_record::ValueKind {
    produce_record::ValueKind::Value(bytes)
}

/// The field of a JSON document as a key; of repeated ones the last, as common parsers have it.
fn field(document: &[u8], field: &str) -> Result<Option<String>> {
    // A document that is no object has no fields.
    let Ok(Members(members)) = serde_json::from_slice(document) else { return Ok(None) };
    match members.iter().rev().find(|(name, _)| name == field) {
        Some((_, raw)) => payload(raw).with_context(|| format!("{field}: not a text of whole characters")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::stream::v1::Header;

    use super::*;

    #[test]
    fn a_key_of_a_document_keeps_its_digits() {
        let key = |document: &str| field(document.as_bytes(), "id").expect("JSON");
        assert_eq!(key(r#"{"id":1234567890.123456789}"#).as_deref(), Some("1234567890.123456789"));
        assert_eq!(key(r#"{"id":"a\u0062"}"#).as_deref(), Some("ab"));
        assert_eq!(key(r#"{"id":{"a": 0.10}}"#).as_deref(), Some(r#"{"a": 0.10}"#));
        for none in [r#"{"id":null}"#, "{}", "[1]", "7"] {
            assert_eq!(key(none), None, "{none}");
        }
    }

    #[test]
    fn a_line_with_a_nul_byte_is_no_text() {
        assert!(refuse_nul("größer\t1".as_bytes()).is_ok());
        for utf16 in [&b"a\0b\0"[..], b"\0b\0"] {
            let error = refuse_nul(utf16).expect_err("UTF-16").to_string();
            assert!(error.contains("iconv") && error.contains("ndjson"), "{error}");
        }
    }

    #[test]
    fn a_record_over_the_limit_is_told_before_it_is_sent() {
        let of =
            |bytes: usize| ProduceRecord { value_kind: Some(value(vec![b'x'; bytes].into())), ..Default::default() };
        assert!(check(&of(RECORD_BYTES_MAX)).is_ok());
        assert!(check(&of(RECORD_BYTES_MAX + 1)).is_err());
        let header = Header { name: "n".into(), value: None };
        assert!(check(&ProduceRecord { headers: vec![header], ..of(RECORD_BYTES_MAX) }).is_err(), "headers count");
    }
}
