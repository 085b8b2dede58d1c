//! Reading a partition for a group: bytes from the shared reader, records for cache and window.

use std::sync::Arc;
use std::time::Duration;

use sluice_types::record::logical_bytes;
use sluice_wire::{Error, FetchRequest, Fetched, Isolation, Record, TopicId, decode};

use crate::groups::dispatch::shared::Shared;
use crate::groups::window::Seen;

/// Says for which group a record was published again; others pass over it.
pub(super) const REDRIVE_GROUP_HEADER: &[u8] = b"sluice-redrive-group";
/// Bytes of a read that waits for records.
pub(super) const WAITING_BYTES: u32 = 64 << 10;
/// How long it waits at once.
const WAIT: Duration = Duration::from_secs(60);
/// What a read takes beyond its wait, at most.
const MARGIN: Duration = Duration::from_secs(5);
/// A batch that does not fit what was asked for is asked for again with this.
const WHOLE_BATCH_BYTES: u32 = 16 << 20;

/// Where to read, and for whom.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) topic: Arc<str>,
    pub(super) topic_id: TopicId,
    pub(super) partition: i32,
    /// The tenant, for the fair queue.
    pub(super) share: u64,
    /// The group's uid, as text.
    pub(super) group: Arc<str>,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) records: Vec<Record>,
    pub(super) seen: Vec<Seen>,
    /// Records for other groups; in `seen` too.
    pub(super) foreign: Vec<i64>,
    /// Where to read on.
    pub(super) next_offset: i64,
    /// Where readers stand who have read everything.
    pub(super) end: i64,
    /// Memory that the records hold.
    pub(super) bytes: usize,
}

/// Reads what is there at an offset; `waits`: and waits for the first record.
pub(super) async fn read(
    shared: Arc<Shared>,
    place: Place,
    offset: i64,
    max_bytes: u32,
    waits: bool,
) -> Result<Read, Error> {
    let wait = if waits { WAIT } else { Duration::ZERO };
    let mut fetched = fetch(&shared, &place, offset, max_bytes, wait).await?;
    let mut decoded = decode(&fetched.batches, offset, &fetched.aborted)?;
    if decoded.truncated && decoded.next_offset == offset {
        fetched = fetch(&shared, &place, offset, WHOLE_BATCH_BYTES, Duration::ZERO).await?;
        decoded = decode(&fetched.batches, offset, &fetched.aborted)?;
    }
    let mut held = 0;
    let mut foreign = Vec::new();
    let seen = decoded.records.iter().map(|record| {
        let bytes = size(record);
        held += bytes;
        if is_foreign(record, place.group.as_bytes()) {
            foreign.push(record.offset);
        }
        let key = record.key.as_deref().map(|key| shared.key_hash(key));
        Seen { offset: record.offset, key, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) }
    });
    let seen = seen.collect();
    Ok(Read {
        seen,
        foreign,
        next_offset: decoded.next_offset,
        end: match fetched.last_stable_offset {
            -1 => fetched.high_watermark,
            stable => stable,
        },
        // What was inflated is larger than what came.
        bytes: fetched.batches.len().max(held),
        records: decoded.records,
    })
}

async fn fetch(
    shared: &Shared,
    place: &Place,
    offset: i64,
    max_bytes: u32,
    max_wait: Duration,
) -> Result<Fetched, Error> {
    let request = FetchRequest {
        topic: place.topic.to_string(),
        topic_id: Some(place.topic_id),
        partition: place.partition,
        offset,
        last_epoch: None,
        max_bytes,
        min_bytes: 1,
        max_wait,
        isolation: Isolation::ReadCommitted,
    };
    shared.reader.fetch(request, place.share, max_wait + MARGIN).await
}

/// What credit and windows count; with our own headers, because they travel too.
fn size(record: &Record) -> usize {
    let headers = record.headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
    usize::try_from(logical_bytes(record.key.as_deref(), record.value.as_deref(), headers)).unwrap_or(usize::MAX)
}

/// Whether the record was published again for another group.
pub(super) fn is_foreign(record: &Record, group: &[u8]) -> bool {
    let marks = record.headers.iter().filter(|(name, _)| name.as_ref() == REDRIVE_GROUP_HEADER);
    marks.last().is_some_and(|(_, value)| value.as_deref() != Some(group))
}
