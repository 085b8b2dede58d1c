//! How many records may come: credit, `--max`, and what is out.

/// The count of what may come, what comes, and what is out.
pub(super) struct Room {
    /// Records out at a time.
    credit: u64,
    /// Records that are still to be written.
    left: u64,
    /// Asked for, and not come yet.
    asked: u64,
    /// Written and not settled.
    held: u64,
}

impl Room {
    pub(super) fn new(credit: u32, max: Option<u64>) -> Self {
        Self { credit: credit.into(), left: max.unwrap_or(u64::MAX), asked: 0, held: 0 }
    }

    /// What to ask for on top of what was asked for. Small amounts wait until they are worth a message.
    pub(super) fn wish(&self) -> u32 {
        let free = self.credit.saturating_sub(self.asked + self.held);
        let more = free.min(self.left.saturating_sub(self.asked));
        if self.asked > 0 && more * 4 < self.credit { 0 } else { more as u32 }
    }

    pub(super) fn asked_for(&mut self, records: u32) {
        self.asked += u64::from(records);
    }

    /// What was asked for on another connection does not come any more.
    pub(super) fn connected(&mut self) {
        self.asked = 0;
    }

    /// Records came; how many of them to take.
    pub(super) fn came(&mut self, records: usize) -> usize {
        let came = records as u64;
        self.asked = self.asked.saturating_sub(came);
        let taken = came.min(self.left);
        self.left -= taken;
        self.held += taken;
        taken as usize
    }

    /// Records are not out any more.
    pub(super) fn freed(&mut self, records: u64) {
        self.held = self.held.saturating_sub(records);
    }

    /// Whether all that was wished for has come.
    pub(super) fn is_used_up(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_asked_for_than_may_be_out() {
        let mut room = Room::new(100, None);
        assert_eq!(room.wish(), 100);
        room.asked_for(100);
        assert_eq!(room.came(60), 60);
        assert_eq!(room.wish(), 0, "60 held, 40 on their way");
        room.freed(10);
        assert_eq!(room.wish(), 0, "too few to be worth a message");
        room.freed(30);
        assert_eq!(room.wish(), 40);
        room.connected();
        assert_eq!(room.wish(), 80, "20 held");
    }

    #[test]
    fn max_is_exact() {
        let mut room = Room::new(100, Some(30));
        assert_eq!(room.wish(), 30);
        room.asked_for(30);
        assert_eq!(room.came(20), 20);
        room.freed(20);
        assert_eq!(room.wish(), 0, "10 are on their way");
        assert_eq!(room.came(15), 10, "what was not asked for is not taken");
        assert!(room.is_used_up());
        room.freed(10);
        assert_eq!(room.wish(), 0);
    }
}
