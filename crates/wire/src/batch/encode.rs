//! From records to one uncompressed batch, without idempotence: for low-rate internal logs.

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{BATCH_HEADER_BYTES, CRC_FROM, LENGTH_END, MAGIC};
use super::varint;

/// A record to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutRecord {
    /// Key, if any.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Milliseconds since 1970. Topics with append time overwrite it; others delete by it, so 0 means gone at once.
    pub timestamp_ms: i64,
}

/// Why records cannot be made a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// No record was given.
    #[error("a batch needs a record")]
    Empty,
    /// The format cannot hold as much.
    #[error("the batch is too large for the format")]
    TooLarge,
}

/// Encodes one batch with base offset 0; the broker assigns offsets.
pub fn encode_batch(records: &[OutRecord]) -> Result<Bytes, EncodeError> {
    let first = records.first().ok_or(EncodeError::Empty)?;
    let count = i32::try_from(records.len()).map_err(|_| EncodeError::TooLarge)?;
    let base_timestamp = first.timestamp_ms;
    let max_timestamp = records.iter().map(|record| record.timestamp_ms).fold(base_timestamp, i64::max);
    let mut batch = BytesMut::with_capacity(BATCH_HEADER_BYTES + records.iter().map(size_hint).sum::<usize>());
    batch.put_i64(0);
    batch.put_i32(0); // length, known at the end
    batch.put_i32(-1); // leader epoch, the broker's to set
    batch.put_i8(MAGIC);
    batch.put_u32(0); // CRC, known at the end
    batch.put_i16(0);
    batch.put_i32(count - 1);
    batch.put_i64(base_timestamp);
    batch.put_i64(max_timestamp);
    batch.put_i64(-1);
    batch.put_i16(-1);
    batch.put_i32(-1);
    batch.put_i32(count);
    for (delta, record) in (0..).zip(records) {
        put_record(&mut batch, delta, record.timestamp_ms.wrapping_sub(base_timestamp), record);
    }
    let length = i32::try_from(batch.len() - LENGTH_END).map_err(|_| EncodeError::TooLarge)?;
    batch[8..LENGTH_END].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_FROM - 4..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    Ok(batch.freeze())
}

fn put_record(batch: &mut BytesMut, offset_delta: i64, timestamp_delta: i64, record: &OutRecord) {
    let headers: usize =
        record.headers.iter().map(|(name, value)| bytes_len(Some(name)) + bytes_len(value.as_ref())).sum();
    let length = 1
        + varint::len(timestamp_delta)
        + varint::len(offset_delta)
        + bytes_len(record.key.as_ref())
        + bytes_len(record.value.as_ref())
        + varint::len(record.headers.len() as i64)
        + headers;
    varint::write(batch, length as i64);
    batch.put_i8(0);
    varint::write(batch, timestamp_delta);
    varint::write(batch, offset_delta);
    put_bytes(batch, record.key.as_ref());
    put_bytes(batch, record.value.as_ref());
    varint::write(batch, record.headers.len() as i64);
    for (name, value) in &record.headers {
        put_bytes(batch, Some(name));
        put_bytes(batch, value.as_ref());
    }
}

fn put_bytes(batch: &mut BytesMut, bytes: Option<&Bytes>) {
    match bytes {
        Some(bytes) => {
            varint::write(batch, bytes.len() as i64);
            batch.put_slice(bytes);
        }
        None => varint::write(batch, -1),
    }
}

fn bytes_len(bytes: Option<&Bytes>) -> usize {
    bytes.map_or(1, |bytes| varint::len(bytes.len() as i64) + bytes.len())
}

fn size_hint(record: &OutRecord) -> usize {
    let part = |bytes: Option<&Bytes>| bytes.map_or(1, |bytes| bytes.len() + 4);
    let headers = record.headers.iter().map(|(name, value)| part(Some(name)) + part(value.as_ref()));
    16 + part(record.key.as_ref()) + part(record.value.as_ref()) + headers.sum::<usize>()
}
