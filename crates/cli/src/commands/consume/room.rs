//! How many records may come: credit, `--max`, and what is out.

/// The count of what may come, what comes, and what is out.
pub(super) struct Room {
    /// Records out at a time, at most.
    credit: u64,
    /// Records that are asked for or wait to be written, at most: what hangs here when the output is slow or ends.
    ahead: u64,
    /// The same as `credit`, for now: it grows with each record that was written.
    allowed: u64,
    /// Records that are still to be written.
    left: u64,
    /// Asked for, and not come yet.
    asked: u64,
    /// Written and not settled.
    held: u64,
    /// Bytes that were written since credit was last given.
    bytes: u64,
    /// Records that came and are not written.
    waiting: u64,
    /// Bytes of them.
    unwritten: u64,
}

/// Bytes that may be on their way or wait to be written; one record may be more.
const BYTES: u64 = 16 << 20;
/// Records that are asked for at first by who begins slowly.
const ALLOWED_FIRST: u64 = 16;
/// Records out at a time, unless told.
const CREDIT: u32 = 1_000;
/// Records that are on their way or wait to be written, unless told.
const AHEAD: u64 = 64;
/// Bytes that are worth a message.
const BYTES_STEP: u64 = 1 << 20;

/// What to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) records: u32,
    pub(super) bytes: u64,
}

impl Room {
    pub(super) fn new(credit: Option<u32>, max: Option<u64>) -> Self {
        let ahead = credit.map_or(AHEAD, u64::from);
        let credit = u64::from(credit.unwrap_or(CREDIT));
        Self {
            credit,
            ahead,
            allowed: credit,
            left: max.unwrap_or(u64::MAX),
            asked: 0,
            held: 0,
            bytes: BYTES,
            waiting: 0,
            unwritten: 0,
        }
    }

    /// Whoever reads may soon have seen enough. What is given back then comes later to others, so little is asked for at first.
    pub(super) fn begin_slowly(&mut self) {
        self.allowed = self.credit.min(ALLOWED_FIRST);
    }

    /// Asks for more on top of what was asked for. Small amounts wait until they are worth a message.
    pub(super) fn ask(&mut self) -> Option<Demand> {
        let free = self.allowed.saturating_sub(self.asked + self.held);
        let free = free.min(self.ahead.saturating_sub(self.asked + self.waiting));
        let more = free.min(self.left.saturating_sub(self.asked));
        let records = if self.asked > 0 && more * 4 < self.allowed.min(self.ahead) { 0 } else { more };
        // Without bytes those that were asked for would not come.
        if records == 0 && (self.asked == 0 || self.bytes < BYTES_STEP) {
            return None;
        }
        self.asked += records;
        Some(Demand { records: records as u32, bytes: std::mem::take(&mut self.bytes).max(1) })
    }

    /// What was asked for on another connection does not come any more.
    pub(super) fn connected(&mut self) {
        (self.asked, self.bytes) = (0, BYTES.saturating_sub(self.unwritten));
    }

    /// Records came; how many of them to take.
    pub(super) fn came(&mut self, records: usize, bytes: u64) -> usize {
        self.unwritten += bytes;
        let came = records as u64;
        self.asked = self.asked.saturating_sub(came);
        let taken = came.min(self.left);
        self.left -= taken;
        self.held += taken;
        self.waiting += taken;
        taken as usize
    }

    /// Records were written.
    pub(super) fn wrote(&mut self, records: usize, bytes: u64) {
        self.allowed = self.credit.min(self.allowed.saturating_add(records as u64));
        self.waiting = self.waiting.saturating_sub(records as u64);
        self.dropped(bytes);
    }

    /// Bytes do not wait to be written any more.
    pub(super) fn dropped(&mut self, bytes: u64) {
        self.unwritten = self.unwritten.saturating_sub(bytes);
        self.bytes += bytes;
    }

    /// Records are not out any more.
    pub(super) fn freed(&mut self, records: u64) {
        self.held = self.held.saturating_sub(records);
    }

    /// Records that were taken are not to be written any more: others may come for them.
    pub(super) fn lost(&mut self, records: u64) {
        self.freed(records);
        self.waiting = self.waiting.saturating_sub(records);
        self.left = self.left.saturating_add(records);
    }

    /// Whether all that was wished for has come.
    pub(super) fn is_used_up(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(room: &mut Room) -> u32 {
        room.ask().map_or(0, |demand| demand.records)
    }

    #[test]
    fn no_more_is_asked_for_than_may_be_out() {
        let mut room = Room::new(Some(100), None);
        assert_eq!(room.ask(), Some(Demand { records: 100, bytes: BYTES }));
        assert_eq!(room.came(60, 60), 60);
        room.wrote(60, 60);
        assert_eq!(room.ask(), None, "60 held, 40 on their way");
        room.freed(10);
        assert_eq!(room.ask(), None, "too few to be worth a message");
        room.freed(30);
        assert_eq!(room.ask(), Some(Demand { records: 40, bytes: 60 }));
        room.connected();
        assert_eq!(asked(&mut room), 80, "20 held");
    }

    #[test]
    fn who_begins_slowly_asks_for_more_with_each_record_that_was_written() {
        let mut room = Room::new(Some(1_000), None);
        room.begin_slowly();
        assert_eq!(asked(&mut room), 16);
        for (round, next) in [(16, 32), (32, 64), (64, 128), (128, 256), (256, 512), (512, 1_000), (1_000, 1_000)] {
            assert_eq!(room.came(round, 0), round);
            room.wrote(round, 0);
            room.freed(round as u64);
            assert_eq!(asked(&mut room), next, "after {round}");
        }
        let mut small = Room::new(Some(5), None);
        small.begin_slowly();
        assert_eq!(asked(&mut small), 5);
    }

    #[test]
    fn little_waits_to_be_written_unless_credit_was_given() {
        let mut room = Room::new(None, None);
        assert_eq!(asked(&mut room), 64);
        assert_eq!(room.came(64, 0), 64);
        assert_eq!(room.ask(), None, "the output is slow");
        room.wrote(20, 0);
        assert_eq!(asked(&mut room), 20, "written records that are not acknowledged yet hold up nothing");
        assert_eq!(room.came(20, 0), 20);
        room.lost(64);
        assert_eq!(asked(&mut room), 64);
        assert_eq!(asked(&mut Room::new(Some(500), None)), 500);
    }

    #[test]
    fn max_is_exact() {
        let mut room = Room::new(Some(100), Some(30));
        assert_eq!(asked(&mut room), 30);
        assert_eq!(room.came(20, 0), 20);
        room.freed(20);
        assert_eq!(room.ask(), None, "10 are on their way");
        assert_eq!(room.came(15, 0), 10, "what was not asked for is not taken");
        assert!(room.is_used_up());
        room.freed(10);
        assert_eq!(room.ask(), None);
    }

    #[test]
    fn what_is_lost_before_it_is_written_is_asked_for_again() {
        let mut room = Room::new(Some(100), Some(10));
        assert_eq!(asked(&mut room), 10);
        assert_eq!(room.came(10, 0), 10);
        assert!(room.is_used_up());
        room.lost(3);
        assert!(!room.is_used_up());
        assert_eq!(asked(&mut room), 3);
        assert_eq!(room.came(3, 0), 3);
        assert!(room.is_used_up());
        let mut endless = Room::new(Some(100), None);
        assert_eq!(asked(&mut endless), 100);
        assert_eq!(endless.came(100, 0), 100);
        endless.lost(100);
        assert_eq!(asked(&mut endless), 100);
    }

    #[test]
    fn large_records_use_up_bytes_before_records() {
        let mut room = Room::new(Some(1_000), None);
        assert_eq!(asked(&mut room), 1_000);
        assert_eq!(room.came(16, BYTES), 16);
        assert_eq!(room.ask(), None, "they are not written yet");
        room.connected();
        assert_eq!(room.ask(), Some(Demand { records: 984, bytes: 1 }), "nor on another connection");
        room.wrote(16, BYTES);
        assert_eq!(room.ask(), Some(Demand { records: 0, bytes: BYTES }), "984 are still to come");
    }
}
