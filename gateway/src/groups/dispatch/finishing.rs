//! The end: everybody is answered, what is done is committed, the group is left.

use std::time::Duration;

use futures::stream::StreamExt as _;
use tokio::time::Instant;

use sluice_types::error::Error;

use crate::groups::dispatch::group::{Done, End, Group};
use crate::groups::dispatch::part::Part;
use crate::groups::dispatch::settling::Verdict;
use crate::groups::model::DispatchError;

/// For the last commit.
const COMMIT: Duration = Duration::from_secs(2);
const LAST_ANSWER: Duration = Duration::from_secs(1);
const LEAVE: Duration = Duration::from_secs(1);

impl Group {
    pub(super) async fn finish(&mut self, end: End) {
        let name = self.config.name.clone();
        let answer = || match end {
            End::Gone => DispatchError::Refused(Error::not_found(&name)),
            _ => DispatchError::Moving("it is handed over".to_owned()),
        };
        self.inbox.close();
        while let Ok(command) = self.inbox.try_recv() {
            command.refuse(answer);
        }
        for waiting in self.consumers.waiting.drain(..) {
            // Who went away needs no answer.
            let _gone = waiting.reply.send(Err(answer()));
        }
        for reset in self.resets.drain(..) {
            let _gone = reset.reply.send(Err(answer()));
        }
        self.consumers.attached.clear();
        let by = match end {
            End::Stopped(deadline) => deadline.min(Instant::now() + COMMIT),
            _ => Instant::now() + COMMIT,
        };
        if matches!(end, End::Fenced | End::Lost) {
            // What was sent may still have been taken; the rest is delivered again by whoever has the group now.
            let answered = tokio::time::timeout(LAST_ANSWER, self.last_answer()).await.is_ok();
            self.give_up_pending(if answered { Verdict::Stale } else { Verdict::Unavailable });
            self.member = None;
            return;
        }
        if tokio::time::timeout_at(by, self.commit_rest()).await.is_err() {
            tracing::warn!(group = %self.name, "the last commit did not succeed in time; what it held is delivered again");
        }
        let verdict = if self.ending == Some(End::Fenced) { Verdict::Stale } else { Verdict::Unavailable };
        self.give_up_pending(verdict);
        self.work.clear();
        if let Some(member) = self.member.take()
            && let Err(error) = member.leave(LEAVE).await
        {
            tracing::debug!(group = %self.name, %error, "could not leave; the next dispatcher makes us leave");
        }
    }

    /// Waits for the answer to the commit under way.
    async fn last_answer(&mut self) {
        while self.commits.in_flight
            && let Some(done) = self.work.next().await
        {
            if let Done::Committed(committed) = done {
                self.committed(committed, Instant::now());
            }
        }
    }

    /// Commits until nothing is left to commit. Dead letters that are on their way are waited for, or they would be written twice.
    async fn commit_rest(&mut self) {
        loop {
            if self.ending == Some(End::Fenced) {
                return;
            }
            if !self.commits.in_flight {
                let waits = self.parts.iter().filter_map(Part::commit_waits).min();
                let changed = self.parts.iter().any(|part| part.changed && part.commit_failed.is_none());
                let waits =
                    waits.filter(|_| !changed).map_or(self.commits.not_before, |at| at.max(self.commits.not_before));
                tokio::time::sleep_until(waits).await;
                let begun = self.parts.iter().any(|part| part.changed) && self.begin_commit(Instant::now());
                if !begun && !self.dead_lettering.is_under_way() {
                    return;
                }
            }
            match self.work.next().await {
                Some(Done::Committed(committed)) => self.committed(committed, Instant::now()),
                Some(Done::LetterOutcome(outcomes)) => self.dead_lettered(outcomes, Instant::now()),
                // Letters that were not begun are not begun now.
                Some(_) => {}
                None => return,
            }
        }
    }
}
