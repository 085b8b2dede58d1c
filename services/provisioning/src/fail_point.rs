//! Named places where a test can have this process die, as by `kill -9`. Off unless the configuration names one; never set
//! it outside of tests.

/// The places, before and after each thing that changes the world: making, growing, closing, deleting, reporting.
pub const FAIL_POINTS: [&str; 7] = [
    "create.before",
    "create.after",
    "extend.after",
    "closing.reported",
    "delete.before",
    "delete.after",
    "report.before",
];

/// Which place is armed.
#[derive(Debug, Clone, Default)]
pub struct FailPoints {
    armed: Option<String>,
}

impl FailPoints {
    /// With one of [`FAIL_POINTS`] armed, or none.
    pub fn new(armed: Option<String>) -> Self {
        Self { armed }
    }

    /// Dies here if this place is armed: no destructor, no flush, no goodbye.
    pub fn hit(&self, place: &'static str) {
        debug_assert!(FAIL_POINTS.contains(&place));
        if self.armed.as_deref() == Some(place) {
            tracing::error!(place, "dying at a fail point, as configured for a test");
            std::process::abort();
        }
    }
}
