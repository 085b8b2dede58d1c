//! Settlements of a stream that wait for their answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::groups::door::settle::Read;

/// What nobody answered by then is answered UNAVAILABLE.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Settlements outstanding, beyond which the client is not listened to.
const MESSAGES_MAX: usize = 32;
/// The same in ids.
const IDS_MAX: usize = 20_000;

#[derive(Debug)]
struct Waiting {
    /// The client's number.
    sequence: i64,
    read: Read,
    until: Instant,
    sent: bool,
}

/// By our own numbers: the client's need not differ.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    waiting: BTreeMap<i64, Waiting>,
    next: i64,
    ids: usize,
}

impl Unsettled {
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MESSAGES_MAX && self.ids < IDS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Keeps one; gives the number under which it goes out.
    pub(super) fn put(&mut self, sequence: i64, read: Read) -> i64 {
        self.next += 1;
        self.ids += read.len();
        let until = Instant::now() + ANSWER_WITHIN;
        self.waiting.insert(self.next, Waiting { sequence, read, until, sent: false });
        self.next
    }

    pub(super) fn sent(&mut self, number: i64) {
        if let Some(waiting) = self.waiting.get_mut(&number) {
            waiting.sent = true;
        }
    }

    /// Takes one out: the client's number and its ids.
    pub(super) fn take(&mut self, number: i64) -> Option<(i64, Read)> {
        let Waiting { sequence, read, .. } = self.waiting.remove(&number)?;
        self.ids -= read.len();
        Some((sequence, read))
    }

    /// Takes out all that went to a dispatcher.
    pub(super) fn take_sent(&mut self) -> Vec<(i64, Read)> {
        self.take_if(|waiting| waiting.sent)
    }

    /// Takes out all that waited for too long.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<(i64, Read)> {
        self.take_if(|waiting| waiting.until <= now)
    }

    /// When the first one has waited for too long.
    pub(super) fn late_at(&self) -> Option<Instant> {
        // Numbers grow with time.
        self.waiting.values().next().map(|waiting| waiting.until)
    }

    fn take_if(&mut self, wanted: impl Fn(&Waiting) -> bool) -> Vec<(i64, Read)> {
        let numbers: Vec<i64> =
            self.waiting.iter().filter(|(_, waiting)| wanted(waiting)).map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| self.take(number)).collect()
    }
}
