//! From a request's records to what Kafka gets: every field checked, every fault named with its limit and remedy, and the
//! logical size of each record, which is what limits and bills count.

mod times;

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use sluice_kafka::SinkRecord;
use sluice_proto::stream::v1::produce_record::{KeyKind, ValueKind};
use sluice_proto::stream::v1::{Header, Outcome, ProduceRecord, RecordResult, header};
use sluice_proto::wkt::Value;
use sluice_types::error::Error;
use sluice_types::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, HEADER_NAME_BYTES_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_MAX,
};
use sluice_types::partitioner::partition_of;
use sluice_types::record::{TIME_HEADER, TRACE_ADDED_HEADER, TRACEPARENT_HEADER, is_reserved_header, logical_bytes};
use sluice_types::{ErrorKind, Reason};

use crate::data::failure;

/// What a batch is checked against.
pub(crate) struct Rules<'a> {
    /// Partitions of the topic.
    pub(crate) partitions: i32,
    /// Where records without key and partition go.
    pub(crate) keyless: i32,
    /// The topic is compacted: it has no place for records without key.
    pub(crate) compacted: bool,
    /// How old a record may be, ms; `None`: as old as it likes.
    pub(crate) age_ms_max: Option<i64>,
    /// The topic keeps the time of appending; the producer's goes into a header.
    pub(crate) log_append_time: bool,
    /// The call's trace context, for records without one.
    pub(crate) traceparent: Option<&'a str>,
    /// What this gateway's clock says, ms since the epoch.
    pub(crate) now_ms: i64,
}

/// A batch that may be sent, without the records that the topic cannot take.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) records: Vec<SinkRecord>,
    /// Logical bytes of each record.
    pub(crate) sizes: Vec<u32>,
    /// Their sum.
    pub(crate) bytes: u64,
    pub(crate) rejected: RejectedRecords,
}

/// Records of a batch that their topic cannot take, each with its place and its result. Kafka would refuse all that came to it
/// together with them, or delete them as soon as they were stored.
#[derive(Debug, Default)]
pub(crate) struct RejectedRecords(Vec<(usize, RecordResult)>);

impl RejectedRecords {
    /// The results of the whole batch, from those of the rest.
    pub(crate) fn put_back(self, rest: Vec<RecordResult>) -> Vec<RecordResult> {
        if self.0.is_empty() {
            return rest;
        }
        let total = rest.len() + self.0.len();
        let (mut rest, mut rejected) = (rest.into_iter(), self.0.into_iter().peekable());
        let one = |at| match rejected.next_if(|(place, _)| *place == at) {
            Some((_, result)) => Some(result),
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
    let count = records.len();
    let (mut fit, mut sizes) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let (mut bytes, mut all_bytes, mut rejected) = (0, 0, RejectedRecords::default());
    for (at, record) in records.into_iter().enumerate() {
        let (record, size, misfit) = one(at, record, rules)?;
        all_bytes += u64::from(size);
        if all_bytes > BATCH_BYTES_MAX as u64 {
            let what =
                format!("hold more than {BATCH_BYTES_MAX} bytes of keys, values and headers; send several calls");
            return Err(too_large("records", what));
        }
        match misfit {
            Some(error) => rejected.0.push((at, not_taken(record.partition, &error))),
            None => {
                bytes += u64::from(size);
                fit.push(record);
                sizes.push(size);
            }
        }
    }
    Ok(Checked { records: fit, sizes, bytes, rejected })
}

fn not_taken(partition: i32, error: &Error) -> RecordResult {
    RecordResult {
        outcome: Outcome::NotPersisted.into(),
        partition,
        error: Some(failure::to_status(error)),
        ..RecordResult::default()
    }
}

/// The record, its logical bytes, and why the topic cannot take it, if so.
fn one(at: usize, record: ProduceRecord, rules: &Rules<'_>) -> Result<(SinkRecord, u32, Option<Error>), Error> {
    let field = |name: &str| format!("records[{at}].{name}");
    let key = record.key_kind.map(|key| key_bytes(key, at)).transpose()?;
    let value = record.value_kind.map(|value| value_bytes(value, at)).transpose()?;
    if record.headers.len() > RECORD_HEADERS_MAX {
        let what = format!("has {} headers, more than {RECORD_HEADERS_MAX}; send fewer", record.headers.len());
        return Err(Error::invalid(field("headers"), what));
    }
    let mut headers = Vec::with_capacity(record.headers.len() + 3);
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
    let time = record.timestamp.map(|time| times::check(time, rules)).transpose();
    let time = time.map_err(|what| Error::invalid(field("timestamp"), what))?;
    let misfit = match time.and_then(|time| times::misfit(time, rules)) {
        Some(what) => Some(times::too_old(field("timestamp"), &what)),
        None => (rules.compacted && key.is_none()).then(failure::keyless),
    };
    let timestamp_ms = time.filter(|_| !rules.log_append_time).unwrap_or(rules.now_ms);
    if let Some(time) = time.filter(|_| rules.log_append_time) {
        headers.push(time_header(time));
    }
    add_trace(&mut headers, rules.traceparent);
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    Ok((SinkRecord { partition, key, value, headers, timestamp_ms }, size, misfit))
}

/// The producer's time of a record that Kafka keeps with another.
pub(crate) fn time_header(time_ms: i64) -> (Bytes, Option<Bytes>) {
    (Bytes::from_static(TIME_HEADER.as_bytes()), Some(Bytes::from(time_ms.to_string())))
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
