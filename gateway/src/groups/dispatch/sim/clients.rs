//! Consumers: pulls and streams, quick and slow, that do with their records whatever a client may do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::oneshot;

use sluice_proto::stream::v1::SettleOutcome;

use crate::groups::dispatch::command::{AttachmentId, Caller, Command};
use crate::groups::dispatch::sim::chance::Chance;
use crate::groups::dispatch::sim::kafka::{Tp, id_of};
use crate::groups::dispatch::sim::truth::Truth;
use crate::groups::model::{
    ATTACH_EVENTS, AttachEvent, AttachOptions, DispatchError, LeaseKey, Leased, Settle, TakeOptions, Taken,
};

/// Bytes of credit: never what is short.
const BYTES: u64 = 32 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pull,
    /// Its credit is constant.
    Subscribe,
    /// It sends credit.
    Consume,
}

/// What a client has in hands.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) key: LeaseKey,
    pub(super) tp: Tp,
    pub(super) id: usize,
    pub(super) until_ms: i64,
    pub(super) gateway: usize,
    pub(super) life: u64,
    /// By a stream, not by a pull.
    by_stream: bool,
}

/// Where a stream is attached.
pub(super) struct Stream {
    pub(super) gateway: usize,
    pub(super) life: u64,
    pub(super) id: Option<AttachmentId>,
    events: mpsc::Receiver<AttachEvent>,
    sender: mpsc::Sender<AttachEvent>,
    /// What was sent and is not taken, each with its place in the channel.
    buffer: VecDeque<(Vec<Leased>, OwnedPermit<AttachEvent>)>,
    is_over: bool,
}

pub(super) struct Client {
    pub(super) kind: Kind,
    pub(super) name: u64,
    pub(super) credit: u64,
    pub(super) is_slow: bool,
    pub(super) waits: bool,
    pub(super) stream: Option<Stream>,
    pub(super) held: Vec<Held>,
    /// What a stream that sends credit may get still.
    left: u64,
}

/// What was asked of a group, and where the answer comes.
pub(super) enum Ask {
    Take {
        client: usize,
        answer: oneshot::Receiver<Result<Taken, DispatchError>>,
    },
    Settle {
        acks: Option<Vec<Held>>,
        answer: oneshot::Receiver<Result<Vec<SettleOutcome>, DispatchError>>,
    },
    Attach {
        client: usize,
        answer: oneshot::Receiver<Result<AttachmentId, DispatchError>>,
    },
    Reset {
        tps: Vec<Tp>,
        answer: oneshot::Receiver<Result<sluice_proto::stream::v1::ResetOffsetsResponse, DispatchError>>,
    },
}

/// A command for a gateway, and what waits for its answer.
pub(super) struct Request {
    pub(super) gateway: usize,
    /// Absent: whichever life the group has there.
    pub(super) life: Option<u64>,
    pub(super) command: Command,
    pub(super) ask: Option<Ask>,
}

impl Client {
    pub(super) fn new(name: u64, chance: &mut Chance) -> Self {
        let kind = [Kind::Pull, Kind::Subscribe, Kind::Consume][chance.below(3)];
        let (credit, is_slow) = (chance.within(1..20), chance.percent(30));
        Self { kind, name, credit, is_slow, waits: false, stream: None, held: Vec::new(), left: 0 }
    }

    fn caller(&self) -> Caller {
        Caller { account: "a".into(), door: "d".into() }
    }

    /// Takes what a pull brought, or an event.
    pub(super) fn got(
        &mut self,
        leased: &[Leased],
        tps: impl Fn(&LeaseKey) -> Tp,
        place: (usize, u64),
        by_stream: bool,
    ) {
        for one in leased {
            self.held.push(Held {
                key: one.key,
                tp: tps(&one.key),
                id: id_of(one.record.value.as_ref()),
                until_ms: one.lease_end_ms,
                gateway: place.0,
                life: place.1,
                by_stream,
            });
        }
    }

    /// Events that were sent just now: they keep their places in the channel until the client takes them. Gives their records.
    pub(super) fn sent(&mut self, now_ms: i64, is_current: impl Fn(&LeaseKey) -> bool) -> Vec<Leased> {
        let Some(stream) = &mut self.stream else { return Vec::new() };
        let mut all = Vec::new();
        while let Ok(event) = stream.events.try_recv() {
            let place = stream.sender.clone().try_reserve_owned().expect("it has just become free");
            if let AttachEvent::Records(records) = event {
                all.extend(records.iter().cloned());
                stream.buffer.push_back((records, place));
            } else {
                stream.buffer.push_back((Vec::new(), place));
            }
        }
        if all.is_empty() {
            return all;
        }
        let life = stream.life;
        let buffered = stream.buffer.iter().flat_map(|(records, _)| records);
        let buffered = buffered.filter(|leased| leased.lease_end_ms > now_ms && is_current(&leased.key)).count();
        let held = self
            .held
            .iter()
            .filter(|held| held.by_stream && held.life == life && held.until_ms > now_ms && is_current(&held.key));
        let held = held.count();
        match self.kind {
            Kind::Subscribe => assert!(
                held + buffered <= self.credit as usize,
                "a stream of credit {} has {held} and {buffered} out",
                self.credit
            ),
            Kind::Consume => {
                assert!(all.len() as u64 <= self.left, "a stream got {} of credit {}", all.len(), self.left);
                self.left -= all.len() as u64;
            }
            Kind::Pull => {}
        }
        all
    }

    /// Takes events that wait. A slow client takes one.
    pub(super) fn take_events(&mut self, tps: impl Fn(&LeaseKey) -> Tp) {
        let Some(stream) = &mut self.stream else { return };
        let place = (stream.gateway, stream.life);
        let count = if self.is_slow { 1 } else { ATTACH_EVENTS };
        let taken: Vec<Leased> =
            stream.buffer.drain(..count.min(stream.buffer.len())).flat_map(|(records, _)| records).collect();
        if stream.is_over && stream.buffer.is_empty() {
            self.stream = None;
        }
        self.got(&taken, tps, place, true);
    }

    /// The group has ended where the stream was attached.
    pub(super) fn ended(&mut self, gateway: usize, life: u64) {
        if let Some(stream) = self.stream.as_mut().filter(|stream| stream.gateway == gateway && stream.life <= life) {
            stream.is_over = true;
        }
    }

    /// Begins to get records from a gateway.
    pub(super) fn ask(
        &mut self,
        at: usize,
        place: (usize, u64),
        chance: &mut Chance,
        clock: &Clock,
    ) -> Option<Request> {
        let gateway = place.0;
        if self.kind == Kind::Pull {
            if self.waits {
                return None;
            }
            self.waits = true;
            let (reply, answer) = oneshot::channel();
            let wait = Duration::from_millis([0, 500, 3_000][chance.below(3)]);
            let options = TakeOptions { records: 1 + chance.below(12), bytes: BYTES, wait };
            let deadline = clock.at(wait.as_millis() as u64 + chance.within(1_000..6_000));
            let command = Command::Take { caller: self.caller(), options, deadline, reply };
            return Some(Request { gateway, life: None, command, ask: Some(Ask::Take { client: at, answer }) });
        }
        if self.stream.is_some() {
            return None;
        }
        let (sender, events) = mpsc::channel(ATTACH_EVENTS);
        let (buffer, is_over) = (VecDeque::new(), false);
        self.stream =
            Some(Stream { gateway, life: place.1, id: None, events, sender: sender.clone(), buffer, is_over });
        let options = AttachOptions {
            credit_records: self.credit,
            credit_bytes: BYTES,
            batch_records: 1 + chance.below(8),
            returns_credit: self.kind == Kind::Subscribe,
            stream: self.name,
            paced: false,
        };
        self.left = self.credit;
        let (reply, answer) = oneshot::channel();
        let command = Command::Attach { caller: self.caller(), options, events: sender, reply };
        Some(Request { gateway, life: None, command, ask: Some(Ask::Attach { client: at, answer }) })
    }

    /// Sends credit, if it is of that kind and short of it.
    pub(super) fn credit(&mut self) -> Option<Request> {
        let stream = self.stream.as_ref()?;
        let id = stream.id.filter(|_| self.kind == Kind::Consume && self.left < self.credit / 2 + 1)?;
        let records = self.credit;
        self.left += records;
        Some(Request {
            gateway: stream.gateway,
            life: Some(stream.life),
            command: Command::Credit { id, records, bytes: BYTES },
            ask: None,
        })
    }

    /// Goes away from its stream: with or without a word, with or without what is on its way.
    pub(super) fn detach(
        &mut self,
        chance: &mut Chance,
        truth: &mut Truth,
        tps: impl Fn(&LeaseKey) -> Tp,
    ) -> Vec<Request> {
        let Some(mut stream) = self.stream.take() else { return Vec::new() };
        let mut requests = Vec::new();
        if let (Some(id), true) = (stream.id, chance.percent(50)) {
            requests.push(Request {
                gateway: stream.gateway,
                life: Some(stream.life),
                command: Command::Detach { id },
                ask: None,
            });
        }
        if chance.percent(70) {
            let mut left = Vec::new();
            for leased in stream.buffer.drain(..).flat_map(|(records, _)| records) {
                left.push(leased.key);
                truth.hands_back(&tps(&leased.key), id_of(leased.record.value.as_ref()));
            }
            if !left.is_empty() {
                let (reply, _) = oneshot::channel();
                let settle = Settle::HandBack;
                let command = Command::Settle { settle, leases: left, deadline: tokio::time::Instant::now(), reply };
                requests.push(Request { gateway: stream.gateway, life: None, command, ask: None });
            }
        }
        requests
    }

    /// Settles some of what it holds, at a gateway.
    pub(super) fn settle(
        &mut self,
        gateway: usize,
        is_calm: bool,
        chance: &mut Chance,
        truth: &mut Truth,
        clock: &Clock,
    ) -> Option<Request> {
        let now_ms = clock.ms();
        if self.held.is_empty() {
            return None;
        }
        // What is over is mostly forgotten; what is not, and comes late, must be told so.
        if !is_calm && chance.percent(50) {
            self.held.retain(|held| held.until_ms > now_ms);
        }
        let first = chance.below(self.held.len());
        let count = if is_calm { self.held.len() } else { 1 + chance.below(8) };
        let first = if is_calm { 0 } else { first };
        let mut some: Vec<Held> = self.held.drain(first..(first + count).min(self.held.len())).collect();
        let first = some.first()?;
        let gateway = if chance.percent(80) { gateway } else { first.gateway };
        let choice = if is_calm { 0 } else { chance.below(20) };
        let after = Duration::from_millis(chance.within(0..3_000));
        let settle = match choice {
            0..12 => Settle::Acknowledge,
            12..15 => Settle::Refuse { delay: Some(after).filter(|_| chance.percent(30)), reason: Arc::from("no") },
            15 => Settle::Release { delay: Some(after).filter(|_| chance.percent(30)) },
            16 => Settle::Extend { time: Some(after).filter(|_| chance.percent(70)) },
            17 => Settle::Restart,
            // Nothing: they come again.
            _ => return None,
        };
        for held in &mut some {
            match &settle {
                Settle::Extend { .. } => {
                    let until_ms = now_ms + after.as_millis() as i64;
                    held.until_ms = held.until_ms.min(until_ms);
                    truth.extends(&held.tp, held.id, until_ms);
                }
                Settle::Restart | Settle::HandBack => {}
                Settle::Acknowledge => truth.settles(&held.tp, held.id, true),
                Settle::Refuse { .. } | Settle::Release { .. } => truth.settles(&held.tp, held.id, false),
            }
        }
        let leases = some.iter().map(|held| held.key).collect();
        if matches!(settle, Settle::Extend { .. } | Settle::Restart) {
            self.held.extend(some.iter().cloned());
        }
        let acks = (settle == Settle::Acknowledge).then_some(some);
        let (reply, answer) = oneshot::channel();
        let deadline = clock.at(chance.within(500..6_000));
        let command = Command::Settle { settle, leases, deadline, reply };
        Some(Request { gateway, life: None, command, ask: Some(Ask::Settle { acks, answer }) })
    }
}

/// Virtual time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) base: tokio::time::Instant,
    pub(super) now: u64,
}

/// What the wall shows at the beginning.
pub(super) const ORIGIN_MS: i64 = 1_000_000;

impl Clock {
    /// So long from now.
    pub(super) fn at(&self, after: u64) -> tokio::time::Instant {
        self.base + Duration::from_millis(self.now + after)
    }

    pub(super) fn ms(&self) -> i64 {
        ORIGIN_MS + self.now as i64
    }
}
