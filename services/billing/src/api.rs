//! What billing serves: a file per service.

pub mod usage;
