//! The one reader of `sluice.control`, for everybody who follows it.
//!
//! `sluice.control` holds the full state of every resource under its uid, with a version. It is compacted, it may be made anew
//! under its name, and it may be cut off. What all readers must agree on is here:
//!
//! - how a record is decoded ([`Change`]), and which record of a resource counts: the first one with its highest version;
//! - what a failure of the reading means ([`Ending`]);
//! - when a log that is read again from its beginning may replace what is held: when it was read to its end *and* says that it
//!   is complete, and, after a loss, says so again. Whoever believed less would take an empty log
//!   for the whole truth, or bring back what had ended.
//!
//! A [`Reader`] is generic over what it carries ([`Carried`]): a gateway takes records with their bytes, billing names, the
//! control plane digests. It gives out what it read and keeps no state of the resources beyond a log that is read anew.
//!
//! See decisions 0020, 0021, 0028 and 0036.

mod change;
mod following;
mod marker;
mod reader;
mod whole;

pub use change::{Carried, Change};
pub use following::Step;
pub use reader::{Ending, Reader, ReaderOptions, Stand};
pub use whole::WholeLog;
