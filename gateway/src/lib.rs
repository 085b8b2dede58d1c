//! The gateway: the only public door of the data plane.
//!
//! One invariant carries the rest: the tenant of a call comes from its verified credential and from nothing else, and a
//! physical topic can only be reached through [`access::DataCall::topic`], which looks a name up within that tenant.
//!
//! Map: [`config`] → [`app`] (build, run, ordered shutdown) → [`layers`] (the request path, outermost first) → [`routes`]
//! (gRPC and HTTP onto the same services) → `data` (produce, fetch, offsets), [`groups`] (consume) or [`forward`] (admin and usage calls to their
//! services). [`clusters`] holds what belongs to each Kafka cluster; [`view`] holds what the control plane published; [`members`] tells the others what this gateway has applied.

pub mod access;
pub mod app;
pub mod auth;
pub mod clusters;
pub mod config;
pub mod data;
pub mod forward;
pub mod groups;
pub mod layers;
pub mod members;
pub mod metering;
pub mod metrics;
pub mod peer;
pub mod quota;
pub mod routes;
pub mod server_info;
mod transport;
pub mod view;

pub use app::{Addrs, App, Gateway};
pub use config::Config;
pub use sluice_process::Error;

/// The role, in certificates and caller tokens.
pub const ROLE: &str = "gateway";
