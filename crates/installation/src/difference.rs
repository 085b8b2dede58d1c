//! One thing that is not as it must be, and who can mend it.

use std::fmt;

/// One thing that is not as it must be. `A` is what mends it: [`crate::kafka::Action`] or [`crate::postgres::Action`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference<A> {
    /// What kind of thing: `topic`, `access`, `user`, `broker`, `role`, `database`, `right`.
    pub kind: &'static str,
    /// Its name, e.g. `sluice.control`.
    pub name: String,
    /// Which part of it, e.g. `retention.ms`; empty for the thing as a whole.
    pub item: String,
    /// What is wrong with it.
    pub state: State,
    /// What it is now, where that can be said.
    pub is: Option<String>,
    /// What it must be.
    pub must: String,
    /// Who can mend it.
    pub remedy: Remedy<A>,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is not there.
    Missing,
    /// It is there, and other than it must be.
    Differs,
    /// It is there and must not be.
    Unwanted,
    /// We may not see it.
    Hidden,
}

/// Who can mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy<A> {
    /// `apply`.
    Apply(A),
    /// A person, and how.
    Person(String),
}

impl<A> Difference<A> {
    /// The action that mends it, unless only a person can.
    pub fn action(&self) -> Option<&A> {
        match &self.remedy {
            Remedy::Apply(action) => Some(action),
            Remedy::Person(_) => None,
        }
    }
}

impl State {
    /// As one word, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Differs => "differs",
            Self::Unwanted => "unwanted",
            Self::Hidden => "hidden",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
