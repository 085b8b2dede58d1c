//! Bytes of records that were read and not delivered yet, bounded over the process, given out in order of asking.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes over all groups.
pub(super) const PROCESS_BYTES_MAX: usize = 64 << 20;
/// Bytes of one group.
pub(super) const GROUP_BYTES_MAX: usize = 4 << 20;
const UNIT: usize = 1 << 10;

/// The bytes of the process.
pub(super) struct Budget(Arc<Semaphore>);

/// A part of them; comes back when dropped.
#[derive(Debug)]
pub(super) struct Charge(#[allow(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT)))
    }

    /// The bytes, if they are free and nobody waits.
    pub(super) fn try_charge(&self, bytes: usize) -> Option<Charge> {
        Arc::clone(&self.0).try_acquire_many_owned(units(bytes)).ok().map(|permit| Charge(Some(permit)))
    }

    /// Waits for the bytes.
    pub(super) fn charge(&self, bytes: usize) -> impl Future<Output = Charge> + Send + 'static {
        let semaphore = Arc::clone(&self.0);
        async move { Charge(semaphore.acquire_many_owned(units(bytes)).await.ok()) }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.clamp(1, PROCESS_BYTES_MAX / 2).div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn what_is_given_out_is_bounded_and_comes_back() {
        let budget = Budget::new(10 << 10);
        let first = budget.try_charge(8 << 10).expect("free");
        assert!(budget.try_charge(3 << 10).is_none());
        assert!(budget.try_charge(2 << 10).is_some());
        let mut waiting = Box::pin(budget.charge(4 << 10));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(budget.try_charge(1).is_none(), "not before who waits");
        drop(first);
        assert!(waiting.now_or_never().is_some());
    }
}
