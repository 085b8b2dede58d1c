//! A record as read, borrowing from the bytes it was fetched with.

use bytes::{Buf, Bytes};

use super::decode::DecodeError;
use super::header::BatchHeader;
use super::varint;

/// Smallest record: its length and six one-byte fields.
pub(super) const RECORD_BYTES_MIN: usize = 7;

/// A header's name and value; names may repeat.
pub(super) type Header = (Bytes, Option<Bytes>);

/// Who set a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer.
    CreateTime,
    /// The broker, when it appended.
    LogAppendTime,
}

/// One record. Keys, values and headers share memory with the fetched bytes (or with the inflated batch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Who set it.
    pub timestamp_type: TimestampType,
    /// Key, if any.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order; names may repeat.
    pub headers: Vec<Header>,
}

/// Takes one record off the front of `bytes`.
pub(super) fn read(bytes: &mut Bytes, batch: &BatchHeader) -> Result<Record, DecodeError> {
    let malformed = || DecodeError::Malformed { base_offset: batch.base_offset };
    let length = varint::read(bytes).and_then(|length| usize::try_from(length).ok()).ok_or_else(malformed)?;
    if length > bytes.len() {
        return Err(malformed());
    }
    let mut body = bytes.split_to(length);
    read_body(&mut body, batch).filter(|_| body.is_empty()).ok_or_else(malformed)
}

fn read_body(body: &mut Bytes, batch: &BatchHeader) -> Option<Record> {
    let _attributes = body.try_get_u8().ok()?;
    let timestamp_delta = varint::read(body)?;
    let offset_delta = varint::read(body)?;
    let key = read_bytes(body)?;
    let value = read_bytes(body)?;
    let count = usize::try_from(varint::read(body)?).ok()?;
    // A header takes two bytes at least: a claimed count cannot take more memory than the record has bytes.
    let mut headers = Vec::with_capacity(count.min(body.len() / 2));
    for _ in 0..count {
        let name = read_bytes(body)??;
        headers.push((name, read_bytes(body)?));
    }
    let (timestamp_ms, timestamp_type) = match batch.is_log_append_time() {
        true => (batch.max_timestamp, TimestampType::LogAppendTime),
        false => (batch.base_timestamp.checked_add(timestamp_delta)?, TimestampType::CreateTime),
    };
    let offset = batch.base_offset.checked_add(offset_delta)?;
    Some(Record { offset, timestamp_ms, timestamp_type, key, value, headers })
}

/// Length-prefixed bytes; -1 is null. The outer `None` means malformed.
fn read_bytes(body: &mut Bytes) -> Option<Option<Bytes>> {
    match varint::read(body)? {
        -1 => Some(None),
        length => {
            let length = usize::try_from(length).ok().filter(|&length| length <= body.len())?;
            Some(Some(body.split_to(length)))
        }
    }
}
