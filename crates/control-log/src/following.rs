//! What follows from each batch that was read: the reader without its I/O.

use sluice_types::physical::CONTROL_COMPLETE_KEY;
use sluice_wire::{KafkaTopicId, TailBatch};

use crate::change::{Carried, Change, key};
use crate::marker::Marker;
use crate::whole::WholeLog;

/// What one [`Reader::next`](crate::Reader::next) gives.
#[derive(Debug)]
pub struct Step<T> {
    /// The log that is read, when it became known or is another one than before: what was held of the one before says nothing
    /// about it. Comes before `changes`.
    pub new_log: Option<KafkaTopicId>,
    /// Records to apply, in order. Empty while the log is read anew.
    pub changes: Vec<Change<T>>,
    /// All of a log that was read anew, once it is complete: it replaces what is held, whatever the versions were. Comes after
    /// `changes`.
    pub whole: Option<WholeLog<T>>,
    /// Where the reading stands. Its records are taken out.
    pub batch: TailBatch,
}

/// Where the reading stands.
#[derive(Debug)]
pub(crate) struct Following<T> {
    pub(crate) log: Option<KafkaTopicId>,
    /// What was collected of a log that is read anew.
    pub(crate) anew: Option<WholeLog<T>>,
    /// Where the log says that it is complete.
    pub(crate) complete: Option<i64>,
    pub(crate) marker: Marker,
}

impl<T: Carried> Following<T> {
    pub(crate) fn new(log: Option<KafkaTopicId>, marker: Marker) -> Self {
        Self { log, anew: None, complete: None, marker }
    }

    /// The log is read again from its beginning; `lost`: because it lacks something that was read.
    pub(crate) fn begin_again(&mut self, lost: bool) {
        if lost {
            self.marker.lost();
        }
        self.anew = Some(WholeLog::default());
        self.complete = None;
    }

    /// The log begins at `start` now; what it said before is gone.
    pub(crate) fn lost_before(&mut self, start: i64) {
        self.complete = self.complete.filter(|at| *at >= start);
    }

    /// A batch was read of this topic.
    pub(crate) fn take(&mut self, topic: Option<KafkaTopicId>, mut batch: TailBatch) -> Step<T> {
        let new_log = topic.filter(|topic| batch.as_of.is_some() && self.log != Some(*topic));
        if let Some(log) = new_log {
            self.log = Some(log);
            // What was read was of another one, whose losses do not matter.
            self.marker = Marker::default();
        }
        let mut changes = Vec::new();
        for record in std::mem::take(&mut batch.records) {
            let Some(uid) = key(&record) else { continue };
            if uid == CONTROL_COMPLETE_KEY {
                // One that does not count takes nothing back.
                self.complete = match record.value {
                    None => None,
                    Some(_) if self.marker.is_complete(&record, self.log) => Some(record.offset),
                    Some(_) => self.complete,
                };
                self.marker.read(&record);
                continue;
            }
            self.marker.read(&record);
            let Some(change) = Change::of(uid, record.offset, record.value.as_ref()) else { continue };
            match &mut self.anew {
                Some(anew) => anew.see(change),
                None => changes.push(change),
            }
        }
        let whole = self.anew.take_if(|_| batch.is_caught_up() && self.complete.is_some());
        if whole.is_some() {
            self.marker.found();
        }
        Step { new_log, changes, whole, batch }
    }
}

#[cfg(test)]
mod tests;
