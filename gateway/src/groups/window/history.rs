//! One history of a partition through all its lives: a window beside its naive [`model`](super::model), step by step, and what
//! users are promised meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseResult;

use super::model::{Log, Model, Place, START};
use super::*;

/// One step. An index picks among what there is: ready records, leases ever given (stale ones too), the dead, commits.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Read(i64),
    Lease(Index),
    LeaseAny(Index),
    Unlease(Index),
    Ack(Index),
    Refuse(Index, Option<i64>),
    Release(Index, Option<i64>),
    Extend(Index, i64),
    Wait(i64),
    BeginLetters,
    WriteLetter(Index),
    FailLetter(Index),
    SetMaxAttempts(Option<u32>),
    Snapshot,
    Committed(Index),
    Crash(Index),
}

/// A window and its model, side by side, and what has happened in all its lives.
pub(super) struct History {
    log: Rc<Log>,
    bounds: Bounds,
    window: Window,
    model: Model,
    now: Millis,
    /// Leases of this life.
    leases: Vec<(i64, u32)>,
    /// Commits sent, of which nobody knows whether they arrived.
    sent: Vec<(Snapshot, Model)>,
    committed: (Snapshot, Model),
    /// Acks of this life, with the sequence that makes them durable.
    acks: Vec<(i64, u64)>,
    /// First deliveries of this life.
    first: BTreeMap<i64, Millis>,
    /// Acked, and told so after a commit.
    durable: BTreeSet<i64>,
    /// Failures in all lives.
    failures: BTreeMap<i64, u32>,
    delivered: BTreeSet<i64>,
    settled: BTreeSet<i64>,
}

impl History {
    pub(super) fn new(log: Log, policy: Policy, bounds: Bounds) -> Self {
        let log = Rc::new(log);
        let mut window = Window::start_at(START, policy, bounds);
        let model = Model::new(Rc::clone(&log), policy, bounds);
        let start = window.snapshot().expect("the start is to be committed");
        window.committed(start.sequence);
        Self {
            log,
            bounds,
            window,
            committed: (start, model.clone()),
            model,
            now: 0,
            leases: Vec::new(),
            sent: Vec::new(),
            acks: Vec::new(),
            first: BTreeMap::new(),
            durable: BTreeSet::new(),
            failures: BTreeMap::new(),
            delivered: BTreeSet::new(),
            settled: BTreeSet::new(),
        }
    }

    pub(super) fn step(&mut self, step: &Step) -> TestCaseResult {
        match step {
            Step::Read(count) => self.read(self.model.next_read + count)?,
            Step::Lease(index) => {
                let ready = self.model.ready();
                if !ready.is_empty() {
                    self.lease(index.get(&ready).offset)?;
                }
            }
            Step::LeaseAny(index) => self.lease(START + index.index(self.log.0.len()) as i64)?,
            Step::Unlease(index) => {
                if let Some((offset, attempt)) = self.pick_lease(index) {
                    self.window.unlease(offset, attempt);
                    if self.model.unlease(offset, attempt) && self.model.failed(offset) == 0 {
                        self.first.remove(&offset);
                    }
                }
            }
            Step::Ack(index) => {
                if let Some((offset, attempt)) = self.pick_lease(index) {
                    self.ack(offset, attempt)?;
                }
            }
            Step::Refuse(index, delay) => {
                if let Some((offset, attempt)) = self.pick_lease(index) {
                    let refused = self.window.refuse(offset, attempt, *delay, Arc::from(""), self.now);
                    prop_assert_eq!(refused, self.model.refuse(offset, attempt, *delay, self.now));
                }
            }
            Step::Release(index, delay) => {
                if let Some((offset, attempt)) = self.pick_lease(index) {
                    let released = self.window.release(offset, attempt, *delay, self.now);
                    prop_assert_eq!(released, self.model.release(offset, attempt, *delay, self.now));
                    if released != Refused::Stale && self.model.failed(offset) == 0 {
                        self.first.remove(&offset);
                    }
                }
            }
            Step::Extend(index, time) => {
                if let Some((offset, attempt)) = self.pick_lease(index) {
                    let end = self.now + time;
                    let extended = self.window.extend(offset, attempt, end);
                    prop_assert_eq!(extended, self.model.extend(offset, attempt, end));
                }
            }
            Step::Wait(time) => self.wait(*time),
            Step::BeginLetters => {
                let begun = self.begin_letters();
                prop_assert_eq!(begun, self.model.dead());
            }
            Step::WriteLetter(index) => {
                if let Some(offset) = self.pick_dead(index) {
                    self.letter_written(offset);
                }
            }
            Step::FailLetter(index) => {
                if let Some(offset) = self.pick_dead(index) {
                    self.window.letter_failed(offset);
                    self.model.letter_failed(offset);
                }
            }
            Step::SetMaxAttempts(most) => {
                self.window.set_policy(Policy { max_attempts: *most, ..self.model.policy });
                self.model.set_max_attempts(*most);
            }
            Step::Snapshot => self.snapshot()?,
            Step::Committed(index) => {
                if !self.sent.is_empty() {
                    self.commit(index.index(self.sent.len()))?;
                }
            }
            Step::Crash(index) => self.crash(index),
        }
        self.compare()
    }

    fn read(&mut self, until: i64) -> TestCaseResult {
        let (from, until) = (self.model.next_read, until.min(self.log.end()));
        let next = self.window.read(&self.log.seen(from, until), until);
        self.model.read(until);
        prop_assert_eq!(next, self.model.next_read);
        for offset in from..next {
            if self.log.get(offset).is_some_and(|record| record.foreign) {
                self.window.pass(offset);
                self.model.finish(offset);
                self.settled.insert(offset);
            }
        }
        Ok(())
    }

    fn lease(&mut self, offset: i64) -> TestCaseResult {
        let lease = self.window.lease(offset, self.now);
        prop_assert_eq!(lease, self.model.lease(offset, self.now));
        let Some(lease) = lease else { return Ok(()) };
        prop_assert!(!self.durable.contains(&offset), "{} was acked and committed", offset);
        let failures = self.failures.get(&offset).copied().unwrap_or(0);
        let releases = self.model.released(offset);
        prop_assert!(lease.attempt <= failures + releases + 1, "{:?} after {} failures", lease, failures);
        if let Some(key) = self.model.key(offset) {
            let same = |other: &&i64| **other != offset && self.model.key(**other) == Some(key);
            if !self.delivered.contains(&offset) {
                let later = self.delivered.range(offset..).find(same);
                prop_assert_eq!(later, None, "delivered before {}", offset);
            }
            let is_out = |other: &&i64| matches!(self.model.places.get(*other), Some(Place::Out { .. }));
            let out = self.model.places.keys().filter(same).find(is_out);
            prop_assert_eq!(out, None, "out beside {}", offset);
        }
        self.first.entry(offset).or_insert(self.now);
        self.delivered.insert(offset);
        self.leases.push((offset, lease.attempt));
        Ok(())
    }

    fn ack(&mut self, offset: i64, attempt: u32) -> TestCaseResult {
        let acked = self.window.ack(offset, attempt);
        prop_assert_eq!(acked, self.model.ack(offset, attempt));
        if acked != Acked::Stale {
            self.settled.insert(offset);
            self.acks.push((offset, self.window.sequence()));
        }
        Ok(())
    }

    fn begin_letters(&mut self) -> Vec<(i64, u32)> {
        let dead: Vec<(i64, u32)> = self.window.dead().map(|dead| (dead.offset, dead.attempts)).collect();
        dead.into_iter().filter(|(offset, _)| self.window.begin_letter(*offset)).collect()
    }

    fn letter_written(&mut self, offset: i64) {
        self.window.letter_written(offset);
        self.model.finish(offset);
        self.settled.insert(offset);
    }

    fn wait(&mut self, time: i64) {
        self.now += time;
        self.window.tick(self.now);
        self.model.tick(self.now);
    }

    fn snapshot(&mut self) -> TestCaseResult {
        let Some(snapshot) = self.window.snapshot() else {
            prop_assert_eq!(self.model.told(), self.committed.1.told(), "changed, and nothing to commit");
            return Ok(());
        };
        prop_assert!(snapshot.metadata.len() <= 4_096);
        for offset in START..snapshot.offset {
            let passed = self.log.get(offset).is_none() || self.settled.contains(&offset);
            prop_assert!(passed, "{} is not done and below the snapshot {}", offset, snapshot.offset);
        }
        self.sent.push((snapshot, self.model.clone()));
        Ok(())
    }

    fn commit(&mut self, index: usize) -> TestCaseResult {
        let committed = self.sent.drain(..=index).next_back().expect("sent");
        self.window.committed(committed.0.sequence);
        for &(offset, sequence) in &self.acks {
            if sequence <= committed.0.sequence {
                prop_assert!(committed.1.done.contains(&offset), "{} should be in the commit", offset);
                self.durable.insert(offset);
            }
        }
        self.committed = committed;
        Ok(())
    }

    /// Kafka has the latest commit that was answered, or one that was sent after it.
    fn crash(&mut self, index: &Index) {
        let index = index.index(self.sent.len() + 1);
        if index > 0 {
            self.committed = self.sent.swap_remove(index - 1);
        }
        let (Snapshot { offset, metadata, .. }, model) = &self.committed;
        self.window = Window::restore(*offset, metadata, self.model.policy, self.bounds, self.now).0;
        self.model = model.crash(self.model.policy);
        self.sent.clear();
        self.leases.clear();
        self.acks.clear();
        self.first.clear();
        self.committed.0.sequence = 0;
    }

    fn compare(&mut self) -> TestCaseResult {
        for (&offset, &failures) in &self.model.failures {
            let most = self.failures.entry(offset).or_default();
            *most = failures.max(*most);
        }
        prop_assert_eq!(self.window.base(), self.model.base);
        prop_assert_eq!(self.window.next_read(), self.model.next_read);
        prop_assert_eq!(self.window.ready().collect::<Vec<_>>(), self.model.ready());
        prop_assert_eq!(self.window.wake_at(), self.model.wake_at());
        let figures = self.window.figures();
        prop_assert_eq!(figures, self.model.figures(self.oldest_unacked()));
        prop_assert!(figures.window_offsets <= self.bounds.offsets_max);
        prop_assert!(figures.bytes < self.bounds.bytes_max + 100);
        prop_assert!(!(self.window.has_room() && self.model.is_at_bound()));
        prop_assert!(self.window.has_room() || figures.window_offsets > 0);
        Ok(())
    }

    fn oldest_unacked(&self) -> Option<(i64, Millis)> {
        let delivered = |(&offset, &place): (&i64, &Place)| {
            let was = matches!(place, Place::Out { .. }) || self.model.failed(offset) > 0;
            self.first.get(&offset).filter(|_| was).map(|&first| (offset, first))
        };
        self.model.places.iter().find_map(delivered)
    }

    /// Acks until nothing is left.
    pub(super) fn drain(&mut self) -> TestCaseResult {
        let mut rounds = 0;
        while self.model.base < self.log.end() {
            rounds += 1;
            prop_assert!(rounds < 10_000, "stuck at {}", self.model.base);
            self.read(self.log.end())?;
            for record in self.model.ready() {
                self.lease(record.offset)?;
                self.ack(record.offset, record.attempt)?;
            }
            prop_assert_eq!(self.begin_letters(), self.model.dead());
            let told: Vec<i64> = self.told_dead();
            told.into_iter().for_each(|offset| self.letter_written(offset));
            self.wait(100);
            self.compare()?;
        }
        prop_assert_eq!(self.window.base(), self.log.end());
        prop_assert_eq!(self.window.current().metadata, "");
        for offset in START..self.log.end() {
            prop_assert!(self.log.get(offset).is_none() || self.settled.contains(&offset), "{} is lost", offset);
        }
        Ok(())
    }

    fn told_dead(&self) -> Vec<i64> {
        let dead = self.model.places.iter().filter(|(_, place)| matches!(place, Place::Dead { writing: true }));
        dead.map(|(&offset, _)| offset).collect()
    }

    fn pick_lease(&self, index: &Index) -> Option<(i64, u32)> {
        // Mostly among the latest, or nearly all would be stale.
        let recent = &self.leases[self.leases.len().saturating_sub(12)..];
        (!recent.is_empty()).then(|| *index.get(recent))
    }

    fn pick_dead(&self, index: &Index) -> Option<i64> {
        let dead = self.told_dead();
        (!dead.is_empty()).then(|| *index.get(&dead))
    }
}
