//! The rules of reconciling, free of I/O: what a topic should be, what to do next, when to try again.

pub mod configs;
pub mod intent;
pub mod orphans;
pub mod plan;
pub mod queue;
