//! The frame every Sluice process stands in: configuration, telemetry, tasks, health, TLS, listeners, calls between
//! processes, and the one mapping from our errors to gRPC and HTTP.
//!
//! Promises: nothing here knows a tenant's data or a process's domain; everything waited for has a deadline; everything
//! kept has a bound; secrets have no `Debug`. A process is built from this in the order of its shutdown: readiness false,
//! stop accepting, finish what is in flight ([`server::serve`]), tasks ([`tasks::TaskSet::drain`]), and last of all the
//! admin listener ([`admin::AdminServer`]).

pub mod admin;
pub mod body;
pub mod config;
pub mod fail_point;
pub mod health;
pub mod internal;
pub mod metrics;
pub mod server;
pub mod shutdown;
pub mod statuses;
pub mod tasks;
pub mod telemetry;
pub mod tls;

pub use admin::AdminServer;
pub use body::{BoxBody, BoxError};
pub use fail_point::FailPoints;
pub use health::{ComponentStatus, Health};
pub use metrics::Metrics;
pub use tasks::TaskSet;
