//! The fixed head of a record batch.

use bytes::Buf;

/// Bytes before the first record.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Bytes of base offset and length, which the length does not count.
pub(crate) const LENGTH_END: usize = 12;
/// Where the checksummed part begins.
pub(crate) const CRC_FROM: usize = 21;
pub(crate) const MAGIC: i8 = 2;

pub(crate) const ATTRIBUTE_LOG_APPEND_TIME: i16 = 1 << 3;
const ATTRIBUTE_TRANSACTIONAL: i16 = 1 << 4;
const ATTRIBUTE_CONTROL: i16 = 1 << 5;

/// How a batch's records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// As they are.
    None,
    /// Gzip.
    Gzip,
    /// Snappy, with or without the framing of Java clients.
    Snappy,
    /// LZ4 frame.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// A batch's header, for those who look at batches without decoding records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record (as written; compaction may have removed it).
    pub base_offset: i64,
    /// Bytes of the whole batch, header included.
    pub size_bytes: usize,
    /// Leader epoch under which it was written.
    pub leader_epoch: i32,
    /// Format version; 2 for everything Kafka 4 stores.
    pub magic: i8,
    /// CRC32C of everything after this field.
    pub crc: u32,
    /// Flags.
    pub attributes: i16,
    /// Last offset minus base offset.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas are relative to.
    pub base_timestamp: i64,
    /// Highest timestamp, or the broker's append time.
    pub max_timestamp: i64,
    /// Producer id, or -1.
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Records as the header claims.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`; `None` if it is cut off or its length is impossible. Does not check
    /// the CRC, nor that the whole batch is there.
    pub fn read(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() < BATCH_HEADER_BYTES {
            return None;
        }
        let base_offset = bytes.get_i64();
        let length = usize::try_from(bytes.get_i32()).ok()?;
        let size_bytes = length.checked_add(LENGTH_END).filter(|&size| size >= BATCH_HEADER_BYTES)?;
        Some(Self {
            base_offset,
            size_bytes,
            leader_epoch: bytes.get_i32(),
            magic: bytes.get_i8(),
            crc: bytes.get_u32(),
            attributes: bytes.get_i16(),
            last_offset_delta: bytes.get_i32(),
            base_timestamp: bytes.get_i64(),
            max_timestamp: bytes.get_i64(),
            producer_id: bytes.get_i64(),
            producer_epoch: bytes.get_i16(),
            base_sequence: bytes.get_i32(),
            record_count: bytes.get_i32(),
        })
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta.max(0)))
    }

    /// The compression, or the unknown number.
    pub fn compression(&self) -> Result<Compression, i16> {
        match self.attributes & 7 {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            unknown => Err(unknown),
        }
    }

    /// True if the broker set the timestamps.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0
    }

    /// True if the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// True for transaction markers, which no client may see.
    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }
}
