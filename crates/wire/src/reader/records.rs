//! Reading records instead of batches: fetched and decoded in one, within a bound of memory.

use std::time::Duration;

use super::Reader;
use crate::batch::decode::{DecodeLimits, Decoded, decode_with};
use crate::batch::header::BatchHeader;
use crate::batch::record::Record;
use crate::deadline::Deadline;
use crate::epochs::EpochStart;
use crate::error::Result;
use crate::fetch::{FetchRequest, Fetched};
use crate::types::KafkaTopicId;

/// Asked for when not even the header of a batch came.
const WHOLE_BATCH_BYTES: usize = 16 << 20;

/// What [`Reader::read`] found.
#[derive(Debug, Clone)]
pub struct ReadRecords {
    /// Id of the topic that was read.
    pub topic_id: KafkaTopicId,
    /// Visible records in order; empty if none came within the wait, or if all were hidden.
    pub records: Vec<Record>,
    /// Where to read on; beyond the offset asked for also if all that was read was hidden.
    pub next_offset: i64,
    /// True if more was fetched than the bound let be decoded: reading on at `next_offset` finds it at once.
    pub stopped: bool,
    /// Which leader epochs wrote what was read: an entry where the first stretch begins, and where each other begins. The
    /// last one is that of the record before `next_offset`: [`FetchRequest::last_epoch`] of the next read.
    pub epochs: Vec<EpochStart>,
    /// Memory that the records hold, as [`Decoded::held_bytes`] counts it.
    pub held_bytes: usize,
    /// Offset after the last replicated record.
    pub high_watermark: i64,
    /// Offset after the last record of a finished transaction.
    pub last_stable_offset: i64,
    /// First offset still in the log.
    pub log_start_offset: i64,
}

impl Reader {
    /// Like [`Reader::fetch`], and decodes what came until the records hold `limits.held_bytes_max`; what did not fit is
    /// read with the next call. Records that inflate, or that are many and small, hold more than was fetched: at most
    /// `request.max_bytes` and `limits.held_bytes_max` together, or one batch if that is larger, are held meanwhile.
    pub async fn read(
        &self,
        request: FetchRequest,
        limits: DecodeLimits,
        share: u64,
        timeout: Duration,
    ) -> Result<ReadRecords> {
        let (offset, deadline) = (request.offset, Deadline::after(timeout));
        let mut fetched = self.fetch(request.clone(), share, timeout).await?;
        let mut decoded = decode_with(&fetched.batches, offset, &fetched.aborted, limits)?;
        if decoded.truncated && decoded.next_offset == offset {
            // Brokers send a first batch whole; one that came cut off all the same says how large it is.
            let whole = BatchHeader::read(&fetched.batches).map_or(WHOLE_BATCH_BYTES, |header| header.size_bytes);
            let max_bytes = u32::try_from(whole).unwrap_or(u32::MAX);
            let again = FetchRequest { max_bytes, max_wait: Duration::ZERO, ..request };
            fetched = self.fetch(again, share, deadline.remaining()).await?;
            decoded = decode_with(&fetched.batches, offset, &fetched.aborted, limits)?;
        }
        Ok(ReadRecords::of(&fetched, decoded))
    }
}

impl ReadRecords {
    fn of(fetched: &Fetched, decoded: Decoded) -> Self {
        Self {
            topic_id: fetched.topic_id,
            records: decoded.records,
            next_offset: decoded.next_offset,
            stopped: decoded.stopped,
            epochs: decoded.epochs,
            held_bytes: decoded.held_bytes,
            high_watermark: fetched.high_watermark,
            last_stable_offset: fetched.last_stable_offset,
            log_start_offset: fetched.log_start_offset,
        }
    }
}
