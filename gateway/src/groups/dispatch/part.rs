//! One partition of a dispatched group: its window, what of it is cached, who has what.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use sluice_types::TopicUid;
use sluice_wire::TopicPartition;

use crate::groups::dispatch::budget::Charge;
use crate::groups::dispatch::cache::Cache;
use crate::groups::dispatch::consumers::Holder;
use crate::groups::dispatch::epochs::Epochs;
use crate::groups::dispatch::losing::CutOff;
use crate::groups::dispatch::prefetching::CATCH_UP_BYTES;
use crate::groups::dispatch::reading::{Place, Read};
use crate::groups::model::{LeaseKey, Leased};
use crate::groups::window::{Bounds, Policy, Window};
use crate::view::ResolvedTopic;

/// Ready records that are not cached are looked at no further than this many at a time.
const MISSES_MAX: usize = 512;

/// Names a partition of a group.
pub(super) type PartKey = (TopicUid, i32);

/// A record that is out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    pub(super) holder: Holder,
    pub(super) bytes: u32,
    pub(super) end_ms: i64,
}

/// What one batch may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) records: usize,
    pub(super) bytes: u64,
    pub(super) is_empty: bool,
}

/// See the module.
pub(super) struct Part {
    pub(super) topic: Arc<ResolvedTopic>,
    pub(super) place: Place,
    pub(super) assigned: TopicPartition,
    pub(super) term: u64,
    pub(super) window: Window,
    /// The window goes on from what was committed; it was not put anywhere by force since.
    pub(super) is_restored: bool,
    pub(super) cache: Cache,
    pub(super) out: HashMap<i64, Out>,
    /// Something may be deliverable.
    pub(super) hot: bool,
    /// Ready records that have to be read again.
    pub(super) wants: BTreeSet<i64>,
    /// A read at the window's end is under way.
    pub(super) reading: bool,
    /// That read waits at the end of the log.
    pub(super) tailing: bool,
    /// A read of `wants` is under way.
    pub(super) rereading: bool,
    /// Bytes that reads under way may bring, save those that wait at the end.
    pub(super) expected: usize,
    /// What its next read asks Kafka for, at most.
    pub(super) fetch_bytes: usize,
    /// There are records to read, and no room for them.
    pub(super) starved: bool,
    /// The last read found the end.
    pub(super) at_end: bool,
    /// No reads before, after a failure.
    pub(super) read_after: Option<Instant>,
    /// The last read failed: why.
    pub(super) trouble: Option<String>,
    /// Where readers stand who have read everything, as of the last read.
    pub(super) end: i64,
    /// It is to be committed, though nothing may have changed.
    pub(super) aged: bool,
    /// Something of the window is to be committed.
    pub(super) changed: bool,
    pub(super) committed: Option<i64>,
    pub(super) committed_sequence: u64,
    /// Commits of this partition alone that failed one after the other, and when to try again.
    pub(super) commit_failed: Option<(u32, Instant)>,
    /// Under which leaders what was read was written.
    pub(super) epochs: Epochs,
    /// Where the log began, as of the last read.
    pub(super) log_start: i64,
    /// Since when the log has ended before the position.
    pub(super) beyond_since: Option<Instant>,
    /// The log was cut off behind the position.
    pub(super) cut_off: Option<CutOff>,
    chosen: Vec<(i64, u32)>,
}

impl Part {
    pub(super) fn new(
        topic: Arc<ResolvedTopic>,
        place: Place,
        assigned: TopicPartition,
        term: u64,
        window: Window,
    ) -> Self {
        let committed = Some(window.base());
        Self {
            topic,
            place,
            assigned,
            term,
            committed_sequence: 0,
            window,
            is_restored: true,
            cache: Cache::default(),
            out: HashMap::new(),
            hot: false,
            wants: BTreeSet::new(),
            reading: false,
            tailing: false,
            rereading: false,
            expected: 0,
            fetch_bytes: CATCH_UP_BYTES,
            starved: false,
            at_end: false,
            read_after: None,
            trouble: None,
            end: -1,
            aged: false,
            changed: false,
            committed,
            commit_failed: None,
            epochs: Epochs::default(),
            log_start: 0,
            beyond_since: None,
            cut_off: None,
            chosen: Vec::new(),
        }
    }

    pub(super) fn key(&self) -> PartKey {
        (self.topic.topic_uid, self.place.partition)
    }

    /// Where to read from an offset on.
    pub(super) fn place_at(&self, offset: i64) -> Place {
        Place { last_epoch: self.epochs.before(offset), ..self.place.clone() }
    }

    /// Its position is to be committed once more: Kafka forgets old ones.
    pub(super) fn refresh(&mut self) {
        self.aged = true;
        self.changed = true;
    }

    /// Whether it is to be committed now.
    pub(super) fn wants_commit(&self, now: Instant) -> bool {
        self.changed && self.commit_failed.is_none_or(|(_, at)| at <= now)
    }

    /// Until when a commit that is wanted waits, because the one before failed.
    pub(super) fn commit_waits(&self) -> Option<Instant> {
        self.commit_failed.filter(|_| self.changed).map(|(_, at)| at)
    }

    /// Begins anew at an offset: what is out is stale, what is read is read again.
    pub(super) fn restart(&mut self, offset: i64, term: u64, policy: Policy) -> Vec<Out> {
        let (topic, place, assigned) = (Arc::clone(&self.topic), self.place.clone(), self.assigned.clone());
        let window = Window::start_at(offset, policy, Bounds::default());
        let fresh = Self::new(topic, place, assigned, term, window);
        let before = std::mem::replace(self, fresh);
        self.committed = before.committed;
        self.window.inherit_skipped(before.window.skipped());
        self.cut_off = before.cut_off;
        self.log_start = before.log_start;
        self.epochs = before.epochs;
        self.is_restored = false;
        self.end = before.end;
        self.changed = true;
        before.out.into_values().collect()
    }

    /// Takes a read of the window's end; true if it brought something.
    pub(super) fn take_read(&mut self, from: i64, read: Read, charge: Charge) -> bool {
        self.end = read.end;
        if from != self.window.next_read() {
            return false;
        }
        self.epochs.learn(from, &read.epochs, read.next_offset);
        let before = self.window.sequence();
        let next = self.window.read(&read.seen, read.next_offset);
        for &offset in read.foreign.iter().filter(|&&offset| (from..next).contains(&offset)) {
            self.window.pass(offset);
        }
        self.changed |= self.window.sequence() > before;
        self.at_end = next >= read.end;
        let window = &self.window;
        let records = read.records.into_iter();
        // Those of other groups, and those that were acknowledged before a takeover, are done.
        let records = records.filter(|record| (from..next).contains(&record.offset) && !window.is_done(record.offset));
        self.cache.insert(records, read.bytes, charge);
        self.hot = true;
        next > from
    }

    /// Takes a read of records that were wanted again. Wanted ones that are not there any more are done.
    pub(super) fn take_reread(&mut self, from: i64, read: Read, charge: Charge) {
        let covered: Vec<i64> = self.wants.range(from..read.next_offset.max(from)).copied().collect();
        let found = |offset: &i64| read.seen.binary_search_by_key(offset, |seen| seen.offset).is_ok();
        for offset in covered.iter().filter(|offset| !found(offset)) {
            tracing::warn!(topic = %self.place.topic, partition = self.place.partition, offset, "a record that was to be delivered again is not in the log any more");
            self.window.pass(*offset);
            self.changed = true;
        }
        let wants = &mut self.wants;
        let records = read.records.into_iter().filter(|record| wants.contains(&record.offset));
        self.cache.insert(records, read.bytes, charge);
        self.wants.retain(|offset| covered.binary_search(offset).is_err());
        self.hot = true;
    }

    /// The log begins at an offset now: what lies below it is lost, unless it is out or cached. Gives how many offsets.
    pub(super) fn lose_below(&mut self, log_start: i64, now_ms: i64) -> u64 {
        self.log_start = self.log_start.max(log_start);
        if log_start <= self.window.base() {
            return 0;
        }
        let cache = &self.cache;
        let lost = self.window.lose_below(log_start, now_ms, |offset| cache.contains(offset));
        let window = &self.window;
        self.wants.retain(|&offset| offset >= log_start || !(window.is_done(offset) || cache.contains(offset)));
        self.hot |= lost > 0;
        lost
    }

    /// Records behind the end that are not done, as far as they can be read.
    pub(super) fn lag(&self) -> i64 {
        self.window.lag(self.log_start, self.end)
    }

    /// Leases what is ready and cached, as far as there is room; notes what is ready and has to be read again.
    pub(super) fn lease(&mut self, room: &mut Room, holder: Holder, now_ms: i64, batch: &mut Vec<Leased>) -> u64 {
        let mut chosen = std::mem::take(&mut self.chosen);
        let mut misses = 0;
        let mut is_full = false;
        for ready in self.window.ready() {
            if room.records == 0 || misses >= MISSES_MAX {
                is_full = true;
                break;
            }
            if !self.cache.contains(ready.offset) {
                misses += 1;
                self.wants.insert(ready.offset);
                continue;
            }
            if !room.is_empty && u64::from(ready.bytes) > room.bytes {
                is_full = true;
                break;
            }
            room.is_empty = false;
            room.records -= 1;
            room.bytes = room.bytes.saturating_sub(ready.bytes.into());
            chosen.push((ready.offset, ready.bytes));
        }
        self.hot = is_full && misses < MISSES_MAX;
        let mut taken = 0;
        for (offset, bytes) in chosen.drain(..) {
            let Some(record) = self.cache.take(offset) else { continue };
            let Some(lease) = self.window.lease(offset, now_ms) else { continue };
            self.out.insert(offset, Out { holder, bytes, end_ms: lease.end });
            taken += u64::from(bytes);
            let key = LeaseKey {
                topic: self.topic.topic_uid,
                partition: self.place.partition,
                offset,
                term: self.term,
                attempt: lease.attempt,
            };
            batch.push(Leased { key, lease_end_ms: lease.end, record });
        }
        self.chosen = chosen;
        taken
    }

    /// Takes a lease back whose record never left, if it is the current one.
    pub(super) fn unlease(&mut self, key: &LeaseKey) -> Option<Out> {
        if !self.window.unlease(key.offset, key.attempt) {
            return None;
        }
        self.hot = true;
        self.out.remove(&key.offset)
    }

    /// Ends what is due; gives the leases that ended.
    pub(super) fn tick(&mut self, now_ms: i64) -> Vec<Out> {
        if self.window.wake_at().is_none_or(|at| at > now_ms) {
            return Vec::new();
        }
        let before = self.window.sequence();
        self.window.tick(now_ms);
        self.changed |= self.window.sequence() > before;
        self.hot = true;
        let ended: Vec<i64> =
            self.out.iter().filter(|(_, out)| out.end_ms <= now_ms).map(|(offset, _)| *offset).collect();
        ended.iter().filter_map(|offset| self.out.remove(offset)).collect()
    }
}
