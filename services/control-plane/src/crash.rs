//! Crashes on purpose, for tests of what a kill leaves behind: the process aborts at a named step. Never set in production.

/// A step at which to abort; `None` everywhere but in tests.
#[derive(Debug, Clone, Default)]
pub(crate) struct CrashPoint(Option<String>);

impl CrashPoint {
    /// All steps there are.
    pub(crate) const STEPS: &'static [&'static str] =
        &["change.before_commit", "change.after_commit", "relay.before_publish", "relay.after_publish"];

    pub(crate) fn new(step: Option<String>) -> Self {
        if let Some(step) = &step {
            tracing::warn!(step, "this process will abort at a step on purpose: a test");
        }
        Self(step)
    }

    /// Ends the process here, as a kill would, if this is the step.
    pub(crate) fn reach(&self, step: &'static str) {
        debug_assert!(Self::STEPS.contains(&step), "{step} is not in the list");
        if self.0.as_deref() == Some(step) {
            std::process::abort();
        }
    }
}
