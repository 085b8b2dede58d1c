//! Clients and producers take their turns; answers reach those who asked.

use tokio::sync::oneshot::error::TryRecvError;

use sluice_proto::stream::v1::SettleOutcome;

use crate::groups::dispatch::action::Event;
use crate::groups::dispatch::command::Command;
use crate::groups::dispatch::group::Group;
use crate::groups::dispatch::moving;
use crate::groups::dispatch::sim::clients::{Ask, Held, Kind, Request, Stream};
use crate::groups::dispatch::sim::happening::Happening;
use crate::groups::dispatch::sim::kafka::{Tp, id_of};
use crate::groups::dispatch::sim::truth::By;
use crate::groups::dispatch::sim::world::World;
use crate::groups::model::{LeaseKey, Leased};

/// Nothing is handed out that was not confirmed within this.
const CONFIRMED_MS: u64 = 5_000;

impl World {
    pub(super) fn request(&mut self, request: Request) {
        let delay = self.chance.within(0..5);
        let gateway = request.gateway;
        self.later(delay, Happening::Command { gateway, request: Box::new(request) });
    }

    /// A command arrives: the group's task takes it, begun if need be.
    pub(super) fn command(&mut self, gateway: usize, request: Request) {
        let Request { command, life, ask, .. } = request;
        let runs = self.gateways[gateway].running.as_ref().map(|running| running.life);
        // What is said on an attachment goes to the task that has it.
        if life.is_some() && life != runs {
            return;
        }
        let now = self.clock.now;
        let it = &self.gateways[gateway];
        let may_begin = it.believes == gateway && now >= it.cooling_until && now >= it.down_until;
        let begins = matches!(command, Command::Take { .. } | Command::Attach { .. } | Command::Settle { .. });
        if it.running.is_none() && may_begin && begins {
            self.begin(gateway);
        }
        let Some(running) = &mut self.gateways[gateway].running else {
            command.refuse(moving);
            return ask.into_iter().for_each(|ask| self.unheard(ask));
        };
        running.asks.extend(ask);
        let life = running.life;
        self.step(gateway, life, Event::Command(command));
    }

    /// Nobody will answer.
    fn unheard(&mut self, ask: Ask) {
        match ask {
            Ask::Take { client, .. } => self.clients[client].waits = false,
            Ask::Attach { client, .. } => self.clients[client].stream = None,
            Ask::Settle { .. } | Ask::Reset { .. } => {}
        }
    }

    /// A life of the group is over here.
    pub(super) fn end_life(&mut self, gateway: usize) {
        let Some(running) = self.gateways[gateway].running.take() else { return };
        let life = running.life;
        running.asks.into_iter().for_each(|ask| self.unheard(ask));
        self.clients.iter_mut().for_each(|client| client.ended(gateway, life));
    }

    /// Answers that the machine has given.
    pub(super) fn hear(&mut self, gateway: usize, life: u64) {
        let Some(running) = self.gateways[gateway].of_life(life) else { return };
        let mut at = 0;
        let mut heard = Vec::new();
        while at < running.asks.len() {
            let is_there = match &mut running.asks[at] {
                Ask::Take { answer, .. } => !answer.is_empty() || answer.is_terminated(),
                Ask::Settle { answer, .. } => !answer.is_empty() || answer.is_terminated(),
                Ask::Attach { answer, .. } => !answer.is_empty() || answer.is_terminated(),
                Ask::Reset { answer, .. } => !answer.is_empty() || answer.is_terminated(),
            };
            if is_there { heard.push(running.asks.remove(at)) } else { at += 1 }
        }
        heard.into_iter().for_each(|ask| self.answered(gateway, life, ask));
        for at in 0..self.clients.len() {
            let is_here = |stream: &Stream| stream.gateway == gateway && stream.life == life;
            if self.clients[at].stream.as_ref().is_some_and(is_here) {
                let group = self.gateways[gateway].running.as_ref().map(|running| &running.group);
                let is_current = |key: &LeaseKey| {
                    let of =
                        |group: &Group| group.index.get(&(key.topic, key.partition)).map(|&at| group.parts[at].term);
                    group.and_then(of) == Some(key.term)
                };
                let sent = self.clients[at].sent(self.clock.ms(), is_current);
                self.delivered(gateway, life, &sent);
            }
        }
    }

    fn answered(&mut self, gateway: usize, life: u64, ask: Ask) {
        match ask {
            Ask::Take { client, mut answer } => {
                self.clients[client].waits = false;
                if let Ok(Ok(taken)) = answer.try_recv() {
                    self.delivered(gateway, life, &taken.records);
                    let names = &self.names;
                    self.clients[client].got(&taken.records, |key| Self::tp_of(names, key), (gateway, life), false);
                }
            }
            Ask::Attach { client, mut answer } => match (answer.try_recv(), &mut self.clients[client].stream) {
                (Ok(Ok(id)), Some(stream)) if stream.gateway == gateway => {
                    stream.id.get_or_insert(id);
                    stream.life = life;
                }
                (Ok(Ok(_)), _) => {}
                (_, stream) => *stream = None,
            },
            Ask::Settle { acks, mut answer } => {
                let Ok(Ok(outcomes)) = answer.try_recv() else { return };
                for (held, outcome) in acks.into_iter().flatten().zip(outcomes) {
                    if outcome == SettleOutcome::Ok {
                        let Held { tp, id, .. } = held;
                        self.truth.acked(&tp, id, life, self.kafka.committed.get(&tp));
                    }
                }
            }
            Ask::Reset { tps, mut answer } => match answer.try_recv() {
                Ok(Ok(_)) => tps.iter().for_each(|tp| self.truth.reset_stored(tp)),
                Ok(Err(_)) | Err(TryRecvError::Closed | TryRecvError::Empty) => {}
            },
        }
    }

    /// The machine has handed records out, at this moment. One that Kafka does not take for a member any more, and that has not heard
    /// so, may do that for a while.
    fn delivered(&mut self, gateway: usize, life: u64, leased: &[Leased]) {
        let now = self.clock.now;
        let member = self.gateways[gateway].running.as_ref().and_then(|running| running.member.as_ref());
        let is_member = member.is_some_and(|member| self.kafka.members.contains_key(&member.id));
        let confirmed_at = member.and_then(|member| member.confirmed_at);
        assert!(
            leased.is_empty() || confirmed_at.is_some_and(|at| now < at + CONFIRMED_MS),
            "handed out by one that Kafka has not confirmed since {confirmed_at:?}, at {now}"
        );
        let awake_since = self.gateways[gateway].awake_since;
        assert!(
            leased.is_empty() || confirmed_at >= Some(awake_since),
            "handed out by one that stood still until {awake_since} and was confirmed at {confirmed_at:?}"
        );
        let by = By { life, now_ms: self.clock.ms(), is_member };
        for one in leased {
            let tp = Self::tp_of(&self.names, &one.key);
            self.truth.delivered(&tp, id_of(one.record.value.as_ref()), one, by);
        }
    }

    /// The gateway that a client takes for the owner: any that does so itself.
    fn asked(&mut self) -> Option<usize> {
        let now = self.clock.now;
        let able = |at: &usize| {
            let it = &self.gateways[*at];
            now >= it.down_until && (it.believes == *at || it.running.is_some())
        };
        let able: Vec<usize> = (0..self.gateways.len()).filter(able).collect();
        if able.is_empty() {
            return None;
        }
        let at = self.chance.below(able.len());
        if self.is_calm { able.contains(&self.owner).then_some(self.owner) } else { Some(able[at]) }
    }

    pub(super) fn turn(&mut self, at: usize) {
        let is_slow = self.clients[at].is_slow && !self.is_calm;
        let pause = if is_slow { self.chance.within(100..5_000) } else { self.chance.within(1..250) };
        self.later(pause, Happening::Turn(at));
        let gateway = self.clients[at].stream.as_ref().map(|stream| stream.gateway);
        let names = &self.names;
        self.clients[at].take_events(|key| Self::tp_of(names, key));
        if let Some(gateway) = gateway {
            self.follow_places(gateway);
        }
        let Some(gateway) = self.asked() else { return };
        let mut requests = Vec::new();
        let names = &self.names;
        let client = &mut self.clients[at];
        if !self.is_calm && client.stream.is_some() && self.chance.percent(6) {
            requests.extend(client.detach(&mut self.chance, &mut self.truth, |key| Self::tp_of(names, key)));
        }
        requests.extend(client.settle(gateway, self.is_calm, &mut self.chance, &mut self.truth, &self.clock));
        requests.extend(client.credit());
        let life = self.gateways[gateway].running.as_ref().map_or(0, |running| running.life);
        // A client that holds much, and settles nothing, asks for no more.
        if client.held.len() < 40 || client.kind == Kind::Subscribe {
            requests.extend(client.ask(at, (gateway, life), &mut self.chance, &self.clock));
        }
        requests.into_iter().for_each(|request| self.request(request));
    }

    fn follow_places(&mut self, gateway: usize) {
        if let Some(life) = self.gateways[gateway].running.as_ref().map(|running| running.life)
            && self.clock.now >= self.gateways[gateway].frozen_until
            && self.find_place(gateway, life)
        {
            self.step(gateway, life, Event::Tick);
        }
    }

    /// A backlog in every partition.
    pub(super) fn pile_up(&mut self) {
        let tps: Vec<Tp> = self.kafka.logs.keys().cloned().collect();
        tps.iter().for_each(|tp| self.append(tp, 150));
    }

    pub(super) fn produce(&mut self) {
        let pause = self.chance.within(20..900);
        if self.is_calm {
            return;
        }
        self.later(pause, Happening::Produce);
        let tps: Vec<Tp> = self.kafka.logs.keys().cloned().collect();
        if tps.is_empty() {
            return;
        }
        let tp = tps[self.chance.below(tps.len())].clone();
        let most = if self.chance.percent(10) { 40 } else { 5 };
        let count = 1 + self.chance.below(most);
        self.append(&tp, count);
    }

    fn append(&mut self, tp: &Tp, count: usize) {
        for _ in 0..count {
            let key = Some(self.chance.below(4) as u8).filter(|_| self.chance.percent(80));
            let size = self.chance.within(20..u64::from(self.size_max)) as u32;
            let gap = if self.chance.percent(5) { self.chance.below(4) as i64 } else { 0 };
            let id = self.truth.next_id(tp);
            let Some(log) = self.kafka.logs.get_mut(tp) else { return };
            let offset = log.append(id, key, size, gap);
            let is_loose = offset < log.end_ever;
            log.end_ever = log.end_ever.max(offset + 1);
            self.truth.appended(tp, offset, key, is_loose);
        }
        self.unpark(tp);
    }
}
