//! Named places where a test can have a process die, as by `kill -9`: no destructor, no flush, no goodbye.
//!
//! Each process lists its places and asks [`FailPoints::hit`] at each of them. Nothing is armed unless the configuration names
//! a place under `[testing]`; never set that outside of tests.

use serde::{Deserialize, Serialize};

use crate::config::Faults;

/// The section `[testing]` of a configuration. For tests only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Testing {
    /// The place where the process dies, one of those that the process lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash_at: Option<String>,
}

impl Testing {
    /// Adds a fault if the place is none of `places`.
    pub fn check(&self, places: &[&str], faults: &mut Faults) {
        let known = self.crash_at.as_deref().is_none_or(|place| places.contains(&place));
        faults.require(known, "testing.crash_at", format_args!("must be one of {places:?}, in tests only"));
    }
}

/// Which place is armed; none by default.
#[derive(Debug, Clone, Default)]
pub struct FailPoints {
    places: &'static [&'static str],
    armed: Option<String>,
}

impl FailPoints {
    /// With one of `places` armed, or none.
    pub fn new(places: &'static [&'static str], armed: Option<String>) -> Self {
        if let Some(place) = &armed {
            tracing::warn!(place, "this process dies at a fail point, as configured for a test");
        }
        Self { places, armed }
    }

    /// Dies here if this place is armed.
    pub fn hit(&self, place: &'static str) {
        debug_assert!(self.armed.is_none() || self.places.contains(&place), "{place} is not in the list");
        if self.armed.as_deref() == Some(place) {
            tracing::error!(place, "dying at a fail point, as configured for a test");
            std::process::abort();
        }
    }
}
