//! The control plane: what tenants have, who may do what with it, and how the rest of the system gets to know.
//!
//! The one invariant: a change is one PostgreSQL transaction that holds the resource, its operation, the audit event, the
//! remembered answer and the outbox row; what follows from it (records in `sluice.control`, physical topics) is made from
//! those rows by jobs that may die anywhere and start again.
//!
//! The map: `api` decodes and encodes, `changes` are the transactions, `domain` the rules without I/O, `store` the SQL,
//! `jobs` what goes on beside the calls (relay, members, barrier, sweeper).

mod api;
mod app;
mod changes;
mod config;
mod domain;
mod error;
mod jobs;
mod metrics;
mod plane;
mod schema;
mod store;
mod token;
mod wakes;

pub use app::{Addrs, App, ControlPlane, ROLE};
pub use config::{Config, ControlLogConfig, Defaults, InternalTopics, Limits, Unknown};
pub use schema::MIGRATIONS;
