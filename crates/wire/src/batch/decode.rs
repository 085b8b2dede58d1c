//! From fetched bytes to records: checks CRCs, inflates within a bound, and hides what no reader may see.
//!
//! Promises: never panics and never takes more memory than its limits, whatever the bytes; `next_offset` moves past
//! every complete batch even if all its records were hidden, so a reader cannot get stuck on a filtered stretch.

use std::collections::HashSet;

use bytes::{Buf, Bytes};

use super::header::{BATCH_HEADER_BYTES, BatchHeader, CRC_FROM, Compression, LENGTH_END, MAGIC};
use super::record::{self, RECORD_BYTES_MIN, Record};
use crate::codec;

/// A transaction that was aborted, as brokers tell it beside the batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Producer that aborted.
    pub producer_id: i64,
    /// First offset of the aborted transaction in this partition.
    pub first_offset: i64,
}

/// Bounds of one decoding.
#[derive(Debug, Clone, Copy)]
pub struct DecodeLimits {
    /// Bytes that all compressed batches together may inflate to.
    pub inflated_bytes_max: usize,
}

impl Default for DecodeLimits {
    /// 128 MiB.
    fn default() -> Self {
        Self { inflated_bytes_max: 128 * 1024 * 1024 }
    }
}

/// Why batches could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes were damaged on disk or on the way.
    #[error("batch at offset {base_offset} fails its checksum")]
    Crc {
        /// Base offset of the batch.
        base_offset: i64,
    },
    /// The batch does not follow the format.
    #[error("batch at offset {base_offset} is malformed")]
    Malformed {
        /// Base offset of the batch.
        base_offset: i64,
    },
    /// A format older than Kafka 0.11's, or a future one.
    #[error("batch at offset {base_offset} has format version {magic}")]
    Version {
        /// Base offset of the batch.
        base_offset: i64,
        /// Version found.
        magic: i8,
    },
    /// The batch does not inflate, or beyond the bound.
    #[error("batch at offset {base_offset} cannot be inflated: {reason}")]
    Inflate {
        /// Base offset of the batch.
        base_offset: i64,
        /// Why.
        reason: String,
    },
}

/// Records and where to read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Visible records at or above the offset asked for.
    pub records: Vec<Record>,
    /// Offset after the last complete batch; the offset asked for if there was none.
    pub next_offset: i64,
    /// True if the bytes end within a batch. With no complete batch before it, a larger fetch is needed.
    pub truncated: bool,
}

/// Decodes with default limits. `aborted` as in [`crate::Fetched`]; empty when reading uncommitted.
pub fn decode(batches: &Bytes, from_offset: i64, aborted: &[AbortedTransaction]) -> Result<Decoded, DecodeError> {
    decode_with(batches, from_offset, aborted, DecodeLimits::default())
}

/// Decodes everything in `batches` that is visible from `from_offset` on.
pub fn decode_with(
    batches: &Bytes,
    from_offset: i64,
    aborted: &[AbortedTransaction],
    limits: DecodeLimits,
) -> Result<Decoded, DecodeError> {
    let mut rest = batches.clone();
    let mut transactions = Transactions::new(aborted);
    let mut decoded = Decoded { records: Vec::new(), next_offset: from_offset, truncated: false };
    let mut inflatable = limits.inflated_bytes_max;
    while !rest.is_empty() {
        let Some(batch) = take_batch(&mut rest)? else {
            decoded.truncated = true;
            break;
        };
        let header = checked_header(&batch)?;
        if header.last_offset() >= from_offset {
            let records = payload(&batch, &header, &mut inflatable)?;
            if transactions.shows(&header, &records) {
                read_records(records, &header, from_offset, &mut decoded.records)?;
            }
        } else if header.is_control() {
            let records = payload(&batch, &header, &mut inflatable)?;
            transactions.shows(&header, &records);
        }
        decoded.next_offset = decoded.next_offset.max(header.last_offset().saturating_add(1));
    }
    Ok(decoded)
}

/// Splits the next whole batch off; `None` if it is cut off.
fn take_batch(rest: &mut Bytes) -> Result<Option<Bytes>, DecodeError> {
    if rest.len() < LENGTH_END {
        return Ok(None);
    }
    let mut head = &rest[..LENGTH_END];
    let base_offset = head.get_i64();
    let length = usize::try_from(head.get_i32()).map_err(|_| DecodeError::Malformed { base_offset })?;
    let size = length.saturating_add(LENGTH_END);
    if size < BATCH_HEADER_BYTES {
        return Err(DecodeError::Malformed { base_offset });
    }
    Ok((size <= rest.len()).then(|| rest.split_to(size)))
}

fn checked_header(batch: &Bytes) -> Result<BatchHeader, DecodeError> {
    let header = BatchHeader::read(batch).ok_or(DecodeError::Malformed { base_offset: -1 })?;
    let base_offset = header.base_offset;
    if header.magic != MAGIC {
        return Err(DecodeError::Version { base_offset, magic: header.magic });
    }
    if crc32c::crc32c(&batch[CRC_FROM..]) != header.crc {
        return Err(DecodeError::Crc { base_offset });
    }
    if base_offset < 0 || header.last_offset_delta < 0 || header.record_count < 0 {
        return Err(DecodeError::Malformed { base_offset });
    }
    Ok(header)
}

/// The batch's records as bytes, inflated if need be.
fn payload(batch: &Bytes, header: &BatchHeader, inflatable: &mut usize) -> Result<Bytes, DecodeError> {
    let base_offset = header.base_offset;
    let stored = batch.slice(BATCH_HEADER_BYTES..);
    match header.compression() {
        Ok(Compression::None) => Ok(stored),
        Ok(compression) => {
            let inflated = codec::inflate(compression, &stored, *inflatable)
                .map_err(|reason| DecodeError::Inflate { base_offset, reason })?;
            *inflatable = inflatable.saturating_sub(inflated.len());
            Ok(inflated.into())
        }
        Err(number) => Err(DecodeError::Inflate { base_offset, reason: format!("unknown compression {number}") }),
    }
}

fn read_records(
    mut bytes: Bytes,
    header: &BatchHeader,
    from_offset: i64,
    records: &mut Vec<Record>,
) -> Result<(), DecodeError> {
    let count = usize::try_from(header.record_count).unwrap_or(0);
    records.reserve(count.min(bytes.len() / RECORD_BYTES_MIN));
    for _ in 0..count {
        let record = record::read(&mut bytes, header)?;
        if record.offset < header.base_offset || record.offset > header.last_offset() {
            return Err(DecodeError::Malformed { base_offset: header.base_offset });
        }
        if record.offset >= from_offset {
            records.push(record);
        }
    }
    match bytes.is_empty() {
        true => Ok(()),
        false => Err(DecodeError::Malformed { base_offset: header.base_offset }),
    }
}

/// Follows which producers are within an aborted transaction while batches go by in order.
struct Transactions {
    /// Not yet begun, the next one last.
    ahead: Vec<AbortedTransaction>,
    aborting: HashSet<i64>,
}

impl Transactions {
    fn new(aborted: &[AbortedTransaction]) -> Self {
        let mut ahead = aborted.to_vec();
        ahead.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        Self { ahead, aborting: HashSet::new() }
    }

    /// True if readers may see the batch's records.
    fn shows(&mut self, header: &BatchHeader, records: &Bytes) -> bool {
        while let Some(next) = self.ahead.last().filter(|next| next.first_offset <= header.last_offset()) {
            self.aborting.insert(next.producer_id);
            self.ahead.pop();
        }
        if header.is_control() {
            if is_abort_marker(records, header) {
                self.aborting.remove(&header.producer_id);
            }
            return false;
        }
        !(header.is_transactional() && self.aborting.contains(&header.producer_id))
    }
}

/// A control record's key holds a version and a type; type 0 is an abort.
fn is_abort_marker(records: &Bytes, header: &BatchHeader) -> bool {
    let marker = record::read(&mut records.clone(), header).ok();
    marker.and_then(|marker| marker.key).is_some_and(|key| key.get(2..4) == Some(&[0, 0]))
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
