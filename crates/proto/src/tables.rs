//! What the build script wrote about the RPCs: tables, trait implementations, dispatchers and forwarders.
#![allow(clippy::all, unreachable_pub, rustdoc::all, missing_docs)]

include!(concat!(env!("OUT_DIR"), "/tables.rs"));
