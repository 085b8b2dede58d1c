//! Whether `sluice.control` was compared with the database, and the request that it be compared again.
//!
//! A database that was restored from a backup knows less than the log: what is changed in it would be published under
//! versions that gateways have seen, and dropped there, while the barrier saw it applied. So nothing is published from the
//! start, or from a reconnection to the database, until a comparison is done that began after it.

use tokio::sync::watch;

/// The state of the comparison.
pub(crate) struct Comparison(watch::Sender<Counts>);

/// Requests are counted, so that one that comes while another is fulfilled is not lost.
#[derive(Debug, Clone, Copy)]
struct Counts {
    required: u64,
    compared: u64,
}

impl Counts {
    fn is_open(self) -> bool {
        self.compared >= self.required
    }
}

impl Comparison {
    /// Not compared yet.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Counts { required: 1, compared: 0 }))
    }

    /// The database may be another one than a moment ago: nothing is published until it was compared.
    pub(crate) fn require(&self) {
        self.0.send_modify(|counts| counts.required += 1);
    }

    /// A comparison begins; gives the number that is told when it is done.
    pub(crate) fn begin(&self) -> u64 {
        self.0.borrow().required
    }

    /// The comparison that began with this number is done.
    pub(crate) fn done(&self, begun: u64) {
        self.0.send_modify(|counts| counts.compared = counts.compared.max(begun));
    }

    /// Whether publishing waits for it.
    pub(crate) fn is_required(&self) -> bool {
        !self.0.borrow().is_open()
    }

    /// Waits until it was compared.
    pub(crate) async fn opened(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.subscribe().wait_for(|counts| counts.is_open()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_that_comes_during_a_comparison_needs_another_one() {
        let comparison = Comparison::new();
        let first = comparison.begin();
        comparison.require();
        comparison.done(first);
        assert!(comparison.is_required());
        let second = comparison.begin();
        comparison.done(second);
        assert!(!comparison.is_required());
        comparison.done(first);
        assert!(!comparison.is_required());
    }
}
