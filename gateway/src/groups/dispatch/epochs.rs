//! Under which leaders the records of a partition were written that a group has read.
//!
//! A position is good for one log only: after an unclean election, or the loss of a disk, other records may lie at the same offsets.
//! So a position is kept with the leader epoch of the record before it, and every read names that (KIP-320).

use sluice_wire::EpochStart;

/// Stretches that are remembered.
const KEPT: usize = 64;

/// Where stretches of one epoch begin, ascending.
#[derive(Debug, Clone, Default)]
pub(super) struct Epochs(Vec<EpochStart>);

impl Epochs {
    /// What a commit told: the epoch of the record before its offset.
    pub(super) fn restored(offset: i64, epoch: Option<i32>) -> Self {
        let before = |epoch| EpochStart { offset: offset - 1, epoch };
        Self(epoch.filter(|_| offset > 0).map(before).into_iter().collect())
    }

    /// Takes what a read showed.
    pub(super) fn learn(&mut self, starts: &[EpochStart]) {
        for start in starts {
            if self.at(start.offset) == Some(start.epoch) {
                continue;
            }
            let at = self.0.partition_point(|known| known.offset < start.offset);
            match self.0.get_mut(at).filter(|known| known.offset == start.offset) {
                Some(known) => *known = *start,
                None => self.0.insert(at, *start),
            }
        }
        let surplus = self.0.len().saturating_sub(KEPT);
        self.0.drain(..surplus);
    }

    /// The epoch of the record before a position, if it is known.
    pub(super) fn before(&self, offset: i64) -> Option<i32> {
        self.at(offset.checked_sub(1)?)
    }

    /// Forgets what lies below a position, but for the record before it.
    pub(super) fn drop_below(&mut self, offset: i64) {
        let first = self.0.partition_point(|known| known.offset < offset);
        self.0.drain(..first.saturating_sub(1));
    }

    /// The log is another one from an offset on.
    pub(super) fn cut_off(&mut self, end: i64) {
        self.0.retain(|known| known.offset < end);
    }

    fn at(&self, offset: i64) -> Option<i32> {
        let at = self.0.partition_point(|known| known.offset <= offset);
        Some(self.0.get(at.checked_sub(1)?)?.epoch)
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
        epochs.learn(&[start(10, 3), start(14, 5)]);
        assert_eq!((epochs.before(14), epochs.before(15)), (Some(3), Some(5)));
        // Read again from within, and from below what is known.
        epochs.learn(&[start(12, 3), start(14, 5)]);
        epochs.learn(&[start(4, 2)]);
        assert_eq!([4, 5, 9, 10, 15].map(|offset| epochs.before(offset)), [None, Some(2), Some(2), Some(3), Some(5)]);
        epochs.drop_below(14);
        assert_eq!([10, 14, 15].map(|offset| epochs.before(offset)), [Some(3), Some(3), Some(5)]);
        epochs.cut_off(14);
        assert_eq!(epochs.before(15), Some(3));
        assert_eq!(Epochs::restored(0, Some(3)).before(0), None, "nothing was read");
        assert_eq!(Epochs::default().before(i64::MIN), None);
    }

    #[test]
    fn as_many_stretches_are_kept_as_there_may_be() {
        let mut epochs = Epochs::default();
        epochs.learn(&(0..100).map(|at| start(i64::from(at), at)).collect::<Vec<_>>());
        assert_eq!((epochs.0.len(), epochs.before(100)), (KEPT, Some(99)));
    }
}
