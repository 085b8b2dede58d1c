//! Conformance against a real Kafka broker: one for most tests, own ones for those that break it.

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
