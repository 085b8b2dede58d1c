//! What `sluice.control` holds of each resource, as its readers see it: the version and content that gateways hold, and the
//! last record, which compaction keeps.
//!
//! Memory: about 80 bytes per resource; fine to some millions of them.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use sluice_control_log::{Carried, Change};
use sluice_proto::internal::control::v1::ControlRecord;
use sluice_types::Uid;

use crate::domain::record::{digest, is_gone, without_outbox_id};
use crate::store::comparison::NewestRow;

/// What one record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    version: i64,
    /// Of the payload, without what the relay adds.
    digest: i64,
    outbox_id: i64,
    gone: bool,
}

impl Carried for Said {
    fn read(value: &Bytes, record: Option<ControlRecord>) -> Option<Self> {
        let record = record?;
        let digest = digest(&without_outbox_id(value, &record));
        Some(Self { version: record.version, digest, outbox_id: record.outbox_id, gone: is_gone(&record) })
    }
}

/// The log as far as it was read.
#[derive(Debug, Default)]
pub(super) struct LogState {
    entries: HashMap<u64, Entry>,
    /// Those whose last record is not the newest.
    behind: HashSet<u64>,
    /// The greatest id of a change in it.
    outbox_id: i64,
    start: i64,
}

/// One resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// The highest version, and what the first record with it said: what readers hold.
    newest: i64,
    digest: i64,
    /// The last record.
    last: i64,
    last_digest: i64,
    last_offset: i64,
    gone: bool,
}

/// What the comparison of one resource says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They agree, or will when the row is published.
    Agree,
    /// The log lacks the row's state, though it was published.
    Publish,
    /// Readers hold another state of this or a higher version: the row's must be published above it.
    Raise(i64),
}

impl LogState {
    /// A record was read.
    pub(super) fn see(&mut self, change: Change<Said>) {
        let Ok(key) = change.uid.parse::<Uid>().map(Uid::as_u64) else { return };
        let Some(said) = change.now else {
            self.entries.remove(&key);
            self.behind.remove(&key);
            return;
        };
        self.outbox_id = self.outbox_id.max(said.outbox_id);
        let fresh = Entry {
            newest: said.version,
            digest: said.digest,
            last: said.version,
            last_digest: said.digest,
            last_offset: change.offset,
            gone: said.gone,
        };
        let held = self.entries.entry(key).or_insert(fresh);
        if said.version > held.newest {
            *held = fresh;
        } else {
            (held.last, held.last_digest, held.last_offset) = (said.version, said.digest, change.offset);
        }
        match held.last < held.newest {
            true => self.behind.insert(key),
            false => self.behind.remove(&key),
        };
    }

    /// The log begins at `start` now. A compacted log never loses its beginning; if it did, what stood there is gone. True if
    /// something is.
    pub(super) fn lost_before(&mut self, start: i64) -> bool {
        if start <= self.start {
            return false;
        }
        let before = self.entries.len();
        self.entries.retain(|_, held| held.last_offset >= start);
        self.behind.retain(|key| self.entries.contains_key(key));
        self.start = start;
        self.entries.len() < before
    }

    /// Compares a row with it.
    pub(super) fn judge(&self, row: &NewestRow) -> Verdict {
        let published = if row.published_offset.is_some() { Verdict::Publish } else { Verdict::Agree };
        match (row.digest, self.entries.get(&row.aggregate().as_u64())) {
            (None, None) => Verdict::Agree,
            (None, Some(_)) | (Some(_), None) => published,
            (Some(_), Some(held)) if row.version > held.newest => published,
            (Some(digest), Some(held)) if row.version == held.newest && digest == held.digest => {
                if held.last == held.newest && held.last_digest == digest { Verdict::Agree } else { published }
            }
            (Some(_), Some(held)) => Verdict::Raise(held.newest + 1),
        }
    }

    /// Whether this version of the resource, or a later one, stands in it.
    pub(super) fn holds(&self, aggregate: Uid, version: i64) -> bool {
        self.entries.get(&aggregate.as_u64()).is_some_and(|held| held.newest >= version)
    }

    /// The highest version of a resource that is in service, or on its way into it.
    pub(super) fn live_version(&self, aggregate: Uid) -> Option<i64> {
        self.entries.get(&aggregate.as_u64()).filter(|held| !held.gone).map(|held| held.newest)
    }

    /// Resources in service that stand in it before `offset` and are not among `known`.
    pub(super) fn live_without(&self, known: &HashSet<u64>, offset: i64) -> Vec<Uid> {
        let unknown = |(key, held): &(&u64, &Entry)| !held.gone && held.last_offset < offset && !known.contains(key);
        self.entries.iter().filter(unknown).map(|(key, _)| Uid::from_u64(*key)).collect()
    }

    /// Resources whose last record is older than the newest.
    pub(super) fn behind(&self) -> Vec<Uid> {
        self.behind.iter().copied().map(Uid::from_u64).collect()
    }

    /// Whether any is.
    pub(super) fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// The greatest id of a change in it.
    pub(super) fn outbox_id(&self) -> i64 {
        self.outbox_id
    }

    /// How many resources it knows.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::domain::record::with_outbox_id;
    use sluice_proto::internal::control::v1::TenantState;
    use sluice_proto::internal::control::v1::control_record::Resource;

    fn payload(version: i64, id: &str) -> Vec<u8> {
        let tenant = TenantState { id: id.into(), ..TenantState::default() };
        let resource = Some(Resource::Tenant(tenant));
        ControlRecord { version, resource, ..ControlRecord::default() }.encode_to_vec()
    }

    fn record(key: Uid, offset: i64, value: Option<Vec<u8>>) -> Change<Said> {
        let value = value.map(Bytes::from);
        Change::of(&key.to_string(), offset, value.as_ref()).expect("a record")
    }

    fn row(key: Uid, version: i64, payload: Option<&[u8]>, published: bool) -> NewestRow {
        NewestRow {
            id: 1,
            tenant_uid: 1,
            aggregate_uid: key.as_u64() as i64,
            version,
            published_offset: published.then_some(0),
            digest: payload.map(digest),
        }
    }

    #[test]
    fn a_row_is_judged_by_what_readers_of_the_log_hold() {
        let key = Uid::random();
        let mut log = LogState::default();
        let judge = |log: &LogState, version, id: &str, published| {
            log.judge(&row(key, version, Some(&payload(version, id)), published))
        };
        assert_eq!(judge(&log, 1, "a", false), Verdict::Agree, "it waits for the relay");
        assert_eq!(judge(&log, 1, "a", true), Verdict::Publish, "the log lost it");
        log.see(record(key, 0, Some(with_outbox_id(&payload(5, "a"), 9))));
        assert_eq!(judge(&log, 5, "a", true), Verdict::Agree);
        assert_eq!(judge(&log, 6, "b", true), Verdict::Publish, "the log lost the newest");
        assert_eq!(judge(&log, 4, "b", true), Verdict::Raise(6), "an older backup");
        assert_eq!(judge(&log, 4, "b", false), Verdict::Raise(6), "changed after the restore, not published yet");
        assert_eq!(judge(&log, 5, "b", true), Verdict::Raise(6), "readers hold another state of the same version");
        assert!(log.holds(key, 5) && !log.holds(key, 6), "the newest is still on its way");
        assert_eq!(log.outbox_id(), 9);
    }

    #[test]
    fn what_compaction_would_keep_counts_as_well_as_what_readers_hold() {
        let key = Uid::random();
        let mut log = LogState::default();
        let newest = row(key, 2, Some(&payload(2, "a")), true);
        log.see(record(key, 0, Some(payload(2, "a"))));
        log.see(record(key, 1, Some(payload(1, "a"))));
        assert_eq!((log.behind(), log.judge(&newest)), (vec![key], Verdict::Publish));
        log.see(record(key, 2, Some(payload(2, "b"))));
        assert!(!log.is_behind());
        assert_eq!(log.judge(&newest), Verdict::Publish, "the last record says something else");
        log.see(record(key, 3, Some(payload(2, "a"))));
        assert_eq!(log.judge(&newest), Verdict::Agree);
    }

    #[test]
    fn tombstones_and_resources_without_a_row_are_found() {
        let (known, stranger) = (Uid::random(), Uid::random());
        let mut log = LogState::default();
        let tombstone = row(known, 2, None, true);
        assert_eq!(log.judge(&tombstone), Verdict::Agree);
        log.see(record(known, 0, Some(payload(1, "a"))));
        assert_eq!(log.judge(&tombstone), Verdict::Publish, "it came back behind its tombstone");
        log.see(record(known, 1, None));
        assert_eq!(log.judge(&tombstone), Verdict::Agree);
        log.see(record(stranger, 2, Some(payload(7, "b"))));
        assert_eq!(log.live_without(&HashSet::new(), 3), [stranger]);
        assert!(log.live_without(&HashSet::new(), 2).is_empty(), "written after the rows were read, maybe");
        assert!(log.live_without(&HashSet::from([stranger.as_u64()]), 3).is_empty());
        assert_eq!(log.live_version(stranger), Some(7));
    }

    #[test]
    fn what_was_cut_off_at_the_beginning_is_no_longer_held() {
        let (lost, kept) = (Uid::random(), Uid::random());
        let mut log = LogState::default();
        log.see(record(lost, 0, Some(payload(1, "a"))));
        log.see(record(kept, 2, Some(payload(1, "b"))));
        assert!(!log.lost_before(0));
        assert!(log.lost_before(2));
        assert_eq!((log.holds(lost, 1), log.holds(kept, 1)), (false, true));
    }
}
