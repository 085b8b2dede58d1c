//! The point in time by which a call must have ended, carried through every await of that call.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};

/// An absolute deadline. Copy it freely: all parts of one call share the same one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// Longest deadline we accept; more would overflow the clock and no call of ours may last that long.
    const MAX: Duration = Duration::from_secs(24 * 3600);

    pub(crate) fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout.min(Self::MAX))
    }

    /// The earlier of this deadline and `timeout` from now.
    pub(crate) fn at_most(self, timeout: Duration) -> Self {
        Self(self.0.min(Self::after(timeout).0))
    }

    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub(crate) fn passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// Runs `work` until it ends or the deadline passes.
    pub(crate) async fn bound<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout_at(self.0, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::DeadlineExceeded),
        }
    }

    /// Sleeps for `pause`, or fails if the deadline comes first.
    pub(crate) async fn pause(self, pause: Duration) -> Result<()> {
        if pause >= self.remaining() {
            return Err(Error::DeadlineExceeded);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
