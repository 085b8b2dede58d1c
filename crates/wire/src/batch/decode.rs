//! From fetched bytes to records: checks CRCs, inflates within a bound, and hides what no reader may see.
//!
//! Promises: never panics and never takes more memory than its limits, whatever the bytes; a bound stops the decoding and
//! fails nothing: what was decoded is given, and `next_offset` says where to read on; `next_offset` moves past every
//! complete batch even if all its records were hidden, so a reader cannot get stuck on a filtered stretch.

use std::collections::HashSet;

use bytes::{Buf, Bytes};

use super::header::{BATCH_HEADER_BYTES, BatchHeader, CRC_FROM, Compression, LENGTH_END, MAGIC};
use super::record::{self, RECORD_BYTES_MIN, Record};
use crate::codec::{self, InflateError};
use crate::epochs::EpochStart;

/// A transaction marker takes some tens of bytes.
const MARKER_BYTES_MAX: usize = 64 * 1024;

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
    /// Memory that the records may hold, as [`Decoded::held_bytes`] counts it. A batch that does not fit any more is left
    /// for the next read; the first one with records to show always comes whole, so that every read gets on.
    pub held_bytes_max: usize,
    /// Bytes that one batch may inflate to. A larger one is [`DecodeError::Inflate`]: no bound can be kept with it.
    pub batch_bytes_max: usize,
}

impl Default for DecodeLimits {
    /// 16 MiB, and 128 MiB for one batch.
    fn default() -> Self {
        Self { held_bytes_max: 16 << 20, batch_bytes_max: 128 << 20 }
    }
}

impl DecodeLimits {
    /// So much memory for the records; what one batch may inflate to is left at its default.
    pub fn held_bytes(max: usize) -> Self {
        Self { held_bytes_max: max, ..Self::default() }
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
    /// Offset after the last batch that was decoded; the offset asked for if there was none.
    pub next_offset: i64,
    /// True if the bytes end within a batch. With no complete batch before it, a larger fetch is needed.
    pub truncated: bool,
    /// True if the bytes hold more whole batches, which the bound left for the next read.
    pub stopped: bool,
    /// Which leader epochs wrote what was decoded, hidden records too: an entry where the first stretch begins, and where
    /// each other begins.
    pub epochs: Vec<EpochStart>,
    /// Memory that the records hold: the inflated bytes of their batches, all the bytes decoded from if some of them were
    /// not compressed (records share those), and the records themselves.
    pub held_bytes: usize,
}

/// Decodes with default limits. `aborted` as in [`crate::Fetched`]; empty when reading uncommitted.
pub fn decode(batches: &Bytes, from_offset: i64, aborted: &[AbortedTransaction]) -> Result<Decoded, DecodeError> {
    decode_with(batches, from_offset, aborted, DecodeLimits::default())
}

/// Decodes what is visible from `from_offset` on, batch by batch, until the bytes end or the bound is reached. A batch
/// that cannot be decoded fails the call only if nothing came before it: what did is given, and the next read fails.
pub fn decode_with(
    batches: &Bytes,
    from_offset: i64,
    aborted: &[AbortedTransaction],
    limits: DecodeLimits,
) -> Result<Decoded, DecodeError> {
    let mut decoding =
        Decoding { rest: batches.clone(), transactions: Transactions::new(aborted), limits, shared_bytes: 0 };
    let mut decoded = Decoded {
        records: Vec::new(),
        next_offset: from_offset,
        truncated: false,
        stopped: false,
        epochs: Vec::new(),
        held_bytes: 0,
    };
    while !decoding.rest.is_empty() {
        match decoding.batch(from_offset, &mut decoded) {
            Ok(Step::Taken) => {}
            Ok(Step::CutOff) => {
                decoded.truncated = true;
                break;
            }
            Ok(Step::Full) => {
                decoded.stopped = true;
                break;
            }
            Err(_) if decoded.next_offset > from_offset => {
                decoded.stopped = true;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    if decoding.shared_bytes > 0 {
        decoded.held_bytes += batches.len() - decoding.shared_bytes;
    }
    Ok(decoded)
}

/// What became of the next batch.
enum Step {
    Taken,
    /// The bytes end within it.
    CutOff,
    /// Its records do not fit.
    Full,
}

struct Decoding {
    rest: Bytes,
    transactions: Transactions,
    limits: DecodeLimits,
    /// Bytes that records share with what is decoded from.
    shared_bytes: usize,
}

impl Decoding {
    fn batch(&mut self, from_offset: i64, decoded: &mut Decoded) -> Result<Step, DecodeError> {
        let Some(batch) = take_batch(&mut self.rest)? else { return Ok(Step::CutOff) };
        let header = checked_header(&batch)?;
        self.transactions.reach(&header);
        if header.is_control() {
            // A marker is some bytes; what inflates to more is none.
            let marker = payload(&batch, &header, MARKER_BYTES_MAX).map_err(|error| error.of(&header))?;
            self.transactions.marked(&marker, &header);
        } else if header.last_offset() >= from_offset && self.transactions.shows(&header) {
            let Some(records) = self.records(&batch, &header, decoded)? else { return Ok(Step::Full) };
            let bytes = records.len();
            decoded.held_bytes += bytes + read_records(records, &header, from_offset, &mut decoded.records)?;
            if header.compression() == Ok(Compression::None) {
                self.shared_bytes += bytes;
            }
        }
        let epoch = header.leader_epoch;
        let is_known = decoded.epochs.last().is_some_and(|last| last.epoch == epoch);
        if epoch >= 0 && !is_known && header.last_offset() >= from_offset {
            decoded.epochs.push(EpochStart { offset: header.base_offset.max(from_offset), epoch });
        }
        decoded.next_offset = decoded.next_offset.max(header.last_offset().saturating_add(1));
        Ok(Step::Taken)
    }

    /// The bytes of a batch's records, if they fit beside those that are held already.
    fn records(&self, batch: &Bytes, header: &BatchHeader, decoded: &Decoded) -> Result<Option<Bytes>, DecodeError> {
        let is_first = decoded.records.is_empty();
        let room = self.limits.held_bytes_max.saturating_sub(decoded.held_bytes);
        let bytes_max = if is_first { self.limits.batch_bytes_max } else { room.min(self.limits.batch_bytes_max) };
        let bytes = match payload(batch, header, bytes_max) {
            Ok(bytes) => bytes,
            Err(PayloadError::TooLarge) if !is_first && room < self.limits.batch_bytes_max => return Ok(None),
            Err(error) => return Err(error.of(header)),
        };
        let count = usize::try_from(header.record_count).unwrap_or(0).min(bytes.len() / RECORD_BYTES_MIN);
        let fits = is_first || bytes.len().saturating_add(count * size_of::<Record>()) <= room;
        Ok(fits.then_some(bytes))
    }
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

/// Why a batch's records cannot be had as bytes.
enum PayloadError {
    /// They are more than was allowed.
    TooLarge,
    Damaged(String),
}

impl PayloadError {
    fn of(self, header: &BatchHeader) -> DecodeError {
        let reason = match self {
            Self::TooLarge => "more bytes than one batch may have".to_owned(),
            Self::Damaged(reason) => reason,
        };
        DecodeError::Inflate { base_offset: header.base_offset, reason }
    }
}

/// The batch's records as bytes, inflated if need be.
fn payload(batch: &Bytes, header: &BatchHeader, bytes_max: usize) -> Result<Bytes, PayloadError> {
    let stored = batch.slice(BATCH_HEADER_BYTES..);
    match header.compression() {
        Ok(Compression::None) => Ok(stored),
        Ok(compression) => match codec::inflate(compression, &stored, bytes_max) {
            Ok(mut inflated) => {
                // It is counted by its length, and may be held for long.
                inflated.shrink_to_fit();
                Ok(inflated.into())
            }
            Err(InflateError::TooLarge) => Err(PayloadError::TooLarge),
            Err(InflateError::Damaged(reason)) => Err(PayloadError::Damaged(reason)),
        },
        Err(number) => Err(PayloadError::Damaged(format!("unknown compression {number}"))),
    }
}

/// Adds the records at or above an offset; gives the memory that they take beside their bytes.
fn read_records(
    mut bytes: Bytes,
    header: &BatchHeader,
    from_offset: i64,
    records: &mut Vec<Record>,
) -> Result<usize, DecodeError> {
    let count = usize::try_from(header.record_count).unwrap_or(0);
    let before = records.len();
    let mut headers = 0;
    let mut read = || -> Result<(), DecodeError> {
        records.reserve(count.min(bytes.len() / RECORD_BYTES_MIN));
        for _ in 0..count {
            let record = record::read(&mut bytes, header)?;
            if record.offset < header.base_offset || record.offset > header.last_offset() {
                return Err(DecodeError::Malformed { base_offset: header.base_offset });
            }
            if record.offset >= from_offset {
                headers += record.headers.capacity();
                records.push(record);
            }
        }
        match bytes.is_empty() {
            true => Ok(()),
            false => Err(DecodeError::Malformed { base_offset: header.base_offset }),
        }
    };
    match read() {
        Ok(()) => Ok((records.len() - before) * size_of::<Record>() + headers * size_of::<record::Header>()),
        Err(error) => {
            // No part of a batch that is damaged.
            records.truncate(before);
            Err(error)
        }
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

    /// A batch comes next.
    fn reach(&mut self, header: &BatchHeader) {
        while let Some(next) = self.ahead.last().filter(|next| next.first_offset <= header.last_offset()) {
            self.aborting.insert(next.producer_id);
            self.ahead.pop();
        }
    }

    /// True if readers may see the batch's records.
    fn shows(&self, header: &BatchHeader) -> bool {
        !(header.is_transactional() && self.aborting.contains(&header.producer_id))
    }

    /// It is a marker: a transaction ends.
    fn marked(&mut self, marker: &Bytes, header: &BatchHeader) {
        if is_abort_marker(marker, header) {
            self.aborting.remove(&header.producer_id);
        }
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
