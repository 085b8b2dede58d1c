//! The server binary's inside: one role per process, or all of them on one machine.
//!
//! [`role`] runs one role from its configuration file; [`install`] makes Kafka and PostgreSQL ready for them; [`local`] lays out an installation on this machine (secrets,
//! certificates, databases, a configuration file per role), which `up`, the end-to-end tests and the demo share, so that what
//! is tested is what runs.

pub mod install;
pub mod local;
pub mod role;
mod secrets;
pub mod up;
