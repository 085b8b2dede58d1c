//! Provisioning: makes Kafka match intent.
//!
//! ```text
//! control plane ─ AwaitWork, ListIntents ─► jobs/topics, jobs/resync ─► the driver ─► jobs/reconcile ─► Kafka
//!               ◄──────── RecordAttempt, ReportTopic (with the lease's epoch) ────────┘   domain/plan decides
//! ```
//!
//! The one invariant: a physical topic is changed or deleted only if it is ours, by the Kafka id that the control plane has
//! on record, or, before there is one, because its making was announced and nothing was ever written to it
//! ([`domain::plan::ownership`]). No step needs the memory of a former run, so a death anywhere leaves nothing behind that
//! the next run does not see.

pub mod app;
pub mod cluster;
pub mod config;
pub mod domain;
pub mod intents;
pub mod jobs;
pub mod metrics;

pub use app::{Addrs, App, Provisioning, ROLE};
pub use config::{Config, FAIL_POINTS};
pub use sluice_process::Error;
