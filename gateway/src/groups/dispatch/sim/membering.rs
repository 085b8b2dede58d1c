//! Being a member of the group in Kafka: heartbeats, assignments, evictions.

use std::sync::Arc;

use tokio::time::Instant;

use sluice_wire::{Error, MemberEvent};

use crate::groups::dispatch::action::Event;
use crate::groups::dispatch::sim::gateway::SimMember;
use crate::groups::dispatch::sim::happening::{BeatSent, Beaten, Happening};
use crate::groups::dispatch::sim::kafka::partitions;
use crate::groups::dispatch::sim::world::World;
use crate::groups::dispatch::taking::{Look, Target};

const INTERVAL_MS: u64 = 3_000;
const ANSWER_MS: u64 = 2_000;
/// Another member that may be alive gets so long to leave by itself.
const PATIENCE_MS: u64 = 1_000;

impl World {
    pub(super) fn join(&mut self, gateway: usize, topics: Vec<Arc<str>>) {
        let Some(running) = &mut self.gateways[gateway].running else { return };
        let life = running.life;
        running.member = Some(SimMember {
            id: format!("{gateway}/{life}").into(),
            topics,
            epoch: None,
            confirmed_at: None,
            is_failing: false,
            assigned: Target::new(),
            revoking: Target::new(),
            beat: 0,
            is_ended: false,
        });
        self.beat_soon(gateway, life, 0);
    }

    /// Changes what a member wants, and tells Kafka.
    pub(super) fn member_of(&mut self, gateway: usize, life: u64, change: impl FnOnce(&mut SimMember)) {
        let running = self.gateways[gateway].of_life(life);
        if let Some(member) = running.and_then(|running| running.member.as_mut()) {
            change(member);
            self.beat_soon(gateway, life, 0);
        }
    }

    fn beat_soon(&mut self, gateway: usize, life: u64, after: u64) {
        let running = self.gateways[gateway].of_life(life);
        let Some(member) = running.and_then(|running| running.member.as_mut()) else { return };
        member.beat += 1;
        let number = member.beat;
        self.later(after, Happening::Beat { gateway, life, number });
    }

    pub(super) fn beat(&mut self, gateway: usize, life: u64, number: u64) {
        let now = self.clock.now;
        let (is_lost, is_unheard) = (self.is_lost(gateway), self.is_lost(gateway));
        let running = self.gateways[gateway].of_life(life);
        let Some(member) = running.and_then(|running| running.member.as_mut()) else { return };
        if member.is_ended || member.beat != number {
            return;
        }
        let held = member.assigned.union(&member.revoking).cloned().collect();
        let sent = BeatSent { at: now, epoch: member.epoch, topics: member.topics.clone(), held };
        let id = Arc::clone(&member.id);
        match is_lost {
            true => self.later(
                ANSWER_MS,
                Happening::BeatBack { gateway, life, sent_at: now, beaten: Err(Error::DeadlineExceeded) },
            ),
            false => {
                let delay = self.chance.within(1..12);
                self.later(delay, Happening::BeatCall { gateway, life, id, sent, is_unheard });
            }
        }
    }

    pub(super) fn beat_call(&mut self, gateway: usize, life: u64, id: &Arc<str>, sent: BeatSent, is_unheard: bool) {
        let now = self.clock.now;
        self.kafka.expire(now);
        let BeatSent { at: sent_at, epoch, topics, held } = sent;
        let mut beaten: Beaten = self.kafka.is_away(now).and_then(|()| self.kafka.beat(id, epoch, &topics, &held, now));
        if is_unheard {
            beaten = Err(Error::DeadlineExceeded);
        }
        let delay = if is_unheard { ANSWER_MS } else { self.chance.within(1..12) };
        self.later(delay, Happening::BeatBack { gateway, life, sent_at, beaten });
    }

    pub(super) fn beat_back(&mut self, gateway: usize, life: u64, sent_at: u64, beaten: Beaten) {
        let running = self.gateways[gateway].of_life(life);
        let Some(member) = running.and_then(|running| running.member.as_mut()) else { return };
        if member.is_ended {
            return;
        }
        let mut events = Vec::new();
        let mut after = INTERVAL_MS;
        match beaten {
            Ok((epoch, given)) => {
                member.is_failing = false;
                member.confirmed_at = Some(member.confirmed_at.map_or(sent_at, |at| at.max(sent_at)));
                member.epoch = Some(member.epoch.map_or(epoch, |known| known.max(epoch)));
                let gone: Target = member.assigned.difference(&given).cloned().collect();
                let new: Target = given
                    .iter()
                    .filter(|tp| !member.assigned.contains(*tp) && !member.revoking.contains(*tp))
                    .cloned()
                    .collect();
                member.assigned.retain(|tp| !gone.contains(tp));
                member.revoking.extend(gone.iter().cloned());
                member.assigned.extend(new.iter().cloned());
                if !new.is_empty() {
                    events.push(MemberEvent::Assigned(partitions(&new)));
                }
                if !gone.is_empty() {
                    events.push(MemberEvent::Revoked(partitions(&gone)));
                }
                // What others are about to give back comes with a heartbeat.
                if self.kafka.target_of(&member.id).is_some_and(|(_, target)| *target != member.assigned) {
                    after = 200;
                }
            }
            Err(error) if error.membership().is_some() => {
                member.epoch = None;
                member.is_ended = true;
                let gone = member.assigned.union(&member.revoking).cloned().collect();
                events.push(MemberEvent::Fenced { partitions: partitions(&gone), error });
            }
            Err(_) => {
                member.is_failing = true;
                after = 500;
            }
        }
        self.beat_soon(gateway, life, after);
        for event in events {
            self.step(gateway, life, Event::Member(Some(event)));
        }
    }

    pub(super) fn leave(&mut self, gateway: usize, life: u64) {
        let is_lost = self.is_lost(gateway);
        let Some(running) = self.gateways[gateway].of_life(life) else { return };
        if let Some(member) = running.member.take()
            && !is_lost
        {
            self.kafka.leave(&member.id);
        }
    }

    /// A look at the group; `None`: look again.
    pub(super) fn look_for_others(
        &mut self,
        gateway: usize,
        life: u64,
        since: Instant,
        fails: Option<Error>,
    ) -> Option<Result<Look, Error>> {
        let now = self.clock.now;
        if let Some(error) = fails.or_else(|| self.kafka.is_away(now).err()) {
            return Some(Err(error));
        }
        let running = self.gateways[gateway].of_life(life)?;
        let id = Arc::clone(&running.member.as_ref()?.id);
        let others: Vec<Arc<str>> = self.kafka.members.keys().filter(|other| **other != id).cloned().collect();
        if others.is_empty() {
            return match self.kafka.target_of(&id) {
                Some((true, target)) => Some(Ok(Look::Alone(target.clone()))),
                Some((false, _)) => Some(Ok(Look::Beat)),
                None => None,
            };
        }
        let began = since.saturating_duration_since(self.clock.base).as_millis() as u64;
        let is_patient = now < began + PATIENCE_MS;
        let mut left = 0;
        for other in others {
            if is_patient && self.is_alive(&other) {
                left += 1;
            } else {
                self.kafka.leave(&other);
            }
        }
        (left == 0).then_some(Ok(Look::Beat))
    }

    /// Whether a member's gateway still runs that life of the group.
    fn is_alive(&self, member: &str) -> bool {
        self.gateways.iter().any(|gateway| {
            let running = gateway.running.as_ref().and_then(|running| running.member.as_ref());
            running.is_some_and(|own| *own.id == *member)
        })
    }
}
