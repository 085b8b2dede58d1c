//! The work of a consumer: what was written, what is asked, what became of it. It outlives connections.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use sluice_proto::stream::v1::{DeliveryState, Header, ReceivedRecord, SettleOutcome, SettleResult, header, record};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tonic::Status;

use super::line::{Event, Line};
use super::orders::{self, Order, Verb};
use super::room::{Demand, Room};
use super::stop::Stop;
use super::waiting::{Lease, Waiting};
use super::writer::{Broken, Writer};
use super::written::{self, Form};
use crate::args::Global;
use crate::args::consume::Consume;
use crate::commands::groups::states;
use crate::output;

/// How often leases are looked through, and acknowledgements that failed are tried again.
const TICK: Duration = Duration::from_millis(500);
/// How long answers to the last orders are waited for at the end.
const LAST_WAIT: Duration = Duration::from_secs(10);
/// The same on a connection whose gateway shuts down: the next connection asks again.
const LEAVING_WAIT: Duration = Duration::from_secs(2);

/// How long nothing must have come before we leave: an acknowledgement lets the next record of its key come, and who leaves it
/// on its way holds it up until its lease ends.
const QUIET: Duration = Duration::from_millis(250);
/// When others may have what is given back: later than it could come to us again.
const GIVE_BACK_DELAY: Duration = Duration::from_secs(1);
/// Acknowledgements that are worth a message while more is being written.
const ACKS_STEP: usize = 100;

/// How a connection ended.
pub(super) enum Ended {
    /// There is nothing more to do.
    Over,
    /// The gateway shuts down.
    Leaving,
    /// It broke, or was refused.
    Lost(Status),
}

#[derive(Default)]
struct Tally {
    written: u64,
    acked: u64,
    refused: u64,
    /// Given back without having been written.
    released: u64,
    /// Settled too late, or at a place that did not know the lease any more.
    stale: u64,
}

pub(super) struct Work<'a> {
    global: &'a Global,
    form: Form,
    manual: bool,
    /// Whether changes of state are told.
    tells: bool,
    room: Room,
    writer: Writer,
    /// What came and is not written yet.
    waiting: Waiting,
    /// What is being written.
    writing: Vec<(ReceivedRecord, Lease)>,
    /// Written and not settled.
    held: HashMap<String, Lease>,
    /// Written, and to be acknowledged.
    to_ack: Vec<String>,
    /// Orders without an answer, by sequence.
    unanswered: BTreeMap<i64, Order>,
    /// Those of them that we gave ourselves, for records that wait.
    extending: HashSet<i64>,
    /// To be acknowledged once more.
    again: Vec<String>,
    sequence: i64,
    orders: Option<mpsc::Receiver<Result<Order>>>,
    state: DeliveryState,
    tally: Tally,
    failure: Option<Error>,
    answered: bool,
}

impl<'a> Work<'a> {
    pub(super) fn new(global: &'a Global, command: &Consume) -> Self {
        let writer = Writer::new();
        let mut room = Room::new(command.credit, command.max);
        if writer.is_pipe() {
            room.begin_slowly();
        }
        Self {
            global,
            form: Form { output: global.output, encoding: command.encoding, ids: command.manual },
            manual: command.manual,
            tells: command.verbose || !global.quiet && std::io::stderr().is_terminal(),
            room,
            writer,
            waiting: Waiting::default(),
            writing: Vec::new(),
            held: HashMap::new(),
            to_ack: Vec::new(),
            unanswered: BTreeMap::new(),
            extending: HashSet::new(),
            again: Vec::new(),
            sequence: 0,
            orders: command.manual.then(orders::read),
            state: DeliveryState::Unspecified,
            tally: Tally::default(),
            failure: None,
            answered: false,
        }
    }

    /// Whether Sluice ever said anything.
    pub(super) fn was_answered(&self) -> bool {
        self.answered
    }

    /// Whether all that was wished for is written and settled, as far as anybody can settle it.
    pub(super) fn is_over(&self) -> bool {
        let written = self.waiting.is_empty() && !self.writer.is_busy();
        let settled = self.held.is_empty() || self.manual && self.orders.is_none();
        self.failure.is_some() || self.room.is_used_up() && written && settled && self.unanswered.is_empty()
    }

    /// A connection is to be opened: what to ask for on it.
    pub(super) fn connecting(&mut self) -> Option<Demand> {
        self.room.connected();
        self.room.ask()
    }

    /// Works on one connection until it ends, or there is nothing more to do.
    pub(super) async fn serve(&mut self, line: &mut Line<'_>, stop: &mut Stop) -> Result<Ended> {
        self.answered |= matches!(line, Line::Stream(_));
        for (sequence, order) in &self.unanswered {
            line.settle(*sequence, order);
        }
        self.ask(line);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Since when no records are taken, until when answers are waited for, and whether another connection follows.
        let mut until: Option<Instant> = None;
        let mut leaving = false;
        let mut quiet_from = Instant::now();
        loop {
            if stop.asked() && (until.is_none() || leaving) {
                line.stop();
                (until, leaving) = (Some(Instant::now() + LAST_WAIT), false);
                quiet_from = Instant::now();
            }
            if until.is_some() && !leaving {
                let rest = self.waiting.take_all();
                self.room.freed(rest.len() as u64);
                self.give_back(line, rest);
            }
            self.write_next(line);
            match until {
                None if self.is_over() => return Ok(Ended::Over),
                Some(end) if self.is_answered() && (leaving || self.is_quiet(quiet_from)) || Instant::now() >= end => {
                    return Ok(if leaving { Ended::Leaving } else { Ended::Over });
                }
                _ => {}
            }
            let end = until.map_or_else(|| Instant::now() + TICK, |end| end.min(Instant::now() + QUIET));
            tokio::select! {
                event = line.next() => match event.inspect(|_| self.answered = true) {
                    Ok(Event::Records(records)) if until.is_some() && !leaving || self.failure.is_some() => {
                        self.give_back(line, records);
                        quiet_from = Instant::now();
                    }
                    Ok(Event::Records(records)) => self.take(line, records),
                    Ok(Event::Settled { sequence, results }) => {
                        self.settled(sequence, &results);
                        quiet_from = Instant::now();
                    }
                    Ok(Event::State(state)) => self.tell(state),
                    Ok(Event::Reconnect) if until.is_none() => {
                        (until, leaving) = (Some(Instant::now() + LEAVING_WAIT), true);
                    }
                    Ok(Event::Reconnect) => {}
                    Err(status) if until.is_some() && !leaving => {
                        output::note(self.global, &format!("note: {}", status.message()));
                        return Ok(Ended::Over);
                    }
                    Err(status) => return Ok(Ended::Lost(status)),
                },
                order = next(&mut self.orders) => match order {
                    Some(Ok(order)) => self.order(line, order),
                    Some(Err(error)) => eprintln!("{error:#}"),
                    None => self.orders = None,
                },
                written = self.writer.written() => self.was_written(line, written),
                _ = tick.tick() => self.look_through(line),
                () = tokio::time::sleep_until(end.into()), if until.is_some() => {}
                () = stop.wait() => stop.once()?,
            }
            // After a failure nothing more is taken, and what came is given back.
            if self.failure.is_some() && until.is_none() {
                line.stop();
                (until, leaving) = (Some(Instant::now() + LAST_WAIT), false);
                quiet_from = Instant::now();
            }
            if until.is_none() {
                self.ask(line);
            }
        }
    }

    fn is_quiet(&self, from: Instant) -> bool {
        !self.writer.is_busy() && from.elapsed() >= QUIET
    }

    fn is_answered(&self) -> bool {
        self.unanswered.is_empty() && self.again.is_empty() && self.to_ack.is_empty()
    }

    fn ask(&mut self, line: &mut Line<'_>) {
        if let Some(demand) = self.room.ask() {
            line.ask(demand);
        }
    }

    fn order(&mut self, line: &mut Line<'_>, order: Order) {
        self.sequence += 1;
        line.settle(self.sequence, &order);
        self.unanswered.insert(self.sequence, order);
    }

    /// Records came: they are written in their turn.
    fn take(&mut self, line: &mut Line<'_>, mut records: Vec<ReceivedRecord>) {
        let bytes = records.iter().map(size).sum();
        let surplus = records.split_off(self.room.came(records.len(), bytes));
        self.room.dropped(surplus.iter().map(size).sum());
        self.give_back(line, surplus);
        if !records.is_empty() {
            self.state = DeliveryState::Flowing;
        }
        let now = Instant::now();
        for record in records {
            let length = lease(&record);
            self.waiting.push(record, Lease { until: now + length, length });
        }
    }

    /// Begins to write what comes next, unless something is being written.
    fn write_next(&mut self, line: &mut Line<'_>) {
        if self.writer.is_busy() || self.failure.is_some() {
            return;
        }
        let (next, late) = self.waiting.take(self.writer.records_max(), Instant::now());
        self.tally.stale += late.len() as u64;
        self.room.lost(late.len() as u64);
        self.room.dropped(late.iter().map(size).sum());
        if !next.is_empty() {
            self.writer.begin(next.iter().map(|(record, _)| written::line(self.form, record)).collect());
            self.writing = next;
        }
        if !self.to_ack.is_empty() && (self.to_ack.len() >= ACKS_STEP || !self.writer.is_busy()) {
            let ids = std::mem::take(&mut self.to_ack);
            self.order(line, Order::new(Verb::Ack, ids));
        }
    }

    /// Without `--manual` records are acknowledged when standard output took them.
    fn was_written(&mut self, line: &mut Line<'_>, written: Result<(), Broken>) {
        let mut records = std::mem::take(&mut self.writing);
        if let Err(Broken { bytes, error }) = written {
            let (whole, is_cut) = self.whole_lines(&records, bytes);
            let rest = records.split_off(whole);
            self.room.freed(rest.len() as u64);
            self.give_back(line, rest.into_iter().map(|(record, _)| record).collect());
            let what = if is_cut { "write; the last line of the output is not whole" } else { "write" };
            self.failure = Some(Error::new(error).context(what));
        }
        let bytes = records.iter().map(|(record, _)| size(record)).sum();
        self.room.wrote(records.len(), bytes);
        self.tally.written += records.len() as u64;
        for (record, lease) in records {
            if !self.manual {
                self.to_ack.push(record.ack_id.clone());
            }
            self.held.insert(record.ack_id, lease);
        }
    }

    /// How many of these records have their lines in the first so many bytes of output, and whether another one has a part of it.
    fn whole_lines(&self, records: &[(ReceivedRecord, Lease)], bytes: usize) -> (usize, bool) {
        let mut left = bytes;
        for (count, (record, _)) in records.iter().enumerate() {
            match left.checked_sub(written::line(self.form, record).len()) {
                Some(rest) => left = rest,
                None => return (count, left > 0),
            }
        }
        (records.len(), false)
    }

    /// Others may have what came and was not written, in a moment: that is no failure of the record.
    fn give_back(&mut self, line: &mut Line<'_>, records: Vec<ReceivedRecord>) {
        if !records.is_empty() {
            let ids = records.into_iter().map(|record| record.ack_id).collect();
            self.order(line, Order::new(Verb::Release(Some(GIVE_BACK_DELAY)), ids));
        }
    }

    fn settled(&mut self, sequence: i64, results: &[SettleResult]) {
        let Some(order) = self.unanswered.remove(&sequence) else { return };
        if self.extending.remove(&sequence) {
            return self.extended(&order.ids, results);
        }
        for (i, id) in order.ids.into_iter().enumerate() {
            let result = results.get(i);
            let outcome = result.map_or(SettleOutcome::Unavailable, |result| result.outcome());
            let ours = self.held.contains_key(&id);
            match (outcome, order.verb) {
                (SettleOutcome::Ok, Verb::Extend(time)) => {
                    if let Some(held) = self.held.get_mut(&id) {
                        held.until = Instant::now() + time.unwrap_or(held.length);
                    }
                }
                (SettleOutcome::Ok, Verb::Ack) => {
                    // Once more is OK, too, and no other record.
                    self.tally.acked += u64::from(ours || !self.manual);
                    self.free(&id);
                }
                (SettleOutcome::Ok, Verb::Nack(_)) => {
                    self.tally.refused += u64::from(ours);
                    self.free(&id);
                }
                (SettleOutcome::Ok, Verb::Release(_)) => {
                    self.tally.released += 1;
                    self.free(&id);
                }
                (SettleOutcome::Unavailable | SettleOutcome::Unspecified, Verb::Ack) if !self.manual => {
                    self.again.push(id);
                    continue;
                }
                (SettleOutcome::Unavailable | SettleOutcome::Unspecified, _) => {}
                (SettleOutcome::StaleLease | SettleOutcome::Invalid, _) => {
                    self.tally.stale += u64::from(ours);
                    self.free(&id);
                }
            }
            if self.manual {
                self.tell_outcome(order.verb, outcome, result, &id);
            }
        }
    }

    /// What became of our own extensions. Those that could not be asked about are asked again.
    fn extended(&mut self, ids: &[String], results: &[SettleResult]) {
        let is_ours = |result: &SettleResult| match result.outcome() {
            SettleOutcome::Ok => Some(true),
            SettleOutcome::StaleLease | SettleOutcome::Invalid => Some(false),
            SettleOutcome::Unavailable | SettleOutcome::Unspecified => None,
        };
        let results = ids.iter().zip(results).filter_map(|(id, result)| Some((id.clone(), is_ours(result)?))).collect();
        self.waiting.extended(&results, Instant::now());
    }

    fn tell_outcome(&self, verb: Verb, outcome: SettleOutcome, result: Option<&SettleResult>, id: &str) {
        let verb = match verb {
            Verb::Ack => "ack",
            Verb::Nack(_) => "nack",
            Verb::Release(_) => "release",
            Verb::Extend(_) => "extend",
        };
        let word = output::word(outcome.as_str_name(), "SETTLE_OUTCOME_");
        let id = output::printable(id);
        match result.and_then(|result| result.error.as_ref()) {
            _ if outcome == SettleOutcome::Ok => output::note(self.global, &format!("{verb} OK {id}")),
            Some(error) => eprintln!("{verb} {word} {id}: {}", output::printable(&error.message)),
            None => eprintln!("{verb} {word} {id}"),
        }
    }

    fn free(&mut self, id: &str) {
        if self.held.remove(id).is_some() {
            self.room.freed(1);
        }
    }

    /// Tries acknowledgements again, lets go of leases that have ended, and extends those of records that wait.
    fn look_through(&mut self, line: &mut Line<'_>) {
        let now = Instant::now();
        // Those that were asked about get an answer.
        let asked: HashSet<&String> = self.unanswered.values().flat_map(|order| &order.ids).collect();
        let ended = self.held.iter().filter(|(id, held)| held.until <= now && !asked.contains(id));
        let ended: HashSet<String> = ended.map(|(id, _)| id.clone()).collect();
        let to_extend = self.waiting.to_extend(now, &asked);
        self.tally.stale += ended.len() as u64;
        self.again.retain(|id| !ended.contains(id));
        self.to_ack.retain(|id| !ended.contains(id));
        for id in &ended {
            self.free(id);
        }
        if !to_extend.is_empty() {
            self.order(line, Order::new(Verb::Extend(None), to_extend));
            self.extending.insert(self.sequence);
        }
        let mut acks = std::mem::take(&mut self.again);
        acks.append(&mut self.to_ack);
        if !acks.is_empty() {
            self.order(line, Order::new(Verb::Ack, acks));
        }
    }

    fn tell(&mut self, state: DeliveryState) {
        if state != self.state && state != DeliveryState::Unspecified {
            self.state = state;
            if self.tells {
                eprintln!("note: {}: {}", states::short(state), states::meaning(state));
            }
        }
    }

    /// What became of the records.
    pub(super) fn report(&self) {
        let Tally { written, acked, refused, released, stale } = self.tally;
        let mut text = format!("{} written, {acked} acknowledged", output::records(written));
        let not_settled = self.held.len() as u64;
        for (count, what) in
            [(refused, "refused"), (released, "given back"), (stale, "too late"), (not_settled, "not settled")]
        {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        if stale > 0 || !self.held.is_empty() {
            text.push_str("; what is not acknowledged comes again when its lease ends");
        }
        output::note(self.global, &text);
    }

    /// Whether it went well.
    pub(super) fn outcome(self) -> Result<()> {
        self.failure.map_or(Ok(()), Err)
    }
}

/// Bytes of a record's payload, rather too many than too few.
fn size(received: &ReceivedRecord) -> u64 {
    let Some(record) = &received.record else { return 0 };
    let key = match &record.key_kind {
        Some(record::KeyKind::Key(bytes)) => bytes.len(),
        _ => 0,
    };
    let value = match &record.value_kind {
        Some(record::ValueKind::Value(bytes)) => bytes.len(),
        _ => 0,
    };
    let header = |header: &Header| {
        let value = match &header.value {
            Some(header::Value::Bytes(bytes)) => bytes.len(),
            Some(header::Value::Text(text)) => text.len(),
            None => 0,
        };
        header.name.len() + value
    };
    (key + value + record.headers.iter().map(header).sum::<usize>()) as u64
}

/// The next order; never, when there is no input.
async fn next(orders: &mut Option<mpsc::Receiver<Result<Order>>>) -> Option<Result<Order>> {
    match orders {
        Some(orders) => orders.recv().await,
        None => std::future::pending().await,
    }
}

/// How long a lease lasts from now, by the server's clock and ours.
fn lease(record: &ReceivedRecord) -> Duration {
    let now = jiff::Timestamp::now().as_millisecond();
    let millis = record.lease_end_time.map_or(0, |end| end.as_millis() - now);
    // A clock that is wrong must not end a lease at once.
    Duration::from_millis(u64::try_from(millis).unwrap_or_default()).max(Duration::from_secs(10))
}
