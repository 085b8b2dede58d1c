//! The rules of reconciling, free of I/O: what a topic should be, what to do next.

pub mod configs;
pub mod intent;
pub mod orphans;
pub mod plan;
