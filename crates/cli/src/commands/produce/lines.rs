//! Lines of standard input as records.

use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use bytes::Bytes;
use serde_json::Value;
use sluice_proto::stream::v1::{Header, ProduceRecord, header, produce_record};
use tokio::io::{AsyncBufReadExt, BufReader, Stdin};

use crate::args::{InputFormat, Produce};
use crate::failure::Usage;
use crate::input;

/// Longest line: a record's limit with room for JSON around it.
const LINE_BYTES_MAX: usize = 2 << 20;

/// How long a pause of the input is waited out before a batch goes as it is.
const PAUSE: Duration = Duration::from_millis(5);

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
    pub(super) async fn batch(&mut self, count: usize, bytes: usize) -> (Vec<ProduceRecord>, End) {
        let mut records = Vec::new();
        let mut size = 0;
        while records.len() < count && size < bytes {
            if !records.is_empty() && self.input.buffer().is_empty() {
                let more = tokio::time::timeout(PAUSE, self.input.fill_buf()).await;
                if more.is_err() {
                    break;
                }
            }
            let line = match input::line(&mut self.input, LINE_BYTES_MAX, &mut self.number).await {
                Ok(Some(line)) => line,
                Ok(None) => return (records, End::OfInput),
                Err(error) => return (records, End::Wrong(error)),
            };
            size += line.len();
            match self.record(line).with_context(|| format!("line {}", self.number)) {
                Ok(record) => records.push(ProduceRecord { partition: record.partition.or(self.partition), ..record }),
                Err(error) => return (records, End::Wrong(error)),
            }
        }
        (records, End::NotYet)
    }

    fn record(&self, line: Vec<u8>) -> Result<ProduceRecord> {
        match self.format {
            InputFormat::Lines => Ok(self.plain(line)),
            InputFormat::Json => self.document(line),
            InputFormat::Ndjson => object(&line),
        }
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
        let document: Value = serde_json::from_slice(&line).context("not JSON")?;
        let key = match &self.key_field {
            Some(field) => document.get(field).filter(|key| !key.is_null()).map(text_of),
            None => None,
        };
        Ok(ProduceRecord {
            key_kind: key.map(|key| produce_record::KeyKind::Key(key.into())),
            value_kind: Some(value(line.into())),
            ..Default::default()
        })
    }
}

/// `{"key":…, "value":…, "headers":{…}, "partition":…, "timestamp":…}`: strings as they are, anything else as JSON.
fn object(line: &[u8]) -> Result<ProduceRecord> {
    let Value::Object(fields) = serde_json::from_slice(line).context("not JSON")? else {
        bail!("a line must be a JSON object with key, value, headers, partition, timestamp");
    };
    let mut record = ProduceRecord::default();
    for (name, field) in fields {
        match (name.as_str(), field) {
            (_, Value::Null) => {}
            ("key", key) => record.key_kind = Some(produce_record::KeyKind::Key(text_of(&key).into())),
            ("value", payload) => record.value_kind = Some(value(text_of(&payload).into())),
            ("headers", Value::Object(headers)) => {
                record.headers = headers
                    .into_iter()
                    .map(|(name, value)| Header { name, value: Some(header::Value::Text(text_of(&value))) })
                    .collect();
            }
            ("partition", partition) => {
                let number = partition.as_i64().and_then(|number| i32::try_from(number).ok());
                record.partition = Some(number.context("partition: give a number")?);
            }
            ("timestamp", time) => record.timestamp = Some(super::timestamp(&time)?),
            ("headers", _) => bail!("headers: give an object of names and values"),
            (other, _) => bail!("{other:?} is no field; there are key, value, headers, partition, timestamp"),
        }
    }
    Ok(record)
}

fn value(bytes: Bytes) -> produce_record::ValueKind {
    produce_record::ValueKind::Value(bytes)
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_becomes_a_record() {
        let line =
            br#"{"key":"a","value":{"b":1},"headers":{"c":"d"},"partition":2,"timestamp":"2026-01-01T00:00:00Z"}"#;
        let record = object(line).expect("parse");
        assert_eq!(record.key_kind, Some(produce_record::KeyKind::Key("a".into())));
        assert_eq!(record.value_kind, Some(value(r#"{"b":1}"#.into())));
        assert_eq!(record.partition, Some(2));
        assert!(object(br#"{"vlaue":1}"#).is_err());
        assert!(object(b"[]").is_err());
    }
}
