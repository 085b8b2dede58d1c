//! One driver for everything that is made to match an intent.
//!
//! ```text
//! polls, every so often all of it ─► Queue ─► runs, so many at a time in each place ─► settled, or a pause and again
//!                                      ▲ only while the Lease is surely ours
//! ```
//!
//! What is reconciled is a [`Resource`]: where its work comes from, and one run on one [`Item`] of it. The driver gives the rest:
//! turns between tenants, so that nobody waits behind somebody else's thousand items; places (clusters) that do not take each other's
//! runs; pauses that double; one run at a time on one item; nothing begun without the lease.
//!
//! The one invariant: the driver holds no truth. An item that it refuses, drops or forgets comes again by the next poll or round,
//! with its newest intent, so a run must be harmless to repeat and must look at the world anew.

mod driver;
mod item;
mod lease;
mod queue;

pub use driver::{Driver, Figures, Resource, Round};
pub use item::{Item, Outcome};
pub use lease::{Lease, Leases, TTL};
pub use queue::Queue;

/// An error with what is behind it, for logs and health.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
