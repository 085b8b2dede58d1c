//! Billing against a real PostgreSQL and a real Kafka: what is counted, that it is counted once, and who may see it.
#![allow(clippy::unwrap_used)]

mod app;
mod crash;
mod feed;
mod ingest;
mod lost_log;
mod names;
mod support;
mod uncovered;
mod usage;
