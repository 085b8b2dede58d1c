//! Leases and what ends them: acks, refusals, deadlines, letters.

use std::sync::Arc;

use sluice_types::limits::RELEASES_MAX;

use super::slots::State;
use super::{Acked, Dead, DeathReason, Lease, Millis, Refused, Window};

/// Releases of one record without a wait; from then on each waits longer, as after failures.
pub(super) const RELEASES_FREE: u16 = 10;

impl Window {
    /// Hands a ready record out until the group's deadline; none if it is not ready.
    pub fn lease(&mut self, offset: i64, now: Millis) -> Option<Lease> {
        let slot = self.slots.get(offset).filter(|slot| slot.state == State::Ready)?;
        let lease =
            Lease { offset, attempt: slot.attempt(), end: now.saturating_add(self.policy.ack_deadline_ms.max(0)) };
        self.slots.delivered(offset, now);
        self.make_timed(offset, State::Out, lease.end);
        Some(lease)
    }

    /// Takes a lease back whose record never left: the attempt does not count. The attempt's number comes again. False if it is
    /// not the current one.
    pub fn unlease(&mut self, offset: i64, attempt: u32) -> bool {
        let current = self.is_out(offset, attempt);
        if current {
            self.slots.undelivered(offset);
            self.make_ready(offset);
        }
        current
    }

    /// The receiver gives a record back that it did not work on: no failure, and the next delivery has another number. It is ready
    /// again after `delay` ms. One that was released often waits for at least the backoff; one that was released
    /// [`RELEASES_MAX`] times has failed.
    pub fn release(&mut self, offset: i64, attempt: u32, delay: Option<i64>, now: Millis) -> Refused {
        if !self.is_out(offset, attempt) {
            return Refused::Stale;
        }
        let Some(releases) = self.slots.released(offset, RELEASES_MAX) else {
            return self.fail(offset, delay, DeathReason::Refused(Arc::from("released too often")), now);
        };
        self.slots.undelivered(offset);
        let often = releases.saturating_sub(RELEASES_FREE);
        let least = if often > 0 { self.policy.backoff(u32::from(often)) } else { 0 };
        self.wait_until(offset, now.saturating_add(delay.unwrap_or(0).max(least)), now)
    }

    /// The record is done.
    pub fn ack(&mut self, offset: i64, attempt: u32) -> Acked {
        if self.is_done(offset) {
            return Acked::AlreadyDone;
        }
        if !self.is_out(offset, attempt) {
            return Acked::Stale;
        }
        self.finish(offset);
        Acked::Done
    }

    /// The delivery failed: once more after the backoff, or after `delay` ms, unless it was the last. A record that is done
    /// already is `Stale` here.
    pub fn refuse(&mut self, offset: i64, attempt: u32, delay: Option<i64>, reason: Arc<str>, now: Millis) -> Refused {
        if !self.is_out(offset, attempt) {
            return Refused::Stale;
        }
        self.fail(offset, delay, DeathReason::Refused(reason), now)
    }

    /// Moves the end of a lease; false if it is not the current one.
    pub fn extend(&mut self, offset: i64, attempt: u32, end: Millis) -> bool {
        let current = self.is_out(offset, attempt);
        if current {
            self.make_timed(offset, State::Out, end);
        }
        current
    }

    /// Ends leases whose time is over, and makes ready what has waited long enough.
    pub fn tick(&mut self, now: Millis) {
        while let Some(offset) = self.schedule.pop(now) {
            match self.slots.get(offset).map(|slot| slot.state) {
                Some(State::Out) => {
                    self.fail(offset, None, DeathReason::DeadlineExceeded, now);
                }
                Some(State::Waiting) => self.make_ready(offset),
                _ => {}
            }
        }
    }

    /// Records that are dead and whose letters nobody writes yet, by offset.
    pub fn dead(&self) -> impl Iterator<Item = Dead> + '_ {
        self.dead.iter().filter(|(offset, _)| !self.dead_lettering.contains(offset)).filter_map(|(&offset, reason)| {
            let slot = self.slots.get(offset)?;
            let (attempts, reason) = (slot.failures, reason.clone());
            Some(Dead { offset, attempts, first_delivery: slot.first().unwrap_or_default(), reason })
        })
    }

    /// The letter of a dead record is about to be written: from now on nothing brings the record back but
    /// [`Window::letter_failed`]. False: it is not dead any more, or its letter is being written already.
    pub fn begin_letter(&mut self, offset: i64) -> bool {
        self.dead.contains_key(&offset) && self.dead_lettering.insert(offset)
    }

    /// The letter that was begun is written: the record is done.
    pub fn letter_written(&mut self, offset: i64) {
        if self.dead_lettering.contains(&offset) {
            self.finish(offset);
        }
    }

    /// The letter that was begun could not be written: the record is dead as before, or ready if the policy has changed.
    pub fn letter_failed(&mut self, offset: i64) {
        if self.dead_lettering.remove(&offset) {
            self.live_again(offset);
        }
    }

    /// Makes a dead record ready, if it has attempts left.
    pub(super) fn live_again(&mut self, offset: i64) {
        let failures = self.slots.get(offset).map_or(0, |slot| slot.failures);
        if !self.policy.is_over(failures) {
            self.make_ready(offset);
        }
    }

    /// Whether a record needs no delivery any more. Of what is not read yet: whether a commit told so.
    pub fn is_done(&self, offset: i64) -> bool {
        offset < self.base() || self.slots.get(offset).is_some_and(|slot| slot.state == State::Done)
    }

    fn is_out(&self, offset: i64, attempt: u32) -> bool {
        self.slots.get(offset).is_some_and(|slot| slot.state == State::Out && slot.attempt() == attempt)
    }

    fn fail(&mut self, offset: i64, delay: Option<i64>, reason: DeathReason, now: Millis) -> Refused {
        let failures = self.slots.get(offset).map_or(1, |slot| slot.failures.saturating_add(1));
        self.slots.set_failures(offset, failures);
        self.sequence += 1;
        if self.policy.is_over(failures) {
            self.leave(offset);
            self.slots.set_state(offset, State::Dead);
            self.dead.insert(offset, reason);
            return Refused::Dead;
        }
        let at = now.saturating_add(delay.unwrap_or_else(|| self.policy.backoff(failures)).max(0));
        self.wait_until(offset, at, now)
    }

    fn wait_until(&mut self, offset: i64, at: Millis, now: Millis) -> Refused {
        if at > now {
            self.make_timed(offset, State::Waiting, at);
        } else {
            self.make_ready(offset);
        }
        Refused::Retry { at }
    }
}
