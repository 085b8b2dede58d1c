//! Which reads are under way: as many as somebody wants records, windows have room and the group's share has bytes.
//!
//! Partitions take turns, and each may have cached only its part of the group's share: no backlog of one keeps another waiting.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use sluice_wire::Error;

use crate::groups::dispatch::budget::{Charge, SHARE_BYTES_MIN};
use crate::groups::dispatch::group::{Done, Group, Stage};
use crate::groups::dispatch::losing::Reading;
use crate::groups::dispatch::opening::term;
use crate::groups::dispatch::part::PartKey;
use crate::groups::dispatch::reading::{Read, WAITING_BYTES, Wanted, read_within};

/// Bytes of a read that catches up.
pub(super) const CATCH_UP_BYTES: usize = 1 << 20;
/// Bytes of a read of records that are due again.
const REREAD_BYTES: usize = 256 << 10;
/// Reading goes on so long after records were last asked for.
const LATELY: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(500);

/// What came of a read; `None`: there was no room for what it brought.
pub(super) type Outcome = Result<Option<(Read, Charge)>, Error>;

/// What to ask Kafka for next: about what was taken, if that was cut, or more.
fn next_fetch(wanted: &Wanted, read: &Read) -> usize {
    let asked = usize::try_from(wanted.fetch_bytes).unwrap_or(usize::MAX);
    let next = if read.is_cut { read.fetched_bytes } else { asked.saturating_mul(2) };
    next.clamp(WAITING_BYTES as usize, CATCH_UP_BYTES)
}

/// What the group may still read.
struct Room {
    /// Of its share.
    left: usize,
    /// What one partition may have cached: the same for all, so that none takes what others need.
    of_part: usize,
    /// The process has none left.
    is_lacking: bool,
}

impl Room {
    fn of(group: &Group) -> Self {
        let (share, held) = group.account.share();
        let used = held + group.parts.iter().map(|part| part.expected).sum::<usize>();
        Self {
            left: share.saturating_sub(used),
            of_part: (share / group.parts.len().max(1)).clamp(SHARE_BYTES_MIN, CATCH_UP_BYTES),
            is_lacking: false,
        }
    }
}

impl Group {
    pub(super) fn plan_reads(&mut self, now: Instant) {
        // Between two pulls nobody waits: what is due again, and the next records, are read for the next one.
        let wanted = self.consumers.want_records() || now < self.touched + LATELY;
        if !matches!(self.stage, Stage::Running) || !wanted {
            self.parts.iter_mut().for_each(|part| part.starved = false);
            return self.account.content();
        }
        let count = self.parts.len();
        let mut room = Room::of(self);
        let first = self.read_turn;
        for step in 0..count {
            let at = (first + step) % count;
            if let Some(after) = self.parts[at].read_after {
                if now < after {
                    self.wake_at(after);
                    continue;
                }
                self.parts[at].read_after = None;
            }
            if !self.parts[at].rereading && !self.parts[at].wants.is_empty() {
                self.plan_reread(at, &mut room);
            }
            let part = &self.parts[at];
            // Enough to go on with, or no room.
            if part.reading || !part.window.has_room() || (part.hot && part.cache.bytes() >= room.of_part) {
                continue;
            }
            if part.at_end {
                self.begin_read(at, WAITING_BYTES, room.of_part.max(WAITING_BYTES as usize), true);
            } else if let Some(bytes) = self.room_for(at, room.of_part, &mut room) {
                let fetch_bytes = self.parts[at].fetch_bytes.min(bytes);
                self.begin_read(at, u32::try_from(fetch_bytes).unwrap_or(u32::MAX), bytes, false);
                self.read_turn = at + 1;
            }
        }
        if !room.is_lacking {
            self.account.content();
        }
    }

    fn plan_reread(&mut self, at: usize, room: &mut Room) {
        let Some(bytes) = self.room_for(at, REREAD_BYTES.min(room.of_part), room) else { return };
        let part = &mut self.parts[at];
        let Some(&from) = part.wants.first() else { return };
        part.rereading = true;
        part.expected += bytes;
        let (shared, place, account) = (Arc::clone(&self.shared), part.place_at(from), self.account.clone());
        let (key, term) = (part.key(), part.term);
        let fetch_bytes = u32::try_from(part.fetch_bytes.min(bytes)).unwrap_or(u32::MAX);
        let wanted = Wanted { offset: from, fetch_bytes, held_bytes: bytes, waits: false };
        self.work.push(
            async move {
                let outcome = read_within(shared, place, account, wanted).await;
                Done::Reread { key, term, wanted, outcome }
            }
            .boxed(),
        );
    }

    /// Bytes that a read may bring, if the group may hold so many more. Without room, what is cached and cannot be delivered
    /// makes some.
    fn room_for(&mut self, at: usize, bytes: usize, room: &mut Room) -> Option<usize> {
        while room.left < bytes {
            let blocked = self.parts.iter_mut().find(|part| !part.hot && !part.cache.is_empty());
            let Some(freed) = blocked.and_then(|part| part.cache.evict()) else { break };
            room.left += freed;
        }
        let bytes = bytes.min(room.left);
        // No reads of a few records; those that are there will be delivered, and make room.
        let has_room = !room.is_lacking && bytes >= SHARE_BYTES_MIN && {
            room.is_lacking = !self.account.has_room(bytes);
            !room.is_lacking
        };
        self.parts[at].starved = room.is_lacking;
        if has_room {
            room.left -= bytes;
        }
        has_room.then_some(bytes)
    }

    /// Gives back what others are short of: what would be delivered last.
    pub(super) fn pay_back(&mut self) {
        let mut owed = self.account.owes();
        let count = self.parts.len();
        for step in 0..count {
            // Beginning with what had its turn last.
            let part = &mut self.parts[(self.turn + count - 1 - step) % count];
            while owed > 0
                && let Some(freed) = part.cache.evict()
            {
                owed = owed.saturating_sub(freed);
            }
        }
    }

    fn begin_read(&mut self, at: usize, fetch_bytes: u32, held_bytes: usize, waits: bool) {
        let part = &mut self.parts[at];
        part.reading = true;
        part.tailing = waits;
        part.starved = false;
        part.expected += if waits { 0 } else { held_bytes };
        let offset = part.window.next_read();
        let (shared, place, account) = (Arc::clone(&self.shared), part.place_at(offset), self.account.clone());
        let (key, term) = (part.key(), part.term);
        let wanted = Wanted { offset, fetch_bytes, held_bytes, waits };
        self.work.push(
            async move {
                let outcome = read_within(shared, place, account, wanted).await;
                Done::Read { key, term, wanted, outcome }
            }
            .boxed(),
        );
    }

    pub(super) fn have_read(&mut self, key: PartKey, term: u64, wanted: Wanted, outcome: Outcome, now: Instant) {
        let Some(part) = self.part(key, term) else { return };
        part.reading = false;
        part.tailing = false;
        part.expected -= if wanted.waits { 0 } else { wanted.held_bytes };
        match outcome {
            Ok(Some((read, charge))) => {
                part.trouble = None;
                if !wanted.waits {
                    part.fetch_bytes = next_fetch(&wanted, &read);
                }
                part.beyond_since = None;
                let log_start = read.log_start;
                // Nothing whole came of what is there: the same once more, later.
                if !wanted.waits && read.next_offset <= wanted.offset && read.next_offset < read.end {
                    part.read_after = Some(now + RETRY);
                }
                part.take_read(wanted.offset, read, charge);
                self.touched = now;
                self.lose_below(key, term, log_start, now);
            }
            // There are records, and no room for them: the account is told when there is.
            Ok(None) => {
                part.starved = true;
                part.at_end = false;
            }
            Err(Error::OffsetOutOfRange { .. }) => self.find_bounds(key, term, Reading::On),
            Err(Error::LogTruncated { end_offset, .. }) => self.cut_off(key, term, end_offset, now),
            Err(error) => self.read_failed(key, term, &error, now),
        }
    }

    pub(super) fn have_reread(&mut self, key: PartKey, term: u64, wanted: Wanted, outcome: Outcome, now: Instant) {
        let Some(part) = self.part(key, term) else { return };
        part.rereading = false;
        part.expected -= wanted.held_bytes;
        match outcome {
            Ok(None) => part.starved = true,
            // Nothing whole came: the same once more, later.
            Ok(Some((read, _))) if read.next_offset <= wanted.offset => part.read_after = Some(now + RETRY),
            Ok(Some((read, charge))) => {
                part.trouble = None;
                part.take_reread(wanted.offset, read, charge);
                self.touched = now;
            }
            Err(Error::OffsetOutOfRange { .. }) => self.find_bounds(key, term, Reading::Again),
            Err(Error::LogTruncated { end_offset, .. }) => self.cut_off(key, term, end_offset, now),
            Err(error) => self.read_failed(key, term, &error, now),
        }
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

    pub(super) fn read_failed(&mut self, key: PartKey, term: u64, error: &Error, now: Instant) {
        let Some(part) = self.part(key, term) else { return };
        tracing::debug!(topic = %part.place.topic, partition = part.place.partition, %error, "cannot read");
        part.trouble = Some(error.to_string());
        part.at_end = false;
        part.read_after = Some(now + RETRY);
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::stream::v1::DeliveryState;
    use sluice_types::TenantUid;
    use sluice_wire::MemberEvent;

    use crate::groups::dispatch::budget::PROCESS_BYTES_MAX;
    use crate::groups::dispatch::opening::Step;
    use crate::groups::dispatch::positions::{Closed, Known, Position};
    use crate::groups::dispatch::testing;

    use super::*;

    #[tokio::test]
    async fn a_group_that_waits_for_its_share_is_catching_up_and_not_without_records() {
        let mut group = testing::group();
        let now = Instant::now();
        let assigned = testing::partition(&group, 0);
        group.member_event(Some(MemberEvent::Assigned(vec![assigned.clone()])));
        let topic = Arc::clone(&group.topics[&assigned.topic]);
        let position = Position { offset: 5, leader_epoch: None, metadata: String::new() };
        group.opening(1, Step::Looked(vec![(Closed { assigned, topic }, Ok(Known::At(position)))]), now);
        let state = |group: &Group| group.partition_states().next();
        assert_eq!(state(&group), Some(DeliveryState::NoRecords), "nobody has looked yet");
        // Somebody else has all of it, and gives nothing back for now.
        let hoard = group.shared.budget.open(TenantUid::random());
        let held = hoard.try_charge(PROCESS_BYTES_MAX).expect("all");
        group.plan_reads(now);
        assert_eq!((state(&group), group.parts[0].reading), (Some(DeliveryState::CatchingUp), false));
        assert!(hoard.owes() > 0, "it is asked for some");
        drop(held);
        group.plan_reads(now);
        assert_eq!((state(&group), group.parts[0].reading), (Some(DeliveryState::CatchingUp), true));
    }
}
