//! From a request's records to what Kafka gets: every field checked, every fault named with its limit and remedy, and the
//! logical size of each record, which is what limits and bills count.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use sluice_kafka::{Failure, RecordOutcome, SinkRecord};
use sluice_proto::stream::v1::produce_record::{KeyKind, ValueKind};
use sluice_proto::stream::v1::{Header, ProduceRecord, header};
use sluice_proto::wkt::{Timestamp, Value};
use sluice_types::error::Error;
use sluice_types::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, HEADER_NAME_BYTES_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_MAX,
};
use sluice_types::partitioner::partition_of;
use sluice_types::record::{TRACE_ADDED_HEADER, TRACEPARENT_HEADER, is_reserved_header, logical_bytes};
use sluice_types::{ErrorKind, Reason};

use crate::data::failure;

/// How far in the future a record's time may lie: Kafka refuses whole batches for one beyond an hour.
const FUTURE_MS_MAX: i64 = 3_600_000;

/// What a batch is checked against.
pub(crate) struct Rules<'a> {
    /// Partitions of the topic.
    pub(crate) partitions: i32,
    /// Where records without key and partition go.
    pub(crate) keyless: i32,
    /// The call's trace context, for records without one.
    pub(crate) traceparent: Option<&'a str>,
}

/// A batch that may be sent.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) records: Vec<SinkRecord>,
    /// Logical bytes of each record.
    pub(crate) sizes: Vec<u32>,
    /// Their sum.
    pub(crate) bytes: u64,
}

/// Records of a batch that their topic cannot take. Kafka would refuse all that came to it together with them.
#[derive(Debug, Default)]
pub(crate) struct Unfit {
    /// Their places in the batch, ascending.
    places: Vec<usize>,
    /// Their logical bytes.
    pub(crate) bytes: u64,
}

impl Checked {
    /// Takes the records without key out.
    pub(crate) fn take_keyless(&mut self) -> Unfit {
        let keyless = |(at, record): (usize, &SinkRecord)| record.key.is_none().then_some(at);
        let places: Vec<usize> = self.records.iter().enumerate().filter_map(keyless).collect();
        if places.is_empty() {
            return Unfit::default();
        }
        let before = self.sizes.iter().map(|size| u64::from(*size)).sum::<u64>();
        let mut keyed = self.records.iter().map(|record| record.key.is_some()).collect::<Vec<_>>().into_iter();
        self.sizes.retain(|_| keyed.next().unwrap_or(true));
        self.records.retain(|record| record.key.is_some());
        self.bytes = self.sizes.iter().map(|size| u64::from(*size)).sum();
        Unfit { places, bytes: before - self.bytes }
    }
}

impl Unfit {
    /// The outcomes of the whole batch, from those of the rest.
    pub(crate) fn put_back(&self, rest: Vec<RecordOutcome>) -> Vec<RecordOutcome> {
        if self.places.is_empty() {
            return rest;
        }
        let mut rest = rest.into_iter();
        let mut places = self.places.iter().copied().peekable();
        let total = rest.len() + self.places.len();
        let one = |at| match places.next_if_eq(&at) {
            Some(_) => Some(RecordOutcome::NotPersisted(Failure::Refused(failure::INVALID_RECORD))),
            None => rest.next(),
        };
        (0..total).filter_map(one).collect()
    }
}

/// Checks and converts; the first fault ends it.
pub(crate) fn check(records: Vec<ProduceRecord>, rules: &Rules<'_>) -> Result<Checked, Error> {
    if records.is_empty() {
        return Err(Error::invalid("records", "is empty; send at least one record"));
    }
    if records.len() > BATCH_RECORDS_MAX {
        let what = format!("has {} records, more than {BATCH_RECORDS_MAX}; send several calls", records.len());
        return Err(Error::invalid("records", what));
    }
    let now_ms = now_ms();
    let mut checked =
        Checked { records: Vec::with_capacity(records.len()), sizes: Vec::with_capacity(records.len()), bytes: 0 };
    for (at, record) in records.into_iter().enumerate() {
        let (record, size) = one(at, record, rules, now_ms)?;
        checked.bytes += size as u64;
        if checked.bytes > BATCH_BYTES_MAX as u64 {
            let what =
                format!("hold more than {BATCH_BYTES_MAX} bytes of keys, values and headers; send several calls");
            return Err(too_large("records", what));
        }
        checked.records.push(record);
        checked.sizes.push(size);
    }
    Ok(checked)
}

fn one(at: usize, record: ProduceRecord, rules: &Rules<'_>, now_ms: i64) -> Result<(SinkRecord, u32), Error> {
    let field = |name: &str| format!("records[{at}].{name}");
    let key = record.key_kind.map(|key| key_bytes(key, at)).transpose()?;
    let value = record.value_kind.map(|value| value_bytes(value, at)).transpose()?;
    if record.headers.len() > RECORD_HEADERS_MAX {
        let what = format!("has {} headers, more than {RECORD_HEADERS_MAX}; send fewer", record.headers.len());
        return Err(Error::invalid(field("headers"), what));
    }
    let mut headers = Vec::with_capacity(record.headers.len() + 2);
    for (number, header) in record.headers.into_iter().enumerate() {
        headers.push(
            header_bytes(header).map_err(|what| Error::invalid(field(&format!("headers[{number}].name")), what))?,
        );
    }
    let size = logical_bytes(key.as_deref(), value.as_deref(), headers.iter().map(|(n, v)| (&n[..], v.as_deref())));
    if size > RECORD_BYTES_MAX as u64 {
        let what = format!(
            "has {size} bytes of key, value and headers, more than {RECORD_BYTES_MAX}; split it, or store it elsewhere and send a reference"
        );
        return Err(too_large(&format!("records[{at}]"), what));
    }
    let partition = match record.partition {
        Some(partition) if (0..rules.partitions).contains(&partition) => partition,
        Some(partition) => {
            let what = format!(
                "is {partition}, but the topic has the partitions 0..{}; leave it out to have it chosen",
                rules.partitions - 1
            );
            return Err(Error::invalid(field("partition"), what));
        }
        None => key.as_deref().map_or(rules.keyless, |key| partition_of(key, rules.partitions)),
    };
    let timestamp_ms = match record.timestamp {
        Some(timestamp) => time_ms(timestamp, now_ms).map_err(|what| Error::invalid(field("timestamp"), what))?,
        None => now_ms,
    };
    add_trace(&mut headers, rules.traceparent);
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    Ok((SinkRecord { partition, key, value, headers, timestamp_ms }, size))
}

fn key_bytes(key: KeyKind, at: usize) -> Result<Bytes, Error> {
    match key {
        KeyKind::Key(bytes) => Ok(bytes),
        KeyKind::KeyText(text) => Ok(text.into()),
        KeyKind::KeyJson(json) => {
            json_bytes(&json).map_err(|what| Error::invalid(format!("records[{at}].keyJson"), what))
        }
    }
}

fn value_bytes(value: ValueKind, at: usize) -> Result<Bytes, Error> {
    match value {
        ValueKind::Value(bytes) => Ok(bytes),
        ValueKind::ValueText(text) => Ok(text.into()),
        ValueKind::ValueJson(json) => {
            json_bytes(&json).map_err(|what| Error::invalid(format!("records[{at}].valueJson"), what))
        }
    }
}

fn json_bytes(json: &Value) -> Result<Bytes, String> {
    serde_json::to_vec(json).map(Bytes::from).map_err(|error| format!("has no JSON form: {error}"))
}

fn header_bytes(header: Header) -> Result<(Bytes, Option<Bytes>), String> {
    let name = header.name;
    if name.is_empty() || name.len() > HEADER_NAME_BYTES_MAX {
        return Err(format!("has {} bytes; it must have 1..{HEADER_NAME_BYTES_MAX}", name.len()));
    }
    if is_reserved_header(name.as_bytes()) {
        return Err("begins with sluice-, which is reserved; choose another name".to_owned());
    }
    let value = header.value.map(|value| match value {
        header::Value::Bytes(bytes) => bytes,
        header::Value::Text(text) => text.into(),
    });
    Ok((name.into(), value))
}

/// Kafka's times are milliseconds; 0 would mean "now" to the producer.
fn time_ms(timestamp: Timestamp, now_ms: i64) -> Result<i64, String> {
    let millis = timestamp.as_millis();
    if !timestamp.is_valid() || millis < 1 {
        return Err("must be after 1970-01-01T00:00:00Z".to_owned());
    }
    if millis > now_ms.saturating_add(FUTURE_MS_MAX) {
        return Err("must be at most an hour in the future; correct the clock, or leave it out".to_owned());
    }
    Ok(millis)
}

/// Behind the client's headers, with the mark that it is ours.
fn add_trace(headers: &mut Vec<(Bytes, Option<Bytes>)>, traceparent: Option<&str>) {
    let Some(traceparent) = traceparent else { return };
    let has_own = headers.iter().any(|(name, _)| name.as_ref() == TRACEPARENT_HEADER.as_bytes());
    if !has_own {
        let value = Bytes::copy_from_slice(traceparent.as_bytes());
        headers.push((Bytes::from_static(TRACEPARENT_HEADER.as_bytes()), Some(value)));
        headers.push((Bytes::from_static(TRACE_ADDED_HEADER.as_bytes()), Some(Bytes::from_static(b"1"))));
    }
}

fn too_large(field: &str, what: String) -> Error {
    let mut error = Error::new(ErrorKind::InvalidArgument, Reason::TooLarge, format!("{field}: {what}"));
    error.field = Some(field.to_owned());
    error
}

/// Now, ms since the epoch.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
