//! The API contracts as Rust: messages, clients, servers, canonical JSON, and the tables that say who may call what and how.

pub mod wkt;

mod generated;

pub use generated::google;
pub use generated::sluice::{admin, billing, internal, operator, options, stream};
pub use wkt::Any;

/// All our descriptors (an encoded `FileDescriptorSet` with imports and options, without comments), for gRPC reflection.
pub static FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
