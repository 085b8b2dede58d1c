//! What the crate promises of real Kafka and PostgreSQL.
#![allow(clippy::unwrap_used, reason = "clippy excuses test functions, not their helpers")]

mod kafka;
mod kafka_rights;
mod postgres;
