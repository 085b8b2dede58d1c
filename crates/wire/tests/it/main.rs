//! Conformance against a real Kafka broker: one for most tests, own ones for those that break it.
#![allow(clippy::unwrap_used, reason = "clippy excuses test functions, not their helpers")]

mod admin;
mod faults;
mod fixture;
mod group_changes;
mod group_faults;
mod group_offsets;
mod groups;
mod reader;
mod reader_faults;
mod reading;
mod security;
mod three_broker_faults;
