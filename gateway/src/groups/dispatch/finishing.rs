//! The end: everybody is answered, what is done is committed, the group is left.

use std::time::Duration;

use futures::stream::StreamExt as _;
use tokio::time::Instant;

use sluice_types::error::Error;

use crate::groups::dispatch::group::{Done, End, Group};
use crate::groups::dispatch::settling::Verdict;
use crate::groups::model::DispatchError;

/// For the last commit.
const COMMIT: Duration = Duration::from_secs(2);
const LEAVE: Duration = Duration::from_secs(1);
const FORGET: Duration = Duration::from_secs(2);

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
            // Whoever has the group now delivers them again.
            self.give_up_pending(Verdict::Stale);
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
        if end == End::Gone
            && let Err(error) = self.shared.wire.delete_group(&self.name, FORGET).await
        {
            tracing::debug!(group = %self.name, %error, "the positions of a deleted group stay until they expire");
        }
    }

    /// Commits until nothing is left to commit.
    async fn commit_rest(&mut self) {
        loop {
            let now = Instant::now();
            if self.ending == Some(End::Fenced) {
                return;
            }
            if !self.commits.in_flight {
                if !self.parts.iter().any(|part| part.changed) {
                    return;
                }
                if !self.begin_commit(now) {
                    // Nothing to say, or no member to say it.
                    return;
                }
            }
            match self.work.next().await {
                Some(Done::Committed(committed)) => self.committed(committed, Instant::now()),
                Some(Done::Buried(buried)) => self.buried(buried, Instant::now()),
                Some(_) => {}
                None => return,
            }
        }
    }
}
