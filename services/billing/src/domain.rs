//! The rules of usage, free of I/O: what a window may say, what it adds, which offsets are counted.

pub mod coverage;
pub mod fold;
pub mod page_token;
pub mod query;
pub mod report;
pub mod source;
pub mod uncovered;
pub mod window;
