//! What the machine wants done, done by the model: calls that take their time, are lost, or answered late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Context;

use futures::FutureExt as _;
use futures::task::noop_waker_ref;

use sluice_proto::stream::v1::reset_offsets_request::To;
use sluice_wire::{Error, PartitionResults};

use crate::groups::dispatch::action::{Action, Done, Event};
use crate::groups::dispatch::committing::Commit;
use crate::groups::dispatch::dead_lettering::{DeadRecord, Found, RereadRecord};
use crate::groups::dispatch::losing::{LogBounds, Reading};
use crate::groups::dispatch::opening::Step;
use crate::groups::dispatch::positions::{Closed, Known, Position};
use crate::groups::dispatch::reading::Read;
use crate::groups::dispatch::resetting::{Move, Planned, ResetCall};
use crate::groups::dispatch::sim::happening::{Came, Happening};
use crate::groups::dispatch::sim::kafka::{Committed, Tp, id_of};
use crate::groups::dispatch::sim::world::World;
use crate::groups::model::Start;
use crate::groups::window::{Bounds, Policy, Window};

/// A call that nobody answers is given up after this.
const TIMEOUT_MS: u64 = 5_000;
const WAIT_MS: u64 = 60_000;
const INFLATES: usize = 8;
const ANY: Policy =
    Policy { key_ordered: false, ack_deadline_ms: 1, max_attempts: None, backoff_min_ms: 0, backoff_max_ms: 0 };

/// What came of each partition.
type Each<T> = Vec<(Closed, Result<T, Error>)>;

impl World {
    /// How long a message takes.
    fn delay(&mut self) -> u64 {
        match self.chance.below(20) {
            0 => self.chance.within(20..400),
            _ => self.chance.within(1..12),
        }
    }

    fn is_cut(&self, gateway: usize) -> bool {
        self.clock.now < self.gateways[gateway].cut_until
    }

    /// Whether a message is lost on its way between a gateway and Kafka.
    pub(super) fn is_lost(&mut self, gateway: usize) -> bool {
        let lossy = self.lossy;
        self.is_cut(gateway) || self.chance.percent(lossy)
    }

    pub(super) fn act(&mut self, gateway: usize, life: u64, action: Action) {
        match action {
            Action::Join { topics } => self.join(gateway, topics),
            Action::Subscribe { topics } => self.member_of(gateway, life, |member| member.topics = topics),
            Action::Release(partitions) => self.member_of(gateway, life, |member| {
                for one in partitions {
                    let tp = (one.topic, one.partition);
                    member.revoking.remove(&tp);
                    member.assigned.remove(&tp);
                }
            }),
            Action::Beat => self.member_of(gateway, life, |_| {}),
            Action::AnswerInTwo(two) => {
                if let Some(running) = self.gateways[gateway].of_life(life) {
                    running.twos.push(two.run().boxed());
                }
            }
            Action::AwaitPlace { id, events } => {
                if let Some(running) = self.gateways[gateway].of_life(life) {
                    running.places.push((id, events));
                }
            }
            Action::Leave => self.leave(gateway, life),
            Action::Inspect(_) => {}
            Action::LookForOthers { after, since } => {
                let after = after.as_millis() as u64;
                self.send(gateway, life, Action::LookForOthers { after: std::time::Duration::ZERO, since }, after);
            }
            action => self.send(gateway, life, action, 0),
        }
    }

    fn send(&mut self, gateway: usize, life: u64, action: Action, after: u64) {
        let delay = after + self.delay();
        let (is_lost, is_unheard) = (self.is_lost(gateway), self.is_lost(gateway));
        match is_lost {
            true => self.answer(gateway, life, action, Err(Error::DeadlineExceeded), TIMEOUT_MS + delay),
            false => self.later(delay, Happening::Call { gateway, life, action, is_unheard }),
        }
    }

    /// A call arrives at Kafka.
    pub(super) fn call(&mut self, gateway: usize, life: u64, action: Action, is_unheard: bool) {
        self.kafka.expire(self.clock.now);
        let now = self.clock.now;
        if let Action::Read { place, wanted, .. } = &action
            && let Ok(None) = self.kafka.read(place, wanted, now)
        {
            self.parks += 1;
            let park = self.parks;
            self.parked.insert(park, (gateway, life, action));
            return self.later(WAIT_MS, Happening::ParkOver(park));
        }
        let outcome = if is_unheard && !has_effect(&action) { Err(Error::DeadlineExceeded) } else { Ok(is_unheard) };
        let mut delay = if is_unheard { TIMEOUT_MS } else { self.delay() };
        // A record is read, and its letter is written much later.
        if matches!(action, Action::RereadDead(_)) && !self.is_calm && self.chance.percent(30) {
            delay = self.chance.within(500..4_000);
        }
        self.answer(gateway, life, action, outcome, delay);
    }

    /// A record came, or retention took some: reads that wait look again.
    pub(super) fn unpark(&mut self, tp: &Tp) {
        let is_of = |action: &Action| matches!(action, Action::Read { place, .. } if place.topic == tp.0 && place.partition == tp.1);
        let woken: Vec<u64> =
            self.parked.iter().filter(|(_, (_, _, action))| is_of(action)).map(|(park, _)| *park).collect();
        for park in woken {
            if let Some((gateway, life, action)) = self.parked.remove(&park) {
                self.later(1, Happening::Call { gateway, life, action, is_unheard: false });
            }
        }
    }

    pub(super) fn park_over(&mut self, park: u64) {
        let Some((gateway, life, Action::Read { reading, key, term, place, wanted })) = self.parked.remove(&park)
        else {
            return;
        };
        let log = self.kafka.logs.get(&(Arc::clone(&place.topic), place.partition));
        let read = log.map(|log| Read {
            next_offset: wanted.offset,
            end: log.end.min(wanted.offset),
            log_start: log.start,
            ..Read::default()
        });
        let outcome = read.ok_or(Error::NoController);
        let came = Box::new(Came { reading, key, term, wanted, outcome });
        self.later(1, Happening::Came { gateway, life, came });
    }

    /// Does a call, if it comes so far, and sends its answer. `Ok(true)`: it takes effect and nobody hears of it.
    fn answer(&mut self, gateway: usize, life: u64, action: Action, outcome: Result<bool, Error>, delay: u64) {
        let fails = outcome.as_ref().err().cloned();
        let heard = |result: &Result<bool, Error>| matches!(result, Ok(false));
        let done = match action {
            Action::Read { reading, key, term, place, wanted } => {
                let now = self.clock.now;
                let read = outcome.and_then(|_| self.kafka.read(&place, &wanted, now));
                let outcome = read.map(Option::unwrap_or_default);
                let came = Box::new(Came { reading, key, term, wanted, outcome });
                return self.later(delay, Happening::Came { gateway, life, came });
            }
            Action::LookForOthers { since, .. } => match self.look_for_others(gateway, life, since, fails) {
                Some(looked) => Done::Alone(looked),
                None => {
                    let after = self.chance.within(10..100);
                    let again = Action::LookForOthers { after: std::time::Duration::ZERO, since };
                    return self.send(gateway, life, again, after);
                }
            },
            Action::CheckOthers { revoked } => {
                let is_alone = fails.is_none() && self.kafka.members.len() == 1;
                Done::Checked { revoked, is_alone }
            }
            Action::LookPositions { member, closed } => {
                let looked = outcome.and_then(|_| self.look_positions(&member.id, member.epoch, &closed));
                let step = looked.map_or_else(|error| Step::Failed(closed, error), Step::Looked);
                Done::Opening { epoch: member.epoch, step }
            }
            Action::BeginPositions { member, fresh } => {
                let closed: Vec<Closed> = fresh.iter().map(|(closed, _)| closed.clone()).collect();
                let is_heard = heard(&outcome);
                let begun = outcome.and_then(|_| self.begin_positions(&member.id, member.epoch, fresh));
                let begun = if is_heard { begun } else { begun.and(Err(Error::DeadlineExceeded)) };
                let step = begun.map_or_else(|error| Step::Failed(closed, error), Step::Begun);
                Done::Opening { epoch: member.epoch, step }
            }
            Action::FindBounds { key, term, reading, place } => {
                let (tp, now) = ((place.topic, place.partition), self.clock.now);
                let bounds = outcome.and_then(|_| self.kafka.led(&tp, now));
                let outcome = bounds.map(|log| LogBounds { start: log.start, end: log.end });
                Done::Bounds { key, term, reading, outcome }
            }
            Action::Commit(commit) => {
                let is_heard = heard(&outcome);
                let stored = outcome.and_then(|_| self.commit(&commit));
                let stored = if is_heard { stored } else { stored.and(Err(Error::DeadlineExceeded)) };
                Done::Committed(commit.over(stored))
            }
            Action::RereadDead(dead) => {
                let reread = dead.into_iter().map(|dead| RereadRecord {
                    found: match fails {
                        Some(_) => Err("lost".to_owned()),
                        None => self.find_dead(&dead),
                    },
                    dead_record: dead,
                });
                Done::RereadRecord(reread.collect())
            }
            Action::WriteLetters(letters) => {
                let is_heard = heard(&outcome);
                let stored = letters.letters.iter().map(|letter| match outcome {
                    Ok(_) => {
                        let tp = (Arc::clone(&self.names[&letter.key.0]), letter.key.1);
                        self.truth.lettered(&tp, id_of(letter.record.value.as_ref()), life);
                        if is_heard { Ok(()) } else { Err("not known".to_owned()) }
                    }
                    Err(_) => Err("lost".to_owned()),
                });
                let stored: Vec<_> = stored.collect();
                Done::LetterOutcome(letters.outcomes(stored))
            }
            Action::FindTargets { call, moves } => {
                let planned = self.find_targets(call, moves);
                Done::Planned(planned)
            }
            _ => return,
        };
        self.later(delay, Happening::Back { gateway, life, done: Box::new(done) });
    }

    fn look_positions(&self, id: &str, epoch: i32, closed: &[Closed]) -> Result<Each<Known>, Error> {
        self.kafka.is_away(self.clock.now)?;
        self.kafka.is_member(id, epoch)?;
        let known = |closed: &Closed| {
            let tp = (Arc::clone(&closed.assigned.topic), closed.assigned.partition);
            let of_topic = || self.kafka.committed.keys().any(|known| known.0 == tp.0);
            match self.kafka.committed.get(&tp) {
                Some(Committed { offset, leader_epoch, metadata, .. }) => {
                    Known::At(Position { offset: *offset, leader_epoch: *leader_epoch, metadata: metadata.clone() })
                }
                None if of_topic() => Known::Added,
                None => Known::Never,
            }
        };
        Ok(closed.iter().map(|closed| (closed.clone(), Ok(known(closed)))).collect())
    }

    fn begin_positions(&mut self, id: &str, epoch: i32, fresh: Vec<(Closed, Start)>) -> Result<Each<Position>, Error> {
        self.kafka.is_away(self.clock.now)?;
        self.kafka.is_member(id, epoch)?;
        let begun = fresh.into_iter().map(|(closed, _)| {
            let tp = (Arc::clone(&closed.assigned.topic), closed.assigned.partition);
            let found = self.kafka.led(&tp, self.clock.now).map(|log| log.start);
            let position = found.map(|offset| {
                self.store(&tp, offset, None, String::new());
                Position { offset, leader_epoch: None, metadata: String::new() }
            });
            (closed, position)
        });
        Ok(begun.collect())
    }

    fn commit(&mut self, commit: &Commit) -> Result<PartitionResults<()>, Error> {
        self.kafka.is_away(self.clock.now)?;
        self.kafka.is_member(&commit.member.id, commit.member.epoch)?;
        let mut results = BTreeMap::new();
        for one in &commit.offsets {
            let tp: Tp = (one.topic.as_str().into(), one.partition);
            let stored = match self.kafka.logs.contains_key(&tp) {
                true => {
                    self.store(&tp, one.offset, one.leader_epoch, one.metadata.clone());
                    Ok(())
                }
                false => Err(Error::UnknownPartition { topic: one.topic.clone(), partition: one.partition }),
            };
            results.insert((one.topic.clone(), one.partition), stored);
        }
        Ok(results)
    }

    fn store(&mut self, tp: &Tp, offset: i64, leader_epoch: Option<i32>, metadata: String) {
        let (window, _) = Window::restore(offset, &metadata, ANY, Bounds::default(), 0);
        let after = Committed { offset, leader_epoch, metadata, window };
        let before = self.kafka.committed.get(tp).map(|before| before.offset);
        self.truth.committed(tp, before, &after);
        self.kafka.committed.insert(tp.clone(), after);
    }

    fn find_dead(&self, dead: &DeadRecord) -> Result<Found, String> {
        let tp = (Arc::clone(&dead.place.topic), dead.place.partition);
        let log = self.kafka.led(&tp, self.clock.now).map_err(|error| error.to_string())?;
        let offset = dead.dead.offset;
        Ok(match log.at(offset) {
            Some(rec) => Found::Record(Box::new(rec.record())),
            None if offset >= log.end => Found::Beyond,
            None => Found::Nothing,
        })
    }

    fn find_targets(&mut self, call: ResetCall, mut moves: Vec<Move>) -> Planned {
        for one in &mut moves {
            let Some(log) = self.kafka.logs.get(&(Arc::clone(&one.topic), one.key.1)) else { continue };
            one.to = match call.request.to {
                Some(To::Offset(offset)) => offset.clamp(log.start, log.end),
                _ => log.start,
            };
        }
        Planned { call, outcome: Ok(moves) }
    }

    pub(super) fn came(&mut self, gateway: usize, life: u64, came: Came) {
        let Some(running) = self.gateways[gateway].of_life(life) else { return };
        let Came { reading, key, term, wanted, outcome } = came;
        let outcome = outcome.map(|read| {
            let bytes = wanted.held_bytes.min(read.fetched_bytes.saturating_mul(INFLATES));
            running.account.try_charge(bytes).map(|charge| (read, charge))
        });
        let done = match reading {
            Reading::On => Done::Read { key, term, wanted, outcome },
            Reading::Again => Done::Reread { key, term, wanted, outcome },
        };
        self.step(gateway, life, Event::Done(done));
    }

    pub(super) fn back(&mut self, gateway: usize, life: u64, done: Done) {
        let Some(running) = self.gateways[gateway].of_life(life) else { return };
        if let (Done::Planned(Planned { outcome: Ok(moves), .. }), false) = (&done, running.group.is_ending()) {
            let moved: Vec<(Tp, i64)> = moves.iter().map(|one| ((Arc::clone(&one.topic), one.key.1), one.to)).collect();
            moved.iter().for_each(|(tp, to)| self.truth.resets(tp, *to));
        }
        self.step(gateway, life, Event::Done(done));
    }

    /// Whether an attachment has a place again: then the machine has heard of it.
    pub(super) fn find_place(&mut self, gateway: usize, life: u64) -> bool {
        let moment = self.gateways[gateway].moment(&self.clock);
        let Some(running) = self.gateways[gateway].of_life(life) else { return false };
        running.twos.retain_mut(|two| two.as_mut().poll(&mut Context::from_waker(noop_waker_ref())).is_pending());
        let full = |events: &tokio::sync::mpsc::Sender<_>| events.capacity() == 0 && !events.is_closed();
        let Some(at) = running.places.iter().position(|(_, events)| !full(events)) else { return false };
        let (id, events) = running.places.swap_remove(at);
        let permit = events.try_reserve_owned().ok();
        running.group.step(Event::Done(Done::Place { id, permit }), moment);
        true
    }
}

/// Whether a call changes something in Kafka, so that it matters that its answer is lost.
fn has_effect(action: &Action) -> bool {
    matches!(action, Action::Commit(_) | Action::BeginPositions { .. } | Action::WriteLetters(_))
}
