//! What billing does by itself: a file per job.

pub mod control_feed;
pub mod coverage_watch;
pub mod log_feed;
pub mod source_watch;
pub mod usage_feed;
