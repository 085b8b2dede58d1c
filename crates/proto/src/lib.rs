//! The API contracts as Rust: messages, clients, servers, canonical JSON, and the tables that say who may call what and how.

mod access;
pub mod dispatch;
pub mod forward;
mod generated;
mod route;
mod schema;
mod tables;
mod transcode;
pub mod wkt;

pub use access::{ApiRequest, Audience, RPCS, Rpc, resource_of, rpc_by_path};
pub use generated::google;
pub use generated::sluice::{admin, billing, internal, operator, options, stream};
pub use route::{Body, HttpRule, RouteError, RouteMatch, Vars, allowed_methods, match_route};
pub use tables::rpcs;
pub use transcode::{TranscodeError, decode_request};
pub use wkt::Any;

/// All our descriptors (an encoded `FileDescriptorSet` with imports and options, without comments), for gRPC reflection.
pub static FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
