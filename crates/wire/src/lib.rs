//! A small Kafka client of our own: reading, groups, admin calls, and a single-shot produce for low-rate internal logs.
//!
//! What it promises:
//! - every call ends by the deadline its caller gave, and a failed connection fails its requests at once;
//! - everything read from a broker is bounded before memory is taken for it (frames, arrays, inflated batches);
//! - batches are handed out verbatim; whoever needs records decodes them once ([`decode`]), with CRCs checked;
//! - no type of the protocol codec appears in the public API: it lives behind the `codec` module alone.
//!
//! Connections are kept apart by what they wait for ("lanes"): a broker serves one request per connection at a
//! time, so a long poll would block whatever is queued behind it.

mod admin;
mod any_broker;
mod batch;
mod client;
mod codec;
mod config;
mod conn;
mod deadline;
mod epochs;
mod error;
mod fetch;
mod gate;
mod group;
mod handshake;
mod leaders;
mod metadata;
mod offsets;
mod pool;
mod produce;
mod reader;
mod retry;
mod scram;
mod tail;
mod transport;
mod types;

pub use admin::acls::{AclBinding, AclFilter, AclOperation, PatternType, Permission, ResourceType};
pub use admin::cluster::ClusterDescription;
pub use admin::configs::{ConfigChange, ConfigEntry};
pub use admin::topics::{CreatedTopic, NewTopic};
pub use admin::users::ScramUpsert;
pub use batch::decode::{AbortedTransaction, DecodeError, DecodeLimits, Decoded, decode, decode_with};
pub use batch::encode::{EncodeError, OutRecord, encode_batch};
pub use batch::header::{BATCH_HEADER_BYTES, BatchHeader, Compression};
pub use batch::record::{Record, TimestampType};
pub use client::Client;
pub use config::{ClientConfig, ScramSha512, Security};
pub use epochs::{EpochEnd, EpochStart};
pub use error::{Error, KafkaError, MembershipRefusal, Result, code};
pub use fetch::{FetchRequest, Fetched};
pub use group::committed::{CommitOffset, CommittedOffset, Committer, PartitionResults};
pub use group::describe::{GroupDescription, GroupMemberDescription, ListedGroup};
pub use group::member::{GroupMember, MemberEvent, MemberOptions, OnFenced, TopicPartition};
pub use group::memberships::Groups;
pub use metadata::{Broker, ClusterMetadata, Partition, Topic};
pub use offsets::{ListedOffset, OffsetAt};
pub use produce::Produced;
pub use reader::Reader;
pub use reader::records::ReadRecords;
pub use tail::{LogTail, TailBatch, TailOptions, TailState};
pub use types::{Isolation, KafkaTopicId};
