//! The database crate against a real PostgreSQL: what a tenant's transaction sees, what a cancelled one leaves behind, and
//! how a database that is away fails.
#![allow(clippy::unwrap_used)]

mod away;
mod migrate;
mod support;
mod transactions;
