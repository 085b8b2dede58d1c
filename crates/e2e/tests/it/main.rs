//! End-to-end and fault tests: real Kafka, real PostgreSQL, every role a process, real clients. A file per promise; each
//! test has an installation of its own and runs alone.
#![allow(clippy::print_stdout, reason = "a failing test shows what it printed")]

mod bad_input;
mod cli;
mod cli_groups;
mod drain;
mod groups;
mod internal_tls;
mod isolation;
mod kafka_faults;
mod keys;
mod kill_gateway;
mod kill_services;
mod limits;
mod masks;
mod memory;
mod names;
mod postgres_down;
mod program;
mod propagation;
mod read_your_writes;
mod recreate;
mod reference;
mod three_brokers;
mod two_clusters;
mod up;
