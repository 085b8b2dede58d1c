//! From a credential to whom it belongs.
//!
//! The checksum in a key catches typos without any look-up; the view knows the rest. Every way in which a key can be wrong
//! gives one and the same answer. A key id that the view does not hold is asked of the control plane within a budget, since
//! the gateway may be behind or cold; what cannot be checked is UNAVAILABLE, never UNAUTHENTICATED, which would make a client
//! throw a good key away.

mod again;
pub mod api_keys;
pub mod lookup;
pub mod verify;

pub use lookup::{KeyLookup, KeySource, LookupFailure};
pub use verify::{Verdict, Verified, verify};
