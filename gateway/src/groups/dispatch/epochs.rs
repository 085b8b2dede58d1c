//! Under which leaders the records of a partition were written that a group has read.
//!
//! A position is good for one log only: after an unclean election, or the loss of a disk, other records may lie at the same offsets.
//! So a position is kept with the leader epoch of the record before it, and every read names that (KIP-320).

use sluice_wire::EpochStart;

/// Stretches that are remembered.
const KEPT: usize = 64;

/// Under which leaders one stretch of the log was written, as far as it was read: nothing is said of offsets outside it. Whoever
/// jumps across unread records does not know under which leader the last of them was written.
#[derive(Debug, Clone, Default)]
pub(super) struct Epochs {
    /// Where stretches of one epoch begin, ascending.
    starts: Vec<EpochStart>,
    /// The first offset that is known of.
    from: i64,
    /// The first offset that is not.
    to: i64,
}

impl Epochs {
    /// What a commit told: the epoch of the record before its offset.
    pub(super) fn restored(offset: i64, epoch: Option<i32>) -> Self {
        match epoch.filter(|_| offset > 0) {
            Some(epoch) => {
                let from = offset - 1;
                Self { starts: vec![EpochStart { offset: from, epoch }], from, to: offset }
            }
            None => Self { starts: Vec::new(), from: offset, to: offset },
        }
    }

    /// Takes what a read showed that began at an offset and reads on at another.
    pub(super) fn learn(&mut self, from: i64, starts: &[EpochStart], next: i64) {
        if next <= from {
            return;
        }
        if from > self.to || next < self.from {
            *self = Self { starts: Vec::new(), from, to: from };
        }
        for start in starts.iter().filter(|start| start.offset < next) {
            if self.at(start.offset) == Some(start.epoch) {
                continue;
            }
            let at = self.starts.partition_point(|known| known.offset < start.offset);
            match self.starts.get_mut(at).filter(|known| known.offset == start.offset) {
                Some(known) => *known = *start,
                None => self.starts.insert(at, *start),
            }
        }
        (self.from, self.to) = (self.from.min(from), self.to.max(next));
        let surplus = self.starts.len().saturating_sub(KEPT);
        self.starts.drain(..surplus);
    }

    /// The epoch of the record before a position, if it is known.
    pub(super) fn before(&self, offset: i64) -> Option<i32> {
        let before = offset.checked_sub(1)?;
        if (self.from..self.to).contains(&before) { self.at(before) } else { None }
    }

    /// Forgets what lies below a position, but for the record before it.
    pub(super) fn drop_below(&mut self, offset: i64) {
        let first = self.starts.partition_point(|known| known.offset < offset);
        self.starts.drain(..first.saturating_sub(1));
    }

    /// The log is another one from an offset on.
    pub(super) fn cut_off(&mut self, end: i64) {
        self.starts.retain(|known| known.offset < end);
        self.to = self.to.min(end);
        self.from = self.from.min(self.to);
    }

    fn at(&self, offset: i64) -> Option<i32> {
        let at = self.starts.partition_point(|known| known.offset <= offset);
        Some(self.starts.get(at.checked_sub(1)?)?.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(offset: i64, epoch: i32) -> EpochStart {
        EpochStart { offset, epoch }
    }

    #[test]
    fn the_epoch_before_a_position_is_that_of_the_record_read_before_it() {
        let mut epochs = Epochs::restored(10, Some(3));
        assert_eq!((epochs.before(10), epochs.before(9)), (Some(3), None));
        epochs.learn(10, &[start(10, 3), start(14, 5)], 16);
        assert_eq!((epochs.before(14), epochs.before(15)), (Some(3), Some(5)));
        // Read again from within, and from below what is known.
        epochs.learn(12, &[start(12, 3), start(14, 5)], 16);
        epochs.learn(4, &[start(4, 2)], 9);
        assert_eq!([4, 5, 9, 10, 15].map(|offset| epochs.before(offset)), [None, Some(2), Some(2), Some(3), Some(5)]);
        epochs.drop_below(14);
        assert_eq!([10, 14, 15].map(|offset| epochs.before(offset)), [Some(3), Some(3), Some(5)]);
        epochs.cut_off(14);
        assert_eq!([14, 15].map(|offset| epochs.before(offset)), [Some(3), None]);
        assert_eq!(Epochs::restored(0, Some(3)).before(0), None, "nothing was read");
        assert_eq!(Epochs::default().before(i64::MIN), None);
    }

    #[test]
    fn nothing_is_said_of_the_record_before_a_position_that_was_jumped_to() {
        let mut epochs = Epochs::restored(10, Some(3));
        epochs.learn(10, &[start(10, 3)], 12);
        assert_eq!(epochs.before(12), Some(3));
        assert_eq!(epochs.before(100), None, "what lies between may be of another leader");
        // From there on it is known again, but not what lies between.
        epochs.learn(100, &[start(100, 7)], 105);
        assert_eq!([12, 50, 100, 101, 105].map(|offset| epochs.before(offset)), [None, None, None, Some(7), Some(7)]);
        // Back to the beginning, and on again without reading.
        epochs.learn(0, &[start(0, 1)], 5);
        assert_eq!([5, 6, 105].map(|offset| epochs.before(offset)), [Some(1), None, None]);
    }

    #[test]
    fn nothing_is_learned_of_what_was_not_taken_of_a_read() {
        let mut epochs = Epochs::restored(10, Some(3));
        epochs.learn(10, &[start(10, 3), start(14, 5)], 12);
        epochs.learn(12, &[start(12, 4)], 20);
        assert_eq!(epochs.before(20), Some(4));
    }

    #[test]
    fn as_many_stretches_are_kept_as_there_may_be() {
        let mut epochs = Epochs::default();
        epochs.learn(0, &(0..100).map(|at| start(i64::from(at), at)).collect::<Vec<_>>(), 100);
        assert_eq!((epochs.starts.len(), epochs.before(100)), (KEPT, Some(99)));
    }
}
