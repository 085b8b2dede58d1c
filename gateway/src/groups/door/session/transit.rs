//! Records between us and the client: sent, and not yet taken by the client's transport.
//!
//! Their leases do not run out meanwhile. A client that takes nothing for longer than that is given up: its records are handed
//! back, which counts as no attempt, and its stream ends.

use std::time::{Duration, Instant};

use sluice_types::Reason;
use sluice_types::error::Error;

use crate::groups::door::delivery::Tally;
use crate::groups::door::outlet::Outlet;
use crate::groups::model::{AttachCommand, Settle};
use crate::quota::InFlightGuard;

use super::{Link, Session};

/// Nobody is given up before that.
pub(in crate::groups::door) const GIVE_UP_MIN: Duration = Duration::from_secs(30);
/// Leases of what left sooner than this are not worth a word.
pub(in crate::groups::door) const PROMPT: Duration = Duration::from_millis(250);

/// See the module.
pub(super) struct Transit {
    pub(super) tally: Tally,
    /// Memory that it takes.
    held: InFlightGuard,
    /// Messages that have to be sent, up to its last one.
    ahead: usize,
    /// The number of its last message, once that was sent.
    pub(super) last: Option<u64>,
    since: Instant,
    restart_at: Instant,
    restart_every: Duration,
    give_up_at: Instant,
}

impl Transit {
    pub(super) fn new(tally: Tally, held: InFlightGuard, ahead: usize, ack_deadline: Duration, now: Instant) -> Self {
        let restart_every = ack_deadline / 3;
        let give_up_at = now + ack_deadline.max(GIVE_UP_MIN);
        Self { tally, held, ahead, last: None, since: now, restart_at: now + restart_every, restart_every, give_up_at }
    }

    /// A message was sent, its own or one before or behind it.
    fn sent(&mut self, number: u64) {
        self.ahead = self.ahead.saturating_sub(1);
        if self.ahead == 0 {
            self.last.get_or_insert(number);
        }
    }

    /// When to look after it.
    pub(super) fn next(&self) -> Instant {
        self.restart_at.min(self.give_up_at)
    }
}

impl Session {
    /// A message was sent, under this number.
    pub(super) fn sent(&mut self, number: u64) {
        if let Some(transit) = &mut self.transit {
            transit.sent(number);
        }
    }

    /// What the transport has taken was delivered; if it comes for more, it may have more.
    pub(super) fn look_at_transport(&mut self, out: &Outlet) {
        let asked = out.asked();
        if let Some(transit) = self.transit.take_if(|transit| transit.last.is_some_and(|last| asked > last)) {
            self.door.delivered(&transit.tally);
            if transit.since.elapsed() > PROMPT {
                self.settle_own(Settle::Restart, &transit.tally);
            }
        }
        self.give_room(out);
    }

    /// Lets leases run from now while their records are in transit, or gives the client up.
    pub(super) fn mind_transit(&mut self, now: Instant) -> Result<(), Error> {
        let Some(mut transit) = self.transit.take_if(|transit| transit.next() <= now) else { return Ok(()) };
        if transit.give_up_at <= now {
            self.transit = Some(transit);
            return Err(not_reading());
        }
        self.settle_own(Settle::Restart, &transit.tally);
        transit.restart_at = now + transit.restart_every;
        self.transit = Some(transit);
        Ok(())
    }

    /// Settles leases for ourselves; nobody waits for the answer.
    pub(super) fn settle_own(&mut self, settle: Settle, tally: &Tally) {
        self.commands.push_back(AttachCommand::Settle { sequence: 0, settle, leases: tally.leases() });
    }

    /// The stream is over: what did not reach the client is handed back.
    pub(super) fn give_up(&mut self, link: &mut Link, out: &Outlet) {
        self.look_at_transport(out);
        let mut leases = Vec::new();
        if let Some(Transit { tally, held, .. }) = self.transit.take() {
            self.standing.call().limiter.refund_egress(tally.bytes());
            leases = tally.leases();
            // The transport has it for as long as it has the answer.
            out.progress.leave(held);
        }
        leases.extend(self.behind.take().iter().flatten().map(|leased| leased.key));
        let (call, group) = (self.standing.call(), self.standing.group());
        self.door.hand_back(call, group, leases);
        // The dispatcher hears of the end by it, and may be sending at this moment.
        link.commands = None;
        if let Some(events) = link.events.take() {
            self.door.hand_back_rest(call, group, events);
        }
    }
}

fn not_reading() -> Error {
    Error::unavailable(
        Reason::ClientNotReading,
        "the client has not read from its stream for as long as the group's ack deadline; what it had not read comes again; connect again",
    )
}
