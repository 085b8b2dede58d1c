//! The promises of the local stack, tested on the real thing: Kafka, PostgreSQL, processes, kills.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "clippy excuses test functions, not their helpers")]

mod access;
mod cleanup;
mod group_access;
mod kafka_faults;
mod persistence;
mod postgres;
mod processes;
mod shared_stack;
mod support;
