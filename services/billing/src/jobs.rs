//! What billing does by itself: a file per job.

pub mod control_feed;
pub mod log_feed;
pub mod source_watch;
pub mod usage_feed;
