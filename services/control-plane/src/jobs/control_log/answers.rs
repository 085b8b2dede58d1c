//! Which waits of gateways one reading of the log answers.
//!
//! A gateway whose log lost something waits until it is said to be complete again, and heartbeats tell of the wait
//! ([`Members::awaiting_complete`]): maybe nobody else saw the loss. Only a reading that began after a wait was heard of
//! answers it, so one that is not among those known at the beginning makes the log be read anew at once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sluice_wire::KafkaTopicId;

use crate::jobs::members::Members;

/// Waits of one record; at 64 characters each, far below what a record may have.
const ANSWERS_MAX: usize = 1_000;
/// Pause before all is read anew for a wait, at least; and how many times as long as reading and comparing took.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 5;

/// The waits that a reading answers.
#[derive(Debug)]
pub(super) struct Answers {
    waits: BTreeSet<String>,
    began: Instant,
    /// `None` before the first comparison.
    read_again_at: Option<Instant>,
}

impl Answers {
    /// A reading of this log begins.
    pub(super) fn begin(members: &Members, log: KafkaTopicId) -> Self {
        let waits = members.awaiting_complete(log).into_iter().take(ANSWERS_MAX).collect();
        Self { waits, began: Instant::now(), read_again_at: None }
    }

    /// The ids of the waits.
    pub(super) fn ids(&self) -> &BTreeSet<String> {
        &self.waits
    }

    /// All was compared.
    pub(super) fn compared(&mut self) {
        self.read_again_at.get_or_insert_with(|| Instant::now() + PAUSE.max(self.began.elapsed() * PAUSE_FACTOR));
    }

    /// Whether somebody waits whom another reading could answer now.
    pub(super) fn leave_out_one(&self, members: &Members, log: KafkaTopicId) -> bool {
        self.read_again_at.is_some_and(|at| Instant::now() >= at)
            && !members.awaiting_complete(log).is_subset(&self.waits)
    }
}
