//! The vocabulary of Sluice: ids, names, physical names, keys, roles, errors, limits.
//!
//! Everything here is synchronous and free of I/O, so every crate may depend on it and tests need nothing. Promises:
//! ids of different things are different types; a physical Kafka name is built in [`physical`] and nowhere else; an
//! [`error::Error`] knows both what a customer may read and what operators read, and never mixes them.

pub mod api_key;
pub mod context;
pub mod error;
pub mod gcra;
pub mod limits;
pub mod name;
pub mod partitioner;
pub mod physical;
pub mod record;
pub mod revision;
pub mod role;
pub mod uid;

pub use context::{Credential, OpContext, Principal, TenantScope};
pub use error::{Error, ErrorKind, Reason};
pub use name::{AccountId, ClusterId, GroupId, NamespaceId, ResourceName, TenantId, TopicId};
pub use revision::Revision;
pub use role::{Grant, Role};
pub use uid::{AccountUid, ClusterUid, GroupUid, KeyUid, LogUid, NamespaceUid, OperationUid, TenantUid, TopicUid, Uid};
