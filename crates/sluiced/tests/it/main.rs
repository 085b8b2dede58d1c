//! The server binary as a person runs it.
#![allow(clippy::unwrap_used, reason = "clippy excuses test functions, not their helpers")]

mod install;
