//! The world: virtual time, what is on its way, and what happens in which order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use sluice_types::TopicUid;

use crate::groups::dispatch::action::{Action, Event};
use crate::groups::dispatch::group::{End, Group};
use crate::groups::dispatch::shared::Setting;
use crate::groups::dispatch::sim::chance::Chance;
use crate::groups::dispatch::sim::clients::{Client, Clock};
use crate::groups::dispatch::sim::gateway::{Gateway, Running};
use crate::groups::dispatch::sim::happening::Happening;
use crate::groups::dispatch::sim::kafka::{Kafka, Tp};
use crate::groups::dispatch::sim::published::Published;
use crate::groups::dispatch::sim::truth::Truth;
use crate::groups::model::LeaseKey;
use crate::view::View;

/// After the last fault everything must be done within this.
const PROGRESS_MS: u64 = 240_000;

/// After the last fault its consequences last so long.
const SETTLED_MS: u64 = 15_000;

/// How a run of the simulation went.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) steps: u64,
    pub(super) acked: u64,
    pub(super) letters: u64,
    pub(super) lives: u64,
    pub(super) ended_ms: u64,
}

pub(super) struct World {
    pub(super) clock: Clock,
    queue: BTreeMap<(u64, u64), Happening>,
    number: u64,
    pub(super) chance: Chance,
    pub(super) kafka: Kafka,
    pub(super) truth: Truth,
    pub(super) published: Published,
    pub(super) setting: Arc<Setting>,
    pub(super) gateways: Vec<Gateway>,
    pub(super) clients: Vec<Client>,
    pub(super) owner: usize,
    pub(super) names: BTreeMap<TopicUid, Arc<str>>,
    /// Reads that wait at the end of a log.
    pub(super) parked: BTreeMap<u64, (usize, u64, Action)>,
    /// No more faults, and consumers do their work.
    pub(super) is_calm: bool,
    /// How many of a hundred calls are lost, for a while.
    pub(super) lossy: u64,
    pub(super) lives: u64,
    pub(super) parks: u64,
    pub(super) size_max: u32,
    is_tight: bool,
    pub(super) tally: Tally,
}

impl World {
    pub(super) fn new(seed: u64, setting: impl FnOnce(Instant) -> Arc<Setting>) -> Self {
        let mut chance = Chance::new(seed);
        let clock = Clock { base: Instant::now() + Duration::from_secs(3_600), now: 0 };
        let mut published = Published::new(&mut chance);
        let all = published.all();
        let bytes = [128 << 10, 512 << 10, 8 << 20][chance.below(3)];
        let gateways: Vec<Gateway> = (0..2 + chance.below(3))
            .map(|_| {
                let view = Arc::new(View::default());
                for record in &all {
                    view.index().apply(record.clone()).expect("a good record");
                }
                Gateway::new(view, bytes)
            })
            .collect();
        let clients = (1..2 + chance.within(1..5)).map(|name| Client::new(name, &mut chance)).collect();
        let truth = Truth::new(published.group.key_ordered);
        let (mut kafka, mut names) = (Kafka::default(), BTreeMap::new());
        let view = &gateways[0].view;
        for topic in &published.topics[..published.topics.len() - 1] {
            let (uid, name) = published.physical(view, topic);
            for partition in 0..topic.partitions {
                kafka.logs.insert((Arc::clone(&name), partition), Default::default());
            }
            names.insert(uid, name);
        }
        let size_max = [200, 20_000, 90_000][chance.below(3)];
        let mut world = Self {
            setting: setting(clock.base),
            clock,
            queue: BTreeMap::new(),
            number: 0,
            kafka,
            truth,
            published,
            gateways,
            clients,
            owner: 0,
            names,
            parked: BTreeMap::new(),
            is_calm: false,
            lossy: 0,
            lives: 0,
            parks: 0,
            size_max,
            is_tight: bytes < 256 << 10,
            tally: Tally::default(),
            chance,
        };
        for client in 0..world.clients.len() {
            world.later(1, Happening::Turn(client));
        }
        world.later(1, Happening::Produce);
        world.later(500, Happening::Fault);
        world
    }

    /// So many events with faults, then until everything is done.
    pub(super) fn run(mut self, events: u64) -> Tally {
        for _ in 0..events {
            self.next();
        }
        self.calm();
        // Where there is little room, and every read brings little.
        let piles_up = self.is_tight && self.size_max > 50_000;
        let until = self.clock.now + PROGRESS_MS;
        let mut count = 0_u64;
        loop {
            self.next();
            count += 1;
            if !self.truth.is_fair && self.clock.now > until - PROGRESS_MS + SETTLED_MS {
                self.truth.is_fair = true;
                if piles_up {
                    self.pile_up();
                }
            }
            if count.is_multiple_of(32) {
                let left = self.truth.pending().next();
                if left.is_none() && self.is_committed() && (self.truth.is_fair || !piles_up) {
                    break;
                }
                let stuck = || format!("no progress: {left:?}; {}", self.describe());
                assert!(self.clock.now < until, "{}", stuck());
            }
        }
        self.losses_are_counted();
        self.tally.ended_ms = self.clock.now;
        (self.tally.acked, self.tally.letters, self.tally.lives) = (self.truth.acked, self.truth.letters, self.lives);
        self.tally
    }

    fn is_committed(&self) -> bool {
        let held = self.clients.iter().all(|client| client.held.is_empty());
        held && self.kafka.logs.iter().all(|(tp, log)| {
            let committed = self.kafka.committed.get(tp);
            log.records.is_empty() || committed.is_some_and(|committed| committed.offset >= log.end)
        })
    }

    /// Of what retention took, no less is told than was lost.
    fn losses_are_counted(&self) {
        for tp in self.kafka.logs.keys().filter(|tp| self.truth.is_firm(tp)) {
            let told = self.kafka.committed.get(tp).and_then(|committed| committed.window.skipped());
            let (told, lost) = (told.map_or(0, |skipped| skipped.total), self.truth.lost_of(tp));
            assert!(told >= lost, "{lost} records of {tp:?} were lost and {told} are told");
        }
    }

    fn describe(&self) -> String {
        let gateways = self.gateways.iter().map(|gateway| match &gateway.running {
            Some(running) => {
                let parts = running.group.parts.iter().map(|part| {
                    format!(
                        "{}: base {} next {} {:?} out {} trouble {:?} reading {} hot {} wants {:?}",
                        part.place.partition,
                        part.window.base(),
                        part.window.next_read(),
                        part.window.figures(),
                        part.out.len(),
                        part.trouble,
                        part.reading,
                        part.hot,
                        part.wants
                    )
                });
                format!("life {} {:?}", running.life, parts.collect::<Vec<_>>())
            }
            None => "none".to_owned(),
        });
        format!("owner {} {:?}", self.owner, gateways.collect::<Vec<_>>())
    }

    pub(super) fn later(&mut self, after: u64, happening: Happening) {
        self.number += 1;
        self.queue.insert((self.clock.now + after, self.number), happening);
    }

    fn next(&mut self) {
        let ((at, _), happening) = self.queue.pop_first().expect("turns come for ever");
        self.clock.now = at;
        self.tally.steps += 1;
        if let Some(gateway) = happening.gateway() {
            let until = self.gateways[gateway].frozen_until;
            if until > at {
                // Whatever comes to one that stands still waits for it.
                return self.later(until - at, happening);
            }
        }
        self.happens(happening);
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Wake { gateway, life, at } => {
                let wanted = self.gateways[gateway].of_life(life).is_some_and(|running| running.wake == Some(at));
                if wanted {
                    self.step(gateway, life, Event::Tick);
                }
            }
            Happening::Call { gateway, life, action, is_unheard } => self.call(gateway, life, action, is_unheard),
            Happening::ParkOver(park) => self.park_over(park),
            Happening::Back { gateway, life, done } => self.back(gateway, life, *done),
            Happening::Came { gateway, life, came } => self.came(gateway, life, *came),
            Happening::Beat { gateway, life, number } => self.beat(gateway, life, number),
            Happening::BeatCall { gateway, life, id, sent, is_unheard } => {
                self.beat_call(gateway, life, &id, sent, is_unheard);
            }
            Happening::BeatBack { gateway, life, sent_at, beaten } => self.beat_back(gateway, life, sent_at, beaten),
            Happening::Command { gateway, request } => self.command(gateway, *request),
            Happening::Owner { gateway, owner } => {
                // What was on its way when the faults ended is old.
                let owner = if self.is_calm { self.owner } else { owner };
                self.gateways[gateway].believes = owner;
                let life = self.gateways[gateway].running.as_ref().map(|running| running.life);
                if let (Some(life), true) = (life, owner != gateway) {
                    self.step(gateway, life, Event::Moved);
                }
            }
            Happening::Published { gateway, record } => {
                let view = &self.gateways[gateway].view;
                view.index().apply(*record).expect("a good record");
                if let Some(life) = self.gateways[gateway].running.as_ref().map(|running| running.life) {
                    self.step(gateway, life, Event::Changed);
                }
            }
            Happening::Turn(client) => self.turn(client),
            Happening::Produce => self.produce(),
            Happening::Fault => self.fault(),
        }
    }

    /// The gateway's group is begun.
    pub(super) fn begin(&mut self, gateway: usize) {
        self.lives += 1;
        let (life, seed) = (self.lives, self.chance.next());
        let it = &self.gateways[gateway];
        let (config, entry) = (self.published.config(&it.view), self.published.entry(&it.view));
        let account = it.budget.open(config.tenant_uid);
        let moment = it.moment(&self.clock);
        let group = Group::new(Arc::clone(&self.setting), account.clone(), config, entry, seed, moment);
        let running = Running {
            life,
            group,
            account,
            member: None,
            asks: Vec::new(),
            places: Vec::new(),
            twos: Vec::new(),
            wake: None,
        };
        self.gateways[gateway].running = Some(running);
        self.step(gateway, life, Event::Begin);
    }

    /// A step of the real machine, and all that follows at once.
    pub(super) fn step(&mut self, gateway: usize, life: u64, event: Event) {
        let moment = self.gateways[gateway].moment(&self.clock);
        let Some(running) = self.gateways[gateway].of_life(life) else { return };
        running.group.step(event, moment);
        self.follow(gateway, life);
    }

    fn follow(&mut self, gateway: usize, life: u64) {
        loop {
            let Some(running) = self.gateways[gateway].of_life(life) else { return };
            let actions = std::mem::take(&mut running.group.actions);
            self.hear(gateway, life);
            actions.into_iter().for_each(|action| self.act(gateway, life, action));
            if !self.find_place(gateway, life) {
                break;
            }
        }
        let now = self.clock.now;
        let base = self.clock.base;
        let Some(running) = self.gateways[gateway].of_life(life) else { return };
        if let Some(end) = running.group.is_over() {
            if matches!(end, End::Fenced | End::Lost) {
                self.gateways[gateway].cooling_until = now + 500;
            }
            return self.end_life(gateway);
        }
        running.wake = running.group.wake.take().map(|at| {
            let since = at.saturating_duration_since(base);
            (since.as_micros().div_ceil(1_000) as u64).max(now)
        });
        let held = running.account.share();
        assert!(held.1 <= held.0.max(4 << 20) + (1 << 20), "a group holds {} bytes of {}", held.1, held.0);
        if let Some(at) = running.wake {
            self.later(at - now, Happening::Wake { gateway, life, at });
        }
    }

    /// What a lease is of.
    pub(super) fn tp_of(names: &BTreeMap<TopicUid, Arc<str>>, key: &LeaseKey) -> Tp {
        (Arc::clone(&names[&key.topic]), key.partition)
    }
}
