//! Billing: what was used, provable against the log.
//!
//! ```text
//! sluice.usage   ─► jobs/usage_feed ─► domain/fold, coverage ─► store/ingest ─► hours, coverage
//! sluice.control ─► jobs/control_feed ────────────────────────► store/names  ─► names, last ends
//!                                                 GetUsage: api/usage ◄─ store/usage, Kafka's end offsets
//! ```
//!
//! The one invariant: what a transaction adds and how far it read are committed together ([`store::log_position`]). So
//! whatever dies whenever, each window is added once, each offset is billed once, and a restart finds the same rows.

pub mod api;
pub mod app;
pub mod config;
pub mod domain;
pub mod jobs;
pub mod log_ends;
pub mod metrics;
pub mod store;

pub use app::{Addrs, App, Billing, ROLE};
pub use config::{Config, FAIL_POINTS};
pub use sluice_process::Error;
