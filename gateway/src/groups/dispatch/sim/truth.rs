//! What is true of every record, whatever any gateway believes, and the promises that are checked against it.

use std::collections::BTreeMap;

use crate::groups::dispatch::sim::kafka::{Committed, Tp};
use crate::groups::model::Leased;

/// Records that others may get while a partition waits for its turn.
const PASSED_MAX: u32 = 200;

/// One delivery.
#[derive(Debug, Clone, Copy)]
struct Delivery {
    term: u64,
    attempt: u32,
    /// Not before this has the machine the right to give the record to somebody else.
    until_ms: i64,
    /// Somebody settled it, or tried to.
    is_settled: bool,
    /// It was handed back: the attempt comes again.
    is_back: bool,
}

/// A record's fate.
#[derive(Debug, Default)]
pub(super) struct Fate {
    pub(super) offset: i64,
    key: Option<u8>,
    /// The life that acknowledged it and was answered OK.
    durable_by: Option<u64>,
    /// Its acknowledgement was sent to somebody, or its letter was stored.
    is_done: bool,
    /// Retention took it.
    is_trimmed: bool,
    /// It is in no log any more, by a fault of the log: nothing is promised.
    is_gone: bool,
    /// A reset or a log that was cut off may have passed it, or brought it back.
    is_loose: bool,
    last: Option<Delivery>,
    pub(super) deliveries: u32,
}

#[derive(Default)]
pub(super) struct Truth {
    /// The records of each partition, in the order of their making.
    parts: BTreeMap<Tp, Vec<Fate>>,
    key_ordered: bool,
    /// Since when nothing goes wrong any more: then partitions take turns.
    pub(super) is_fair: bool,
    /// Records of other partitions that were delivered since one of this one was.
    passed: BTreeMap<Tp, u32>,
    pub(super) acked: u64,
    pub(super) letters: u64,
}

/// Who delivers.
#[derive(Debug, Clone, Copy)]
pub(super) struct By {
    pub(super) life: u64,
    pub(super) now_ms: i64,
    /// Kafka takes it for a member.
    pub(super) is_member: bool,
}

impl Fate {
    fn is_over(&self) -> bool {
        self.is_done || self.is_trimmed || self.is_gone || self.is_loose
    }
}

impl Truth {
    pub(super) fn new(key_ordered: bool) -> Self {
        Self { key_ordered, ..Self::default() }
    }

    /// The number that the next record of a partition has in it.
    pub(super) fn next_id(&self, tp: &Tp) -> usize {
        self.parts.get(tp).map_or(0, Vec::len)
    }

    pub(super) fn appended(&mut self, tp: &Tp, offset: i64, key: Option<u8>, is_loose: bool) {
        self.parts.entry(tp.clone()).or_default().push(Fate { offset, key, is_loose, ..Fate::default() });
    }

    fn of(&mut self, tp: &Tp) -> impl Iterator<Item = &mut Fate> {
        self.parts.get_mut(tp).into_iter().flatten().filter(|fate| !fate.is_gone)
    }

    fn one(&mut self, tp: &Tp, id: usize) -> &mut Fate {
        &mut self.parts.get_mut(tp).expect("a partition of ours")[id]
    }

    /// A record reached a consumer.
    pub(super) fn delivered(&mut self, tp: &Tp, id: usize, leased: &Leased, by: By) {
        let (offset, term, attempt) = (leased.key.offset, leased.key.term, leased.key.attempt);
        let fate = self.one(tp, id);
        assert_eq!(fate.offset, offset, "a record under another offset");
        if !fate.is_gone && !fate.is_loose && by.is_member {
            assert!(
                fate.durable_by.is_none(),
                "delivered again after an OK ack: {tp:?} {fate:?} by life {} term {term:x}",
                by.life
            );
        }
        if let Some(last) = fate.last.filter(|last| last.term == term && !fate.is_gone) {
            assert!(
                last.is_settled || last.is_back || by.now_ms >= last.until_ms,
                "two leases of one record at a time: {tp:?} {fate:?} at {}",
                by.now_ms
            );
            assert!(last.attempt != attempt || last.is_back, "an attempt twice: {tp:?} {fate:?}");
        }
        fate.deliveries += 1;
        let is_first = fate.deliveries == 1;
        let until_ms = leased.lease_end_ms;
        fate.last = Some(Delivery { term, attempt, until_ms, is_settled: false, is_back: false });
        let (key, is_loose) = (fate.key, fate.is_loose);
        if self.key_ordered && key.is_some() && !is_loose && by.is_member {
            let before = self.of(tp).find(|other| other.offset < offset && other.key == key && !other.is_over());
            assert!(before.is_none(), "before an earlier record of its key: {tp:?} {offset} but {before:?}");
        }
        if self.is_fair && is_first {
            self.turn(tp);
        }
    }

    /// A partition has had its turn; those that wait for one do not wait for long.
    fn turn(&mut self, of: &Tp) {
        for (tp, fates) in &self.parts {
            let waits = fates.iter().any(|fate| fate.deliveries == 0 && !fate.is_over());
            let passed = self.passed.entry(tp.clone()).or_default();
            *passed = if waits && tp != of { *passed + 1 } else { 0 };
            assert!(*passed <= PASSED_MAX, "{tp:?} waits while others get {passed} records");
        }
    }

    /// Somebody is about to settle a lease of the record.
    pub(super) fn settles(&mut self, tp: &Tp, id: usize, is_ack: bool) {
        let fate = self.one(tp, id);
        fate.is_done |= is_ack;
        if let Some(last) = &mut fate.last {
            last.is_settled = true;
        }
    }

    pub(super) fn hands_back(&mut self, tp: &Tp, id: usize) {
        if let Some(last) = &mut self.one(tp, id).last {
            last.is_back = true;
        }
    }

    /// Somebody moves the end of its lease.
    pub(super) fn extends(&mut self, tp: &Tp, id: usize, until_ms: i64) {
        if let Some(last) = &mut self.one(tp, id).last {
            last.until_ms = last.until_ms.min(until_ms);
        }
    }

    /// An ack was answered OK.
    pub(super) fn acked(&mut self, tp: &Tp, id: usize, life: u64, committed: Option<&Committed>) {
        let fate = self.one(tp, id);
        if fate.is_gone || fate.is_loose || fate.is_trimmed {
            return;
        }
        let is_stored = committed.is_some_and(|committed| committed.window.is_done(fate.offset));
        assert!(is_stored, "an ack was answered OK and is not stored: {tp:?} {fate:?}");
        fate.durable_by.get_or_insert(life);
        self.acked += 1;
    }

    /// A letter is written by a gateway in a life of the group.
    pub(super) fn lettered(&mut self, tp: &Tp, id: usize, life: u64) {
        let fate = self.one(tp, id);
        assert!(
            fate.durable_by != Some(life) || fate.is_loose,
            "a letter of a record whose ack was answered OK: {fate:?}"
        );
        fate.is_done = true;
        self.letters += 1;
    }

    /// A position is committed.
    pub(super) fn committed(&mut self, tp: &Tp, before: Option<i64>, after: &Committed) {
        let from = before.unwrap_or(i64::MIN).min(after.offset);
        for fate in self.of(tp).filter(|fate| fate.offset >= from) {
            let is_done = after.window.is_done(fate.offset);
            assert!(!is_done || fate.is_over(), "a commit passed an undone record: {tp:?} {fate:?} {}", after.offset);
            assert!(
                is_done || fate.durable_by.is_none() || fate.is_trimmed || fate.is_loose,
                "a commit forgot an OK ack: {tp:?} {fate:?} {}",
                after.offset
            );
        }
    }

    /// Retention took what lies below an offset.
    pub(super) fn trimmed(&mut self, tp: &Tp, start: i64, had_begun: bool) {
        for fate in self.of(tp).filter(|fate| fate.offset < start) {
            fate.is_trimmed = true;
            // Who begins later loses nothing.
            fate.is_done |= !had_begun;
        }
    }

    /// The log was cut off: what follows is gone, and the rest may come again.
    pub(super) fn cut(&mut self, tp: &Tp, end: i64) {
        for fate in self.of(tp) {
            fate.is_gone |= fate.offset >= end;
            fate.is_loose = true;
        }
    }

    /// Its topic was deleted.
    pub(super) fn deleted(&mut self, tp: &Tp) {
        self.of(tp).for_each(|fate| fate.is_gone = true);
    }

    /// A reset begins to move a partition; until it is known to be stored anything may come, or not.
    pub(super) fn resets(&mut self, tp: &Tp, to: i64) {
        for fate in self.of(tp) {
            fate.is_loose = true;
            fate.durable_by = None;
            fate.is_done = fate.offset < to;
        }
    }

    /// It is stored: from now on all is as promised.
    pub(super) fn reset_stored(&mut self, tp: &Tp) {
        self.of(tp).for_each(|fate| fate.is_loose = false);
    }

    /// What was lost of a partition to retention before it was done.
    pub(super) fn lost_of(&self, tp: &Tp) -> u64 {
        let lost = |fate: &&Fate| fate.is_trimmed && !fate.is_done;
        self.parts.get(tp).into_iter().flatten().filter(lost).count() as u64
    }

    /// Whether nothing was done to a partition that lifts the promises.
    pub(super) fn is_firm(&self, tp: &Tp) -> bool {
        self.parts.get(tp).into_iter().flatten().all(|fate| !fate.is_loose && !fate.is_gone)
    }

    /// What is still to come, of all partitions.
    pub(super) fn pending(&self) -> impl Iterator<Item = (&Tp, &Fate)> {
        let all = self.parts.iter().flat_map(|(tp, fates)| fates.iter().map(move |fate| (tp, fate)));
        all.filter(|(_, fate)| !fate.is_over())
    }
}
