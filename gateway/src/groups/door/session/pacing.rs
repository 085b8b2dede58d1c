//! When a stream may have more, and how much: as its client's transport takes it and its tenant's limits allow.
//!
//! An event is as large as all streams of the tenant together may be within its limits, so that a round of them is paid off
//! within a moment, and none waits with leases for another.

use std::time::{Duration, Instant};

use sluice_types::error::Error;

use crate::groups::door::delivery::{Delivered, held_bytes, in_messages};
use crate::groups::door::outlet::{Outlet, Said};
use crate::groups::door::pull::STRAY_PAUSE;
use crate::groups::model::{AttachCommand, Leased, Settle};
use crate::groups::remote::messages::{MESSAGE_BYTES, RECORD_OVERHEAD};

use super::Session;
use super::transit::Transit;

/// Bytes in flight are over the tenant's limit: look again after this.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);
/// An event is not asked to be smaller.
const EVENT_BYTES_MIN: u64 = 4 << 10;
/// What a tenant's streams may have at once, as a part of its rate a second.
const ROUND: u64 = 4;

impl Session {
    /// Lets the dispatcher send an event, if the client takes it at once.
    pub(super) fn give_room(&mut self, out: &Outlet) {
        let is_idle = self.attached && !self.room_given && self.held_until.is_none() && self.leave_at.is_none();
        let has_credit = self.opening.returns_credit || (self.left.records > 0 && self.left.bytes > 0);
        if !is_idle || !has_credit || self.transit.is_some() || !self.waiting.is_empty() || !out.is_asked() {
            return;
        }
        let bytes = self.event_bytes();
        let limiter = &self.standing.call().limiter;
        let pause = match (limiter.check_egress(), limiter.in_flight(bytes)) {
            (Err(error), _) => Some(error.retry_after.unwrap_or(MEMORY_PAUSE)),
            (_, Err(_)) => Some(MEMORY_PAUSE),
            (Ok(()), Ok(_)) => None,
        };
        self.notices.throttled(pause.is_some());
        match pause {
            Some(pause) => self.held_until = Some(Instant::now() + pause),
            None => {
                self.room_given = true;
                self.commands.push_back(AttachCommand::Room { bytes });
            }
        }
    }

    fn event_bytes(&self) -> u64 {
        let limits = self.standing.call().limiter.limits();
        let streams = self.door.admission.open(self.standing.context().tenant.uid()).max(1) as u64;
        let share = (limits.egress_bytes_per_second / ROUND).min(limits.bytes_in_flight / 2) / streams;
        // It goes between gateways as one message.
        let most = (MESSAGE_BYTES - self.opening.batch_records * RECORD_OVERHEAD) as u64;
        share.clamp(EVENT_BYTES_MIN, most)
    }

    /// Hands records on, or back: to who may not have them any more, or beyond what may be held, none goes.
    pub(super) fn records(&mut self, records: Vec<Leased>) -> Result<(), Error> {
        self.room_given = false;
        self.notices.records();
        let stands = self.look_again();
        let call = self.standing.call();
        let held = call.limiter.in_flight(held_bytes(&records));
        let held = match (stands, held) {
            (Ok(()), Ok(held)) => held,
            (stands, _) => {
                let leases = records.iter().map(|leased| leased.key).collect();
                match stands {
                    // The session ends, and its commands with it.
                    Err(_) => self.door.hand_back(call, self.standing.group(), leases),
                    Ok(()) => {
                        let back = AttachCommand::Settle { sequence: 0, settle: Settle::HandBack, leases };
                        self.commands.push_back(back);
                        self.held_until = Some(Instant::now() + MEMORY_PAUSE);
                        self.notices.throttled(true);
                    }
                }
                return stands;
            }
        };
        let group = self.standing.group();
        let Delivered { records, tally, strays } = self.door.encode(call, group, self.opening.encoding, records);
        self.door.hand_back_after(STRAY_PAUSE, call, group, strays);
        call.limiter.charge_egress(tally.bytes());
        self.left.take(records.len(), tally.bytes());
        if !records.is_empty() {
            let deadline = group.ack_deadline;
            self.waiting.extend(in_messages(records).into_iter().map(Said::Records));
            self.transit = Some(Transit::new(tally, held, self.waiting.len(), deadline, Instant::now()));
        }
        Ok(())
    }
}
