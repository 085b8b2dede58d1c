//! What retention took before it was done: counted, told, and never waited for.

use super::slots::State;
use super::{Millis, Window};

/// Offsets that were lost before they were done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// All of this partition, in all lives of the window.
    pub total: u64,
    /// The first one of the last loss.
    pub from: i64,
    /// Behind the last one of the last loss.
    pub to: i64,
    /// When the last loss was seen.
    pub at: Millis,
}

impl Window {
    /// What was lost so far.
    pub fn skipped(&self) -> Option<Skipped> {
        self.skipped
    }

    /// Takes over what another window of the partition had lost.
    pub fn inherit_skipped(&mut self, skipped: Option<Skipped>) {
        self.skipped = skipped;
    }

    /// The log begins at an offset now. What lies below it and is not done is lost, and so are waits and failures, but for records
    /// that are out (their receivers may still acknowledge them), dead ones (whose letter finds out), and those of which `is_kept`
    /// says that they can be delivered all the same. Reading goes on at the beginning of the log, as far as the window reaches.
    /// Returns how many offsets were lost.
    pub fn lose_below(&mut self, log_start: i64, now: Millis, is_kept: impl Fn(i64) -> bool) -> u64 {
        let mut lost = Losses::default();
        for offset in self.base()..log_start.min(self.next_read) {
            let state = self.slots.get(offset).map(|slot| slot.state);
            if matches!(state, Some(State::Ready | State::Blocked | State::Waiting)) && !is_kept(offset) {
                self.finish(offset);
                lost.add(offset);
            }
        }
        let from = self.next_read;
        if from < log_start {
            let done = |offset: &i64| self.slots.get(*offset).is_some_and(|slot| slot.state == State::Done);
            let known = self.slots.end().min(log_start);
            let ahead: Vec<i64> = (from..known).filter(done).collect();
            self.pass_over(log_start);
            self.measure();
            let to = self.next_read.min(log_start);
            let done = ahead.iter().filter(|offset| **offset < to).count() as u64;
            lost.add_all(from, to, to.abs_diff(from) - done);
        }
        self.note_lost(lost, now)
    }

    /// A record that is dead, or ready, is not in the log any more.
    pub fn lose(&mut self, offset: i64, now: Millis) -> u64 {
        let mut lost = Losses::default();
        if self.finish(offset) {
            lost.add(offset);
        }
        self.note_lost(lost, now)
    }

    fn note_lost(&mut self, lost: Losses, at: Millis) -> u64 {
        if lost.count > 0 {
            let total = self.skipped.map_or(0, |skipped| skipped.total).saturating_add(lost.count);
            self.skipped = Some(Skipped { total, from: lost.from, to: lost.to, at });
            self.sequence += 1;
        }
        lost.count
    }
}

#[derive(Default)]
struct Losses {
    count: u64,
    from: i64,
    to: i64,
}

impl Losses {
    fn add(&mut self, offset: i64) {
        self.add_all(offset, offset + 1, 1);
    }

    fn add_all(&mut self, from: i64, to: i64, count: u64) {
        if count > 0 {
            self.from = if self.count == 0 { from } else { self.from.min(from) };
            self.to = self.to.max(to);
            self.count += count;
        }
    }
}
