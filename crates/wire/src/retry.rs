//! When to try again: the one policy of all calls that follow leaders.
//!
//! The first failure that fresh metadata may mend is always answered with a second try on fresh metadata; after that
//! only failures that may pass by themselves are, until the time allowed is over or the caller's deadline comes.

use std::time::Duration;

use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::error::{Error, Result, code};

const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Short on purpose: readers must be back within a second after Kafka is.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// The tries of one call.
pub(crate) struct Retry {
    until: Instant,
    deadline: Deadline,
    pause: Duration,
    /// True from the second try on: ask for metadata again.
    pub(crate) refresh: bool,
}

impl Retry {
    pub(crate) fn new(retry_for: Duration, deadline: Deadline) -> Self {
        Self { until: Instant::now() + retry_for, deadline, pause: PAUSE_MIN, refresh: false }
    }

    /// Pauses before another try, or gives the error back as final.
    pub(crate) async fn after(&mut self, error: Error) -> Result<()> {
        if let Error::Throttled { pause } = error {
            // No failure: the broker told when to come back, and nobody knows better.
            return self.deadline.pause(pause).await.map_err(|_| error);
        }
        // What metadata that was asked for again still says is final.
        let may_pass = error.is_retriable() || (is_stale(&error) && !self.refresh);
        let in_time = !self.refresh || Instant::now() < self.until;
        if !may_pass || !in_time || self.deadline.pause(self.pause).await.is_err() {
            return Err(error);
        }
        self.refresh = true;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// True if fresh metadata may help.
fn is_stale(error: &Error) -> bool {
    match error {
        Error::UnknownPartition { .. } | Error::TopicReplaced { .. } => true,
        Error::Kafka(error) => matches!(
            error.code,
            code::UNKNOWN_TOPIC_OR_PARTITION | code::UNKNOWN_TOPIC_ID | code::INCONSISTENT_TOPIC_ID
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown_partition() -> Error {
        Error::UnknownPartition { topic: "t".to_owned(), partition: 1 }
    }

    #[tokio::test]
    async fn stale_knowledge_is_refreshed_once() {
        let mut retry = Retry::new(Duration::from_secs(60), Deadline::after(Duration::from_secs(60)));
        assert!(retry.after(unknown_partition()).await.is_ok() && retry.refresh);
        assert!(retry.after(unknown_partition()).await.is_err());
    }

    #[tokio::test]
    async fn a_throttled_call_comes_back_when_it_was_told_to_if_its_deadline_allows() {
        let throttled = |ms| Error::Throttled { pause: Duration::from_millis(ms) };
        let mut retry = Retry::new(Duration::ZERO, Deadline::after(Duration::from_secs(60)));
        for _ in 0..5 {
            assert!(retry.after(throttled(1)).await.is_ok() && !retry.refresh);
        }
        assert!(matches!(retry.after(throttled(60_001)).await, Err(Error::Throttled { .. })));
    }

    #[tokio::test]
    async fn passing_failures_are_retried_while_time_is_left() {
        let mut retry = Retry::new(Duration::ZERO, Deadline::after(Duration::from_secs(60)));
        assert!(retry.after(Error::Busy).await.is_ok());
        assert!(retry.after(Error::Busy).await.is_err());
        let mut late = Retry::new(Duration::from_secs(60), Deadline::after(Duration::ZERO));
        assert!(late.after(Error::Busy).await.is_err());
    }
}
