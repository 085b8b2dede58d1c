//! Starts the real Apache Kafka and the real PostgreSQL that `sluiced up` and the tests run on, and supervises every
//! process they start.
//!
//! Invariants, each with a test in `tests/`:
//! - Nothing outlives its owner. Every process is known to a watchdog (`guard.rs`) before it runs its program; the
//!   watchdog ends them all within 10 s of the end of the owner, also after `kill -9`, and removes temporary directories.
//! - Nothing else is touched: processes are named by pid and start time, directories by a marker file.
//! - Kafka and PostgreSQL are never open: SCRAM in TLS and the authorizer on the one, passwords on the other, loopback
//!   only, secrets in files of mode 0600 and never in arguments.
//! - A fault is a fault of the real thing: SIGSTOP, SIGKILL, restarts on the same port and data.
//!
//! Start at [`Stack::builder`] (own stack), [`shared`] (the test run's), or [`Supervisor`] (only processes).
//! The environment is read in `paths.rs` alone.

mod ca;
mod connection;
mod error;
mod files;
mod guard;
mod jars;
mod kafka;
pub mod paths;
mod ports;
mod postgres;
pub mod preflight;
mod process;
mod procfs;
mod ready;
mod secrets;
mod shared;
mod stack;
mod supervisor;

pub use crate::ca::{Ca, Issued, IssuedFiles};
pub use crate::connection::{Connection, KafkaConnection, PostgresConnection};
pub use crate::error::{Error, Result};
pub use crate::kafka::Kafka;
pub use crate::ports::free_ports;
pub use crate::postgres::{Postgres, SUPER_USER};
pub use crate::process::{ProcessHandle, ProcessSpec};
pub use crate::ready::Ready;
pub use crate::secrets::{ADMIN, BILLING, CONTROL_PLANE, GATEWAY, PRINCIPALS, PROVISIONING};
pub use crate::shared::shared;
pub use crate::stack::{DataDir, Stack, StackBuilder, Tuning};
pub use crate::supervisor::Supervisor;
/// Signals for [`ProcessHandle::signal`].
pub use nix::sys::signal::Signal;

/// Milliseconds since 1970, for the records of tests: Kafka removes older ones when its retention looks, half a minute after
/// the start and then every five.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
