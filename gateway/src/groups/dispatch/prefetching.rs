//! Which reads are under way: as many as somebody wants records, windows have room and the budget has bytes.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use sluice_wire::Error;

use crate::groups::dispatch::budget::{Charge, GROUP_BYTES_MAX};
use crate::groups::dispatch::group::{Done, Group, Stage};
use crate::groups::dispatch::joining::term;
use crate::groups::dispatch::part::{PartKey, Skipped};
use crate::groups::dispatch::positions;
use crate::groups::dispatch::reading::{Read, WAITING_BYTES, read};
use crate::groups::model::Start;

/// Bytes of a read that catches up.
const CATCH_UP_BYTES: usize = 1 << 20;
/// Bytes of a read of records that are due again.
const REREAD_BYTES: usize = 256 << 10;
/// Reading goes on so long after records were last asked for.
const LATELY: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(500);

impl Group {
    pub(super) fn plan_reads(&mut self, now: Instant) {
        // Between two pulls nobody waits: what is due again, and the next records, are read for the next one.
        let wanted = self.consumers.want_records() || now < self.touched + LATELY;
        if !matches!(self.stage, Stage::Running) || !wanted {
            return;
        }
        let mut held: usize = self.parts.iter().map(|part| part.cache.bytes()).sum();
        let catch_up = (GROUP_BYTES_MAX / 2 / self.parts.len().max(1)).clamp(WAITING_BYTES as usize, CATCH_UP_BYTES);
        for at in 0..self.parts.len() {
            if let Some(after) = self.parts[at].read_after {
                if now < after {
                    self.wake_at(after);
                    continue;
                }
                self.parts[at].read_after = None;
            }
            if !self.parts[at].rereading && !self.parts[at].wants.is_empty() {
                self.plan_reread(at, &mut held);
            }
            let part = &self.parts[at];
            // Enough to go on with, or no room.
            if part.reading || !part.window.has_room() || (part.hot && part.cache.bytes() >= catch_up) {
                continue;
            }
            if part.at_end {
                self.begin_read(at, WAITING_BYTES, None);
            } else if let Some(charge) = self.charge(catch_up, &mut held) {
                self.begin_read(at, u32::try_from(catch_up).unwrap_or(u32::MAX), Some(charge));
            }
        }
    }

    fn plan_reread(&mut self, at: usize, held: &mut usize) {
        let Some(charge) = self.charge(REREAD_BYTES, held) else { return };
        let part = &mut self.parts[at];
        let Some(&from) = part.wants.first() else { return };
        part.rereading = true;
        let (shared, place) = (Arc::clone(&self.shared), part.place.clone());
        let (key, term) = (part.key(), part.term);
        self.work.push(
            async move {
                let outcome = read(shared, place, from, REREAD_BYTES as u32, false).await;
                Done::Reread { key, term, from, charge, outcome }
            }
            .boxed(),
        );
    }

    /// Bytes for a read. Without any at hand, what is cached and cannot be delivered makes room.
    fn charge(&mut self, bytes: usize, held: &mut usize) -> Option<Charge> {
        while *held > 0 && *held + bytes > GROUP_BYTES_MAX {
            let idle = self.parts.iter_mut().find(|part| !part.hot && !part.cache.is_empty())?;
            let before = idle.cache.bytes();
            idle.cache.evict();
            *held -= before - idle.cache.bytes();
        }
        let charge = match self.granted.take() {
            Some(granted) => Some(granted),
            None => self.shared.budget.try_charge(bytes),
        };
        if charge.is_some() {
            *held += bytes;
        } else if !self.grant_awaited {
            self.grant_awaited = true;
            let grant = self.shared.budget.charge(CATCH_UP_BYTES);
            self.work.push(async move { Done::Charged(grant.await) }.boxed());
        }
        charge
    }

    fn begin_read(&mut self, at: usize, bytes: u32, charge: Option<Charge>) {
        let part = &mut self.parts[at];
        part.reading = true;
        part.tailing = charge.is_none();
        let (shared, place) = (Arc::clone(&self.shared), part.place.clone());
        let (key, term, from, waits) = (part.key(), part.term, part.window.next_read(), part.tailing);
        self.work.push(
            async move {
                let outcome = read(shared, place, from, bytes, waits).await;
                Done::Read { key, term, from, charge, outcome }
            }
            .boxed(),
        );
    }

    pub(super) fn have_read(
        &mut self,
        key: PartKey,
        term: u64,
        from: i64,
        charge: Option<Charge>,
        outcome: Result<Read, Error>,
        now: Instant,
    ) {
        let shared = Arc::clone(&self.shared);
        let Some(part) = self.part(key, term) else { return };
        part.reading = false;
        part.tailing = false;
        match outcome {
            Ok(read) => {
                part.trouble = None;
                // What came while waiting was not counted before.
                let Some(charge) = charge.or_else(|| shared.budget.try_charge(read.bytes.max(1))) else {
                    part.at_end = false;
                    return;
                };
                part.take_read(from, read, charge);
                self.touched = now;
            }
            Err(Error::OffsetOutOfRange { .. }) => self.begin_restart(key, term),
            Err(error) => self.read_failed(key, term, &error, now),
        }
    }

    pub(super) fn have_reread(
        &mut self,
        key: PartKey,
        term: u64,
        from: i64,
        charge: Charge,
        outcome: Result<Read, Error>,
        now: Instant,
    ) {
        let shared = Arc::clone(&self.shared);
        let Some(part) = self.part(key, term) else { return };
        part.rereading = false;
        match outcome {
            // Nothing whole came: the same once more, later.
            Ok(read) if read.next_offset <= from => part.read_after = Some(now + RETRY),
            Ok(read) => {
                part.trouble = None;
                part.take_reread(from, read, charge);
                self.touched = now;
            }
            Err(Error::OffsetOutOfRange { .. }) => {
                part.rereading = true;
                let place = part.place.clone();
                self.work.push(
                    async move {
                        let partitions = [place.partition];
                        let found = positions::find(&shared, &place.topic, &partitions, Start::Earliest).await;
                        let outcome = found.map(|found| found.get(&place.partition).copied().unwrap_or(0));
                        Done::LogStart { key, term, outcome }
                    }
                    .boxed(),
                );
            }
            Err(error) => self.read_failed(key, term, &error, now),
        }
    }

    /// Records that were to be delivered again were lost to retention.
    pub(super) fn log_start(&mut self, key: PartKey, term: u64, outcome: Result<i64, Error>, now: Instant) {
        let at_ms = self.shared.clock.ms(now);
        let skipped = self.shared.metrics.skipped.clone();
        let Some(part) = self.part(key, term) else { return };
        part.rereading = false;
        let Ok(log_start) = outcome else {
            part.read_after = Some(now + RETRY);
            return;
        };
        let from = part.window.base();
        let lost = part.lose_below(log_start);
        skipped.inc_by(lost as u64);
        if lost > 0 {
            tracing::warn!(topic = %part.place.topic, partition = part.place.partition, from, log_start, lost, "records that were to be delivered again were lost to retention");
            part.skipped = Some(Skipped { from, to: log_start, at_ms });
        }
    }

    /// The position is not in the log any more: the start rule says where to go on.
    fn begin_restart(&mut self, key: PartKey, term: u64) {
        let (shared, start) = (Arc::clone(&self.shared), self.config.start);
        let Some(part) = self.part(key, term) else { return };
        part.reading = true;
        let place = part.place.clone();
        // A time lies before what is still there, or at it.
        let rule = if start == Start::Latest { Start::Latest } else { Start::Earliest };
        self.work.push(
            async move {
                let found = positions::find(&shared, &place.topic, &[place.partition], rule).await;
                let outcome = found.map(|found| found.get(&place.partition).copied().unwrap_or(0));
                Done::Restart { key, term, outcome }
            }
            .boxed(),
        );
    }

    pub(super) fn restart(&mut self, key: PartKey, of_term: u64, outcome: Result<i64, Error>, now: Instant) {
        let at_ms = self.shared.clock.ms(now);
        let skipped = self.shared.metrics.skipped.clone();
        let offset = match outcome {
            Ok(offset) => offset,
            Err(error) => {
                if let Some(part) = self.part(key, of_term) {
                    part.reading = false;
                }
                return self.read_failed(key, of_term, &error, now);
            }
        };
        let from = self.part(key, of_term).map_or(offset, |part| part.window.next_read());
        if self.move_part(key, of_term, offset).is_none() {
            return;
        }
        let Some(part) = self.index.get(&key).map(|&at| &mut self.parts[at]) else { return };
        tracing::warn!(topic = %part.place.topic, partition = part.place.partition, from, to = offset, "the position is not in the log any more; going on by the start rule");
        skipped.inc_by(u64::try_from(offset.saturating_sub(from)).unwrap_or(0));
        part.skipped = Some(Skipped { from, to: offset, at_ms });
    }

    /// Moves a partition to an offset, with a new term; gives that.
    pub(super) fn move_part(&mut self, key: PartKey, of_term: u64, offset: i64) -> Option<u64> {
        let epoch = self.member.as_ref().and_then(sluice_wire::GroupMember::epoch).unwrap_or(0);
        let (policy, fresh) = (self.policy, term(epoch));
        let lost = self.part(key, of_term)?.restart(offset, fresh, policy);
        lost.iter().for_each(|out| self.consumers.came_back(out.holder, out.bytes));
        self.settle_pending();
        Some(fresh)
    }

    fn read_failed(&mut self, key: PartKey, term: u64, error: &Error, now: Instant) {
        let Some(part) = self.part(key, term) else { return };
        tracing::debug!(topic = %part.place.topic, partition = part.place.partition, %error, "cannot read");
        part.trouble = Some(error.to_string());
        part.at_end = false;
        part.read_after = Some(now + RETRY);
    }
}
