//! The end: everybody is answered, what is done is committed, the group is left.

use std::time::Duration;

use tokio::time::Instant;

use sluice_types::error::Error;

use crate::groups::dispatch::action::{Action, Done, Event};
use crate::groups::dispatch::group::{End, Group};
use crate::groups::dispatch::part::Part;
use crate::groups::dispatch::settling::Verdict;
use crate::groups::model::DispatchError;

/// For the last commit.
const COMMIT: Duration = Duration::from_secs(2);
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// An end on its way.
pub(super) struct Finishing {
    end: End,
    /// Over then, whatever is under way.
    by: Instant,
    is_over: bool,
}

impl Finishing {
    /// Whether we are a member no more, whoever says so.
    fn is_expelled(&self) -> bool {
        matches!(self.end, End::Fenced | End::Lost)
    }
}

impl Group {
    /// The end that is being made: from now on no command is taken, each is refused with [`Group::refusal`].
    pub(super) fn is_ending(&self) -> bool {
        self.finishing.is_some()
    }

    /// How it ended, once nothing is left to do.
    pub(super) fn is_over(&self) -> Option<&End> {
        self.finishing.as_ref().filter(|finishing| finishing.is_over).map(|finishing| &finishing.end)
    }

    /// The answer to what is asked of a group that ends.
    pub(super) fn refusal(&self) -> DispatchError {
        match self.finishing.as_ref().map(|finishing| &finishing.end) {
            Some(End::Gone) => DispatchError::Refused(Error::not_found(&self.config.name)),
            _ => DispatchError::Moving("it is handed over".to_owned()),
        }
    }

    /// Answers all that waits for something else than a commit.
    pub(super) fn begin_end(&mut self, end: End) {
        let now = self.moment.at;
        tracing::debug!(group = %self.name, ?end, "stops dispatching");
        let by = match end {
            End::Stopped(deadline) => deadline.min(now + COMMIT),
            // What was sent may still have been taken; the rest is delivered again by whoever has the group now.
            End::Fenced | End::Lost => now + LAST_ANSWER,
            _ => now + COMMIT,
        };
        self.finishing = Some(Finishing { end, by, is_over: false });
        for waiting in std::mem::take(&mut self.consumers.waiting) {
            // Who went away needs no answer.
            let _gone = waiting.reply.send(Err(self.refusal()));
        }
        for reset in std::mem::take(&mut self.resets) {
            let _gone = reset.reply.send(Err(self.refusal()));
        }
        self.consumers.attached.clear();
    }

    /// Takes an event when the end is being made: the answer to the last commit, and letters that were on their way, or they would
    /// be written twice. Letters that were not begun are not begun now.
    pub(super) fn take_last(&mut self, event: Event) {
        let now = self.moment.at;
        let is_expelled = self.finishing.as_ref().is_some_and(Finishing::is_expelled);
        match event {
            Event::Command(command) => command.refuse(|| self.refusal()),
            Event::Done(Done::Committed(committed)) => self.committed(committed, now),
            Event::Done(Done::LetterOutcome(outcomes)) if !is_expelled => self.dead_lettered(outcomes, now),
            _ => {}
        }
    }

    /// Commits until nothing is left to commit, then leaves.
    pub(super) fn end_on(&mut self) {
        let Some(Finishing { by, is_over: false, .. }) = self.finishing else { return };
        let (now, is_expelled) = (self.moment.at, self.finishing.as_ref().is_some_and(Finishing::is_expelled));
        self.wake = None;
        let is_late = now >= by;
        let is_done = if is_expelled { !self.commits.in_flight } else { self.is_committed(now) };
        if !is_done && !is_late {
            return self.wake_at(by);
        }
        let verdict = match is_expelled {
            true if is_done => Verdict::Stale,
            false if self.ending == Some(End::Fenced) => Verdict::Stale,
            _ => Verdict::Unavailable,
        };
        if !is_done && !is_expelled {
            tracing::warn!(group = %self.name, "the last commit did not succeed in time; what it held is delivered again");
        }
        self.give_up_pending(verdict);
        if !is_expelled && self.has_joined {
            self.actions.push(Action::Leave);
        }
        if let Some(finishing) = &mut self.finishing {
            finishing.is_over = true;
        }
    }

    /// Whether nothing is left to commit; begins to commit what is.
    fn is_committed(&mut self, now: Instant) -> bool {
        if self.ending == Some(End::Fenced) {
            return true;
        }
        if self.commits.in_flight {
            return false;
        }
        let waits = self.parts.iter().filter_map(Part::commit_waits).min();
        let changed = self.parts.iter().any(|part| part.changed && part.commit_failed.is_none());
        let waits = waits.filter(|_| !changed).map_or(self.commits.not_before, |at| at.max(self.commits.not_before));
        if now < waits {
            self.wake_at(waits);
            return false;
        }
        let begun = self.parts.iter().any(|part| part.changed) && self.begin_commit(now);
        !begun && !self.dead_lettering.is_under_way()
    }
}
