//! Dead records are read again, for their letters.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;

use sluice_types::record::logical_bytes;
use sluice_wire::{Error, Record};

use crate::groups::dispatch::part::PartKey;
use crate::groups::dispatch::positions;
use crate::groups::dispatch::reading::{Place, Read, read};
use crate::groups::dispatch::shared::Io;
use crate::groups::model::Start;
use crate::groups::window::Dead;

/// Bytes of the letters of one batch, save a single larger one.
const BATCH_BYTES: u64 = 4 << 20;
const READ_BYTES: u32 = 256 << 10;

/// A dead record.
pub(in crate::groups::dispatch) struct DeadRecord {
    pub(in crate::groups::dispatch) key: PartKey,
    pub(super) term: u64,
    pub(in crate::groups::dispatch) dead: Dead,
    pub(in crate::groups::dispatch) place: Place,
    /// The tenants' name of its topic.
    pub(super) topic: String,
}

/// A dead record, read again.
pub(in crate::groups::dispatch) struct RereadRecord {
    pub(in crate::groups::dispatch) dead_record: DeadRecord,
    pub(in crate::groups::dispatch) found: Result<Found, String>,
}

/// What the log holds of it.
#[derive(Debug)]
pub(in crate::groups::dispatch) enum Found {
    Record(Box<Record>),
    /// It is not in the log any more.
    Nothing,
    /// The log was cut off, at this offset: it is not the one that the record was in.
    CutOff(i64),
    /// The log ends before it, as a leader says that may merely lag.
    Beyond,
}

/// Reads dead records again; as many as one batch may hold. A partition that cannot be read holds up no other.
pub(in crate::groups::dispatch) async fn reread_all(io: Arc<Io>, dead_records: Vec<DeadRecord>) -> Vec<RereadRecord> {
    let mut of_parts: BTreeMap<PartKey, Vec<DeadRecord>> = BTreeMap::new();
    for dead_record in dead_records {
        of_parts.entry(dead_record.key).or_default().push(dead_record);
    }
    let share = BATCH_BYTES / of_parts.len().max(1) as u64;
    let read = of_parts.into_values().map(|dead_records| reread_part(&io, dead_records, share));
    join_all(read).await.into_iter().flatten().collect()
}

async fn reread_part(io: &Io, dead_records: Vec<DeadRecord>, bytes_max: u64) -> Vec<RereadRecord> {
    let mut reread = Vec::with_capacity(dead_records.len());
    let (mut last, mut bytes) = (None, 0);
    for dead_record in dead_records {
        let found = find(io, &dead_record, &mut last).await;
        if let Ok(Found::Record(record)) = &found {
            let headers = record.headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
            bytes += logical_bytes(record.key.as_deref(), record.value.as_deref(), headers);
        }
        let found = found.map_err(|error| {
            let (topic, partition) = (&dead_record.place.topic, dead_record.place.partition);
            tracing::debug!(%topic, partition, offset = dead_record.dead.offset, %error, "a dead record cannot be read");
            cannot_be_read(&dead_record)
        });
        let is_over = bytes >= bytes_max || !matches!(found, Ok(Found::Record(_) | Found::Nothing));
        reread.push(RereadRecord { dead_record, found });
        if is_over {
            break;
        }
    }
    reread
}

/// Without the error, which names Kafka's topics.
pub(super) fn cannot_be_read(dead_record: &DeadRecord) -> String {
    format!("records of {}/{} cannot be read at the moment", dead_record.topic, dead_record.place.partition)
}

/// The record, read again; neighbours mostly come with one read. [`Found::Nothing`]: it is certain that the log does not hold it any
/// more.
async fn find(io: &Io, dead_record: &DeadRecord, last: &mut Option<Read>) -> Result<Found, Error> {
    let (offset, place) = (dead_record.dead.offset, &dead_record.place);
    if let Some(record) = last.as_ref().and_then(|read| in_read(read, offset)) {
        return Ok(Found::Record(Box::new(record)));
    }
    match read(io, place.clone(), offset, READ_BYTES).await {
        Ok(read) => {
            let found = proven(&read, offset)?;
            *last = Some(read);
            Ok(found)
        }
        // Lost, if the log begins behind it. One that ends before it is not what it was: nothing is proven.
        Err(error @ Error::OffsetOutOfRange { .. }) => {
            let found = positions::find(&io.handles.wire, &place.topic, &[place.partition], Start::Earliest).await?;
            if positions::one(&found, place.partition)? > offset {
                return Ok(Found::Nothing);
            }
            tracing::debug!(%error, "a log ends before a dead record");
            Ok(Found::Beyond)
        }
        Err(Error::LogTruncated { end_offset, .. }) => Ok(Found::CutOff(end_offset)),
        Err(error) => Err(error),
    }
}

/// The record of an offset that was read, or the proof that it is gone: that the read went past it. An empty read proves nothing,
/// save that the log ends before it.
fn proven(read: &Read, offset: i64) -> Result<Found, Error> {
    match in_read(read, offset) {
        Some(record) => Ok(Found::Record(Box::new(record))),
        None if read.next_offset > offset => Ok(Found::Nothing),
        // Its end is the record's place: a read there is in order, and finds nothing.
        None if read.end <= offset => Ok(Found::Beyond),
        None => Err(Error::Protocol("nothing came, though the log reaches further".to_owned())),
    }
}

fn in_read(read: &Read, offset: i64) -> Option<Record> {
    let at = read.records.binary_search_by_key(&offset, |record| record.offset).ok()?;
    Some(read.records[at].clone())
}

#[cfg(test)]
mod tests {
    use crate::groups::dispatch::dead_lettering::letter::tests::record;

    use super::*;

    #[test]
    fn an_empty_read_is_no_proof_that_a_dead_record_is_gone() {
        let read = |records: Vec<Record>, next_offset| Read { records, next_offset, end: 9, ..Read::default() };
        assert!(proven(&read(vec![], 5), 5).is_err(), "as after a change of the leader");
        assert!(matches!(proven(&read(vec![record(7, &[])], 8), 5), Ok(Found::Nothing)));
        assert!(matches!(proven(&read(vec![record(5, &[])], 6), 5), Ok(Found::Record(_))));
        assert!(matches!(proven(&read(vec![], 9), 9), Ok(Found::Beyond)), "the log is shorter than it was");
    }
}
