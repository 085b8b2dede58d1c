//! The window the naive way: everything is found by looking at everything. What the property tests hold the real one against.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::settling::RELEASES_FREE;
use super::*;

/// The first offset of the log.
pub(super) const START: i64 = 1_000;

/// A record of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) key: Option<u64>,
    pub(super) bytes: u32,
    /// Redriven for another group.
    pub(super) foreign: bool,
}

/// A log with gaps.
#[derive(Debug)]
pub(super) struct Log(pub(super) Vec<Option<Record>>);

impl Log {
    pub(super) fn get(&self, offset: i64) -> Option<Record> {
        *self.0.get(usize::try_from(offset - START).ok()?)?
    }

    pub(super) fn end(&self) -> i64 {
        START + self.0.len() as i64
    }

    pub(super) fn seen(&self, from: i64, until: i64) -> Vec<Seen> {
        let seen = |offset| self.get(offset).map(|Record { key, bytes, .. }| Seen { offset, key, bytes });
        (from..until).filter_map(seen).collect()
    }
}

/// Where a record stands that is read and not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Queued,
    Out { end: Millis },
    Waiting { at: Millis },
    Dead { writing: bool },
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    log: Rc<Log>,
    pub(super) policy: Policy,
    bounds: Bounds,
    pub(super) base: i64,
    pub(super) next_read: i64,
    pub(super) done: BTreeSet<i64>,
    pub(super) failures: BTreeMap<i64, u32>,
    /// Of this life.
    releases: BTreeMap<i64, u32>,
    pub(super) places: BTreeMap<i64, Place>,
    /// Of records that are not read: what a commit told.
    waits: BTreeMap<i64, Millis>,
}

impl Model {
    pub(super) fn new(log: Rc<Log>, policy: Policy, bounds: Bounds) -> Self {
        Self {
            log,
            policy,
            bounds,
            base: START,
            next_read: START,
            done: BTreeSet::new(),
            failures: BTreeMap::new(),
            releases: BTreeMap::new(),
            places: BTreeMap::new(),
            waits: BTreeMap::new(),
        }
    }

    /// What is left of it after a crash, if this was its state when it was last committed.
    pub(super) fn crash(&self, policy: Policy) -> Self {
        let mut waits = self.waits.clone();
        waits.extend(self.places.iter().filter_map(|(&offset, place)| match *place {
            // Of one that was only released a commit tells nothing.
            Place::Waiting { at } if self.failed(offset) > 0 => Some((offset, at)),
            _ => None,
        }));
        Self { policy, next_read: self.base, places: BTreeMap::new(), releases: BTreeMap::new(), waits, ..self.clone() }
    }

    /// What a commit has to tell: position, records done above it, failures of those not done.
    pub(super) fn told(&self) -> (i64, Vec<i64>, Vec<(i64, u32)>) {
        let done = self.done.iter().copied().filter(|&offset| offset > self.base && self.log.get(offset).is_some());
        let failures = self.failures.iter().filter(|(offset, _)| !self.done.contains(offset));
        (self.base, done.collect(), failures.map(|(&offset, &failures)| (offset, failures)).collect())
    }

    fn settle(&mut self) {
        while self.done.contains(&self.base) {
            self.base += 1;
        }
        self.next_read = self.next_read.max(self.base);
    }

    pub(super) fn attempt(&self, offset: i64) -> u32 {
        self.failed(offset) + self.released(offset) + 1
    }

    pub(super) fn released(&self, offset: i64) -> u32 {
        self.releases.get(&offset).copied().unwrap_or(0)
    }

    pub(super) fn failed(&self, offset: i64) -> u32 {
        self.failures.get(&offset).copied().unwrap_or(0)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.places.keys().filter_map(|&offset| self.log.get(offset)).map(|record| u64::from(record.bytes)).sum()
    }

    pub(super) fn is_at_bound(&self) -> bool {
        self.next_read - self.base >= self.bounds.offsets_max || self.bytes() >= self.bounds.bytes_max
    }

    pub(super) fn read(&mut self, until: i64) {
        while self.next_read < until {
            let offset = self.next_read;
            let record = self.log.get(offset);
            if offset - self.base >= self.bounds.offsets_max || (record.is_some() && self.is_at_bound()) {
                return;
            }
            self.next_read += 1;
            if record.is_none() {
                self.done.insert(offset);
            } else if !self.done.contains(&offset) {
                let place = self.waits.remove(&offset).map_or(Place::Queued, |at| Place::Waiting { at });
                self.places.insert(offset, place);
            }
            self.settle();
        }
    }

    pub(super) fn key(&self, offset: i64) -> Option<u64> {
        self.log.get(offset)?.key.filter(|_| self.policy.key_ordered)
    }

    pub(super) fn ready(&self) -> Vec<Ready> {
        let (mut ready, mut keys) = (Vec::new(), BTreeSet::new());
        for (&offset, &place) in &self.places {
            let is_first = self.key(offset).is_none_or(|key| keys.insert(key));
            if is_first && place == Place::Queued {
                let bytes = self.log.get(offset).map_or(0, |record| record.bytes);
                ready.push(Ready { offset, attempt: self.attempt(offset), bytes });
            }
        }
        ready.sort_by_key(|record| (self.failed(record.offset) == 0, record.offset));
        ready
    }

    pub(super) fn wake_at(&self) -> Option<Millis> {
        let time = |place: &Place| match *place {
            Place::Out { end: at } | Place::Waiting { at } => Some(at),
            Place::Queued | Place::Dead { .. } => None,
        };
        self.places.values().filter_map(time).min()
    }

    pub(super) fn lease(&mut self, offset: i64, now: Millis) -> Option<Lease> {
        let record = self.ready().into_iter().find(|record| record.offset == offset)?;
        let end = now + self.policy.ack_deadline_ms;
        self.places.insert(offset, Place::Out { end });
        Some(Lease { offset, attempt: record.attempt, end })
    }

    fn is_out(&self, offset: i64, attempt: u32) -> bool {
        matches!(self.places.get(&offset), Some(Place::Out { .. })) && self.attempt(offset) == attempt
    }

    pub(super) fn unlease(&mut self, offset: i64, attempt: u32) -> bool {
        let current = self.is_out(offset, attempt);
        if current {
            self.places.insert(offset, Place::Queued);
        }
        current
    }

    pub(super) fn release(&mut self, offset: i64, attempt: u32, delay: Option<i64>, now: Millis) -> Refused {
        if !self.is_out(offset, attempt) {
            return Refused::Stale;
        }
        let releases = self.released(offset) + 1;
        self.releases.insert(offset, releases);
        let often = releases.saturating_sub(u32::from(RELEASES_FREE));
        let least = if often > 0 { self.backoff(often) } else { 0 };
        let at = now + delay.unwrap_or(0).max(least);
        self.places.insert(offset, if at > now { Place::Waiting { at } } else { Place::Queued });
        Refused::Retry { at }
    }

    fn backoff(&self, failures: u32) -> i64 {
        let doubled = (1..failures).fold(self.policy.backoff_min_ms, |wait, _| (wait * 2).min(1_000_000));
        doubled.min(self.policy.backoff_max_ms)
    }

    pub(super) fn ack(&mut self, offset: i64, attempt: u32) -> Acked {
        if self.done.contains(&offset) {
            return Acked::AlreadyDone;
        }
        if !self.is_out(offset, attempt) {
            return Acked::Stale;
        }
        self.finish(offset);
        Acked::Done
    }

    /// Acks, letters and passes of a record that is read.
    pub(super) fn finish(&mut self, offset: i64) {
        if self.places.remove(&offset).is_some() {
            self.done.insert(offset);
            self.settle();
        }
    }

    pub(super) fn refuse(&mut self, offset: i64, attempt: u32, delay: Option<i64>, now: Millis) -> Refused {
        if self.is_out(offset, attempt) { self.fail(offset, delay, now) } else { Refused::Stale }
    }

    fn fail(&mut self, offset: i64, delay: Option<i64>, now: Millis) -> Refused {
        let failures = self.failed(offset) + 1;
        self.failures.insert(offset, failures);
        if self.policy.max_attempts.is_some_and(|most| failures >= most) {
            self.places.insert(offset, Place::Dead { writing: false });
            return Refused::Dead;
        }
        let at = now + delay.unwrap_or(self.backoff(failures));
        self.places.insert(offset, if at > now { Place::Waiting { at } } else { Place::Queued });
        Refused::Retry { at }
    }

    pub(super) fn extend(&mut self, offset: i64, attempt: u32, end: Millis) -> bool {
        let current = self.is_out(offset, attempt);
        if current {
            self.places.insert(offset, Place::Out { end });
        }
        current
    }

    pub(super) fn tick(&mut self, now: Millis) {
        for (offset, place) in self.places.clone() {
            match place {
                Place::Out { end } if end <= now => {
                    self.fail(offset, None, now);
                }
                Place::Waiting { at } if at <= now => {
                    self.places.insert(offset, Place::Queued);
                }
                _ => {}
            }
        }
    }

    /// Begins the letters of the dead: offsets and attempts.
    pub(super) fn dead(&mut self) -> Vec<(i64, u32)> {
        let is_dead = |place: &Place| *place == Place::Dead { writing: false };
        let dead: Vec<i64> =
            self.places.iter().filter(|(_, place)| is_dead(place)).map(|(&offset, _)| offset).collect();
        for &offset in &dead {
            self.places.insert(offset, Place::Dead { writing: true });
        }
        dead.into_iter().map(|offset| (offset, self.failed(offset))).collect()
    }

    pub(super) fn letter_failed(&mut self, offset: i64) {
        let most = self.policy.max_attempts;
        let failures = self.failures.get(&offset).copied().unwrap_or(0);
        if let Some(place) = self.places.get_mut(&offset) {
            let lives = most.is_none_or(|most| failures < most);
            *place = if lives { Place::Queued } else { Place::Dead { writing: false } };
        }
    }

    pub(super) fn set_max_attempts(&mut self, most: Option<u32>) {
        self.policy.max_attempts = most;
        for (offset, place) in &mut self.places {
            let failures = self.failures.get(offset).copied().unwrap_or(0);
            if *place == (Place::Dead { writing: false }) && most.is_none_or(|most| failures < most) {
                *place = Place::Queued;
            }
        }
    }

    pub(super) fn figures(&self, oldest_unacked: Option<(i64, Millis)>) -> Figures {
        let count = |wanted: fn(&Place) -> bool| self.places.values().filter(|place| wanted(place)).count() as i64;
        let ready = self.ready().len() as i64;
        Figures {
            window_offsets: self.next_read - self.base,
            outstanding: count(|place| matches!(place, Place::Out { .. })),
            delayed: count(|place| matches!(place, Place::Waiting { .. })),
            blocked: count(|place| *place == Place::Queued) - ready,
            acked_ahead: self.done.range(self.base..).count() as i64,
            ready,
            dead: count(|place| matches!(place, Place::Dead { .. })),
            bytes: self.bytes(),
            oldest_unacked,
        }
    }
}
