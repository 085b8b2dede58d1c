//! What a group asks of its deliveries, and how much one partition of it may hold.

use sluice_types::limits::{WINDOW_BYTES_MAX, WINDOW_OFFSETS_MAX};

use super::metadata::SPAN_MAX;

/// Milliseconds since any origin that does not move backwards.
pub type Millis = i64;

/// How records are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether records of a key wait for each other.
    pub key_ordered: bool,
    /// How long a lease runs.
    pub ack_deadline_ms: i64,
    /// Failures after which a record is dead; absent: none are enough.
    pub max_attempts: Option<u32>,
    /// The wait after the first failure; each failure doubles it.
    pub backoff_min_ms: i64,
    /// The longest wait.
    pub backoff_max_ms: i64,
}

impl Policy {
    /// The wait before the next delivery of a record that has failed this often: min · 2^(failures − 1), capped.
    pub(super) fn backoff(&self, failures: u32) -> i64 {
        let doublings = failures.saturating_sub(1).min(62);
        self.backoff_min_ms.max(0).saturating_mul(1 << doublings).min(self.backoff_max_ms.max(0))
    }

    /// Whether a record that has failed this often is dead.
    pub(super) fn is_over(&self, failures: u32) -> bool {
        self.max_attempts.is_some_and(|most| failures >= most)
    }
}

/// How much a window may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Offsets between the base and the next to be read. At most 24,000 count: the acks above the base must fit into a commit.
    pub offsets_max: i64,
    /// Bytes of records that are not done. The record that crosses it is still taken.
    pub bytes_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { offsets_max: WINDOW_OFFSETS_MAX, bytes_max: WINDOW_BYTES_MAX }
    }
}

impl Bounds {
    /// With room for one record at least, and for no more than the metadata of a commit can tell.
    pub(super) fn within_metadata(self) -> Self {
        Self { offsets_max: self.offsets_max.clamp(1, i64::from(SPAN_MAX)), bytes_max: self.bytes_max.max(1) }
    }
}
