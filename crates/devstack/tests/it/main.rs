//! The promises of the local stack, tested on the real thing: Kafka, PostgreSQL, processes, kills.

mod access;
mod cleanup;
mod kafka_faults;
mod persistence;
mod postgres;
mod processes;
mod support;
