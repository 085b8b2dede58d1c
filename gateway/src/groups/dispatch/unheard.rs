//! An answer to a take that nobody hears: whoever asked went away just when it was given.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::groups::dispatch::command::Command;
use crate::groups::model::{DispatchError, LeaseKey, Settle, Taken};

/// How long to hand its records back.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(5);

/// The answer to a take. If it was given and is dropped unheard, its records are handed back, which counts as no attempt.
pub(super) struct Answer {
    answer: oneshot::Receiver<Result<Taken, DispatchError>>,
    inbox: mpsc::Sender<Command>,
}

impl Answer {
    pub(super) fn new(answer: oneshot::Receiver<Result<Taken, DispatchError>>, inbox: mpsc::Sender<Command>) -> Self {
        Self { answer, inbox }
    }

    pub(super) async fn heard(mut self) -> Result<Taken, DispatchError> {
        (&mut self.answer).await.unwrap_or_else(|_| Err(super::moving()))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // From now on nothing is given.
        self.answer.close();
        let Ok(Ok(Taken { records, .. })) = self.answer.try_recv() else { return };
        let leases: Vec<LeaseKey> = records.iter().map(|leased| leased.key).collect();
        // Without a runtime the process ends.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let inbox = self.inbox.clone();
        runtime.spawn(async move {
            let (reply, done) = oneshot::channel();
            let deadline = Instant::now() + HAND_BACK_WITHIN;
            let back = Command::Settle { settle: Settle::HandBack, leases, deadline, reply };
            if inbox.send(back).await.is_ok() {
                // If it fails, their leases end by themselves.
                let _settled = done.await;
            }
        });
    }
}
