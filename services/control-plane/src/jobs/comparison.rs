//! Whether `sluice.control` was compared with the database, and the wish that it be compared again.
//!
//! A database that was restored from a backup knows less than the log: what is changed in it would be published under
//! versions that gateways have seen, and dropped there, while the barrier saw it applied. So nothing is published from the
//! start, or from a reconnection to the database, until the comparison is done.

use tokio::sync::watch;

/// The state of the comparison.
pub(crate) struct Comparison(watch::Sender<bool>);

impl Comparison {
    /// Not compared yet.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// The database may be another one than a moment ago: nothing is published until it was compared.
    pub(crate) fn require(&self) {
        self.0.send_replace(false);
    }

    /// It was compared.
    pub(crate) fn done(&self) {
        self.0.send_replace(true);
    }

    /// Whether publishing waits for it.
    pub(crate) fn is_required(&self) -> bool {
        !*self.0.borrow()
    }

    /// Waits until it was compared.
    pub(crate) async fn opened(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}
