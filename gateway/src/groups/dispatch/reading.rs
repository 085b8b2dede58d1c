//! Reading a partition for a group: bytes from the shared reader, records for cache and window.
//!
//! Bytes are charged to the group when they have come, before they are inflated; a read for which there is no room is dropped
//! and begins again when there is. What is taken of it is bounded by the charge: the rest is read again, in its turn.

use std::sync::Arc;
use std::time::Duration;

use sluice_types::record::logical_bytes;
use sluice_wire::{
    DecodeLimits, Decoded, EpochStart, Error, FetchRequest, Fetched, Isolation, KafkaTopicId, Record, decode_with,
};

use crate::groups::dispatch::budget::{Account, Charge};
use crate::groups::dispatch::cache::{RECORD_OVERHEAD, own};
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

/// What came is taken to grow so much at most, until it is known; what is held is charged then.
const INFLATES: usize = 8;

/// Where to read, and for whom.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) topic: Arc<str>,
    pub(super) topic_id: KafkaTopicId,
    pub(super) partition: i32,
    /// The tenant, for the fair queue.
    pub(super) share: u64,
    /// The group's uid, as text.
    pub(super) group: Arc<str>,
    /// The leader epoch of the record before the offset that is read, if known.
    pub(super) last_epoch: Option<i32>,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) records: Vec<Record>,
    pub(super) seen: Vec<Seen>,
    /// Records for other groups; in `seen` too.
    pub(super) foreign: Vec<i64>,
    /// Where to read on.
    pub(super) next_offset: i64,
    /// Where readers stand who have read everything.
    pub(super) end: i64,
    /// The first offset still in the log.
    pub(super) log_start: i64,
    /// Under which leaders what was read was written.
    pub(super) epochs: Vec<EpochStart>,
    /// Memory that the records hold.
    pub(super) bytes: usize,
    /// Bytes that came from Kafka for these records, about.
    pub(super) fetched_bytes: usize,
    /// More came than was taken.
    pub(super) is_cut: bool,
}

/// What to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// From where.
    pub(super) offset: i64,
    /// Bytes to ask for.
    pub(super) fetch_bytes: u32,
    /// Bytes that what is taken may hold, save the first record.
    pub(super) held_bytes: usize,
    /// Whether to wait for the first record.
    pub(super) waits: bool,
}

/// Reads what is there, charged to the account; `None` if there was no room for it.
pub(super) async fn read_within(
    shared: Arc<Shared>,
    place: Place,
    account: Account,
    wanted: Wanted,
) -> Result<Option<(Read, Charge)>, Error> {
    let charge = |came: usize| account.try_charge(wanted.held_bytes.min(came.saturating_mul(INFLATES)));
    read_charged(shared, place, wanted, charge).await
}

/// Reads a little of what is there at an offset, for who holds it only for a moment.
pub(super) async fn read(shared: Arc<Shared>, place: Place, offset: i64, bytes: u32) -> Result<Read, Error> {
    let held_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let wanted = Wanted { offset, fetch_bytes: bytes, held_bytes, waits: false };
    let read = read_charged(shared, place, wanted, |_| Some(())).await?;
    Ok(read.map(|(read, ())| read).unwrap_or_default())
}

async fn read_charged<C>(
    shared: Arc<Shared>,
    place: Place,
    wanted: Wanted,
    charge: impl Fn(usize) -> Option<C>,
) -> Result<Option<(Read, C)>, Error> {
    let offset = wanted.offset;
    let wait = if wanted.waits { WAIT } else { Duration::ZERO };
    let mut fetched = fetch(&shared, &place, offset, wanted.fetch_bytes, wait).await?;
    let mut charged = charge(fetched.batches.len());
    if charged.is_none() {
        return Ok(None);
    }
    let limits = DecodeLimits::held_bytes(wanted.held_bytes);
    let mut decoded = decode_with(&fetched.batches, offset, &fetched.aborted, limits)?;
    if decoded.truncated && decoded.next_offset == offset {
        // Nothing is charged while it is on its way.
        drop(charged.take());
        fetched = fetch(&shared, &place, offset, WHOLE_BATCH_BYTES, Duration::ZERO).await?;
        charged = charge(fetched.batches.len());
        if charged.is_none() {
            return Ok(None);
        }
        decoded = decode_with(&fetched.batches, offset, &fetched.aborted, limits)?;
    }
    let read = taken(&shared, &place, &fetched, decoded, wanted.held_bytes);
    Ok(charged.map(|charged| (read, charged)))
}

/// What is taken of what was decoded: as much as may be held.
fn taken(shared: &Shared, place: &Place, fetched: &Fetched, mut decoded: Decoded, held_bytes: usize) -> Read {
    let sizes: Vec<usize> = decoded.records.iter().map(size).collect();
    let count = sizes.len();
    // What was inflated is larger than what came, and may be less than a whole batch.
    let beside = count * size_of::<Record>();
    let mut bytes = decoded.held_bytes.saturating_sub(beside).max(sizes.iter().sum());
    // Of what the decoder left, only that it is some.
    let mut fetched_bytes = if decoded.stopped { fetched.batches.len() / 2 } else { fetched.batches.len() };
    if bytes + count * RECORD_OVERHEAD > held_bytes {
        let mut sum = 0;
        let fits = sizes.iter().take_while(|size| {
            let is_first = sum == 0;
            sum += *size + RECORD_OVERHEAD;
            is_first || sum <= held_bytes
        });
        let kept = fits.count();
        bytes = sizes[..kept].iter().sum();
        fetched_bytes = fetched_bytes * kept / count.max(1);
        if let Some(left) = decoded.records.get(kept) {
            decoded.next_offset = left.offset;
        }
        decoded.records.truncate(kept);
        // The rest of what was inflated is not held by these.
        own(&mut decoded.records);
    }
    let mut foreign = Vec::new();
    let seen = decoded.records.iter().zip(sizes).map(|(record, bytes)| {
        if is_foreign(record, place.group.as_bytes()) {
            foreign.push(record.offset);
        }
        let key = record.key.as_deref().map(|key| shared.key_hash(key));
        Seen { offset: record.offset, key, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) }
    });
    let seen = seen.collect();
    Read {
        seen,
        foreign,
        next_offset: decoded.next_offset,
        log_start: fetched.log_start_offset,
        epochs: decoded.epochs,
        end: match fetched.last_stable_offset {
            -1 => fetched.high_watermark,
            stable => stable,
        },
        bytes,
        fetched_bytes,
        is_cut: decoded.stopped || decoded.records.len() < count,
        records: decoded.records,
    }
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
        last_epoch: place.last_epoch,
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use sluice_types::TenantUid;

    use crate::groups::dispatch::budget::PROCESS_BYTES_MAX;
    use crate::groups::dispatch::testing;

    use super::*;

    #[tokio::test]
    async fn a_read_that_waits_for_a_silent_broker_holds_nothing_of_the_memory() {
        let broker = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = broker.local_addr().expect("address").to_string();
        let group = testing::group_on(&address);
        let assigned = testing::partition(&group, 0);
        let place = Place {
            topic: assigned.topic,
            topic_id: assigned.topic_id,
            partition: 0,
            share: 1,
            group: "g".into(),
            last_epoch: None,
        };
        let account = group.account.clone();
        let wanted = Wanted { offset: 0, fetch_bytes: 1 << 20, held_bytes: 1 << 20, waits: false };
        let read = read_within(Arc::clone(&group.shared), place, account.clone(), wanted);
        let silent = async {
            let (mut asked, _) = broker.accept().await.expect("a connection");
            asked.read_u32().await.expect("a request");
            let other = group.shared.budget.open(TenantUid::random());
            assert_eq!(account.held(), 0);
            assert!(other.try_charge(PROCESS_BYTES_MAX).is_some(), "all is there for others");
        };
        tokio::select! {
            _ = read => panic!("nobody has answered"),
            () = silent => {}
        }
    }
}
