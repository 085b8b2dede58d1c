//! What end-to-end tests, the demo and the measurements share: a whole installation on this machine, clients of its public
//! API, and a second, independent reader of Kafka.
//!
//! Ground truth is never ours: [`kafka_reader`] reads the raw log with librdkafka as Kafka's super user, past the gateway and
//! past our own client.

#![allow(clippy::disallowed_methods, reason = "tests are told by the environment how long to run")]
#![allow(clippy::print_stdout, reason = "a failing test shows what it printed")]

pub mod bad_keys;
pub mod consumer;
pub mod digest;
pub mod http;
pub mod installation;
pub mod kafka_reader;
pub mod raw;
pub mod requests;
pub mod second_cluster;
pub mod tenant;
pub mod wait;

pub use http::Http;
pub use installation::{Installation, Options};
pub use tenant::{Api, Tenant};

/// Whether the long forms of the fault tests were asked for (`make faults-long`).
pub fn long() -> bool {
    std::env::var_os("SLUICE_TEST_LONG").is_some()
}

/// The seed of a random test: printed, and taken from `SLUICE_TEST_SEED` to repeat a run.
pub fn seed() -> u64 {
    let given = std::env::var("SLUICE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("seed: {seed} (repeat with SLUICE_TEST_SEED={seed})");
    seed
}
