//! What can go wrong, from the caller's view.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::decode::DecodeError;
use crate::codec;
use crate::types::KafkaTopicId;

/// Result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Failure of a call. Cheap to clone: one failed connection fails many requests.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No TCP connection, or none in time.
    #[error("connect to {address}")]
    Connect {
        /// `host:port` that was tried.
        address: String,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The TLS handshake failed (certificate, protocol version).
    #[error("TLS handshake with {address}")]
    Tls {
        /// `host:port` that was tried.
        address: String,
        /// What TLS said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The broker refused our credentials, or could not prove that it knows them.
    #[error("authentication with {address} failed: {reason}")]
    Authentication {
        /// `host:port` that was tried.
        address: String,
        /// Why; holds no secret.
        reason: String,
    },
    /// The connection ended with requests outstanding; whether they took effect is unknown.
    #[error("connection to {address} lost: {reason}")]
    Disconnected {
        /// `host:port` of the broker.
        address: String,
        /// Why it ended.
        reason: String,
    },
    /// The caller's deadline passed first; whether the request took effect is unknown.
    #[error("deadline passed")]
    DeadlineExceeded,
    /// The broker answered with an error code that has no variant of its own here.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The topic does not exist (or we may not see it).
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// Physical topic name.
        topic: String,
    },
    /// The topic exists and has no such partition.
    #[error("topic {topic} has no partition {partition}")]
    UnknownPartition {
        /// Physical topic name.
        topic: String,
        /// Partition asked for.
        partition: i32,
    },
    /// The name now belongs to another topic than the one read so far: offsets mean nothing any more.
    #[error("topic {topic} was replaced: expected id {expected}, found {found}")]
    TopicReplaced {
        /// Physical topic name.
        topic: String,
        /// The id the caller, or the read so far, knew.
        expected: KafkaTopicId,
        /// The id the name has now.
        found: KafkaTopicId,
    },
    /// The offset is below the log's start (retention, or records were deleted), or above its end (the log was cut off, or
    /// the offset never was in it).
    #[error("offset {offset} of {topic}/{partition} is out of range {log_start_offset}..{end_offset}")]
    OffsetOutOfRange {
        /// Physical topic name.
        topic: String,
        /// Partition asked for.
        partition: i32,
        /// Offset asked for.
        offset: i64,
        /// First offset in the log.
        log_start_offset: i64,
        /// Offset after the last replicated record.
        end_offset: i64,
    },
    /// The log was cut off below the offset and perhaps written anew, as after an unclean election or the loss of a disk:
    /// it does not hold what the caller read before the offset. Only for reads that name the epoch they stand at.
    #[error("{topic}/{partition} was cut off at {end_offset}, below offset {offset} of epoch {epoch}")]
    LogTruncated {
        /// Physical topic name.
        topic: String,
        /// Partition asked for.
        partition: i32,
        /// Offset asked for.
        offset: i64,
        /// Leader epoch of the record that the caller read before it.
        epoch: i32,
        /// From here on, at the latest, the log holds other records than were read.
        end_offset: i64,
    },
    /// The partition has no leader now.
    #[error("partition {topic}/{partition} has no leader")]
    NoLeader {
        /// Physical topic name.
        topic: String,
        /// Partition asked for.
        partition: i32,
    },
    /// The cluster does not list this broker (any more): what named it is out of date.
    #[error("no broker has the id {broker}")]
    UnknownBroker {
        /// Node id.
        broker: i32,
    },
    /// The cluster names no controller now.
    #[error("cluster names no controller")]
    NoController,
    /// The broker cannot speak a version of this request that we speak.
    #[error("broker does not support {api} in a version we speak")]
    Unsupported {
        /// Name of the request.
        api: &'static str,
    },
    /// The broker sent something that is not the protocol, or beyond our bounds.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// A record batch could not be decoded.
    #[error("decode records")]
    Decode(#[from] DecodeError),
    /// The broker slows us down, as its quotas say: the request was not sent, or answered with nothing.
    #[error("broker throttles this client for {} ms", pause.as_millis())]
    Throttled {
        /// When to come back.
        pause: Duration,
    },
    /// Too many callers wait for this broker already.
    #[error("too many requests wait for this broker")]
    Busy,
    /// The request cannot be sent as asked (too large, empty, out of bounds).
    #[error("invalid request: {0}")]
    InvalidRequest(String),
}

impl Error {
    /// True if the same call may succeed later without anybody changing anything.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Disconnected { .. } | Self::DeadlineExceeded | Self::NoLeader { .. } => true,
            // Who is asked again knows better: leaders, coordinators and the controller move when a broker goes.
            Self::UnknownBroker { .. } | Self::NoController | Self::Busy | Self::Throttled { .. } => true,
            Self::Kafka(error) => error.retriable,
            _ => false,
        }
    }

    /// True if the request may have taken effect although it failed.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Disconnected { .. } | Self::DeadlineExceeded => true,
            Self::Kafka(error) => {
                matches!(error.code, code::REQUEST_TIMED_OUT | code::NOT_ENOUGH_REPLICAS_AFTER_APPEND)
            }
            _ => false,
        }
    }

    /// If the group no longer takes the caller for the member it was: what it holds against it.
    pub fn membership(&self) -> Option<MembershipRefusal> {
        match self.kafka_code()? {
            code::UNKNOWN_MEMBER_ID => Some(MembershipRefusal::UnknownMember),
            code::FENCED_MEMBER_EPOCH => Some(MembershipRefusal::Fenced),
            code::STALE_MEMBER_EPOCH => Some(MembershipRefusal::StaleEpoch),
            _ => None,
        }
    }

    /// The broker's error code, if it was the broker who refused.
    pub fn kafka_code(&self) -> Option<i16> {
        match self {
            Self::Kafka(error) => Some(error.code),
            Self::UnknownTopic { .. } | Self::UnknownPartition { .. } => Some(code::UNKNOWN_TOPIC_OR_PARTITION),
            Self::OffsetOutOfRange { .. } => Some(code::OFFSET_OUT_OF_RANGE),
            _ => None,
        }
    }
}

/// Why a group refuses what a member sent. Nothing of the request took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembershipRefusal {
    /// The member left, was made to leave, or its session ended.
    UnknownMember,
    /// The member is known, but in another epoch than it believes; it must give up its partitions and join again.
    Fenced,
    /// The epoch is not the member's current one: a new one is on its way, or the member was replaced.
    StaleEpoch,
}

/// An error code of the Kafka protocol with its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaError {
    /// Number on the wire; see [`code`].
    pub code: i16,
    /// Kafka's name for it, e.g. `TOPIC_ALREADY_EXISTS`.
    pub name: String,
    /// Whether Kafka calls it retriable.
    pub retriable: bool,
    /// What the broker added, if anything.
    pub message: Option<String>,
}

impl KafkaError {
    pub(crate) fn new(code: i16, message: Option<String>) -> Self {
        let (name, retriable) = codec::describe_error(code);
        Self { code, name, retriable, message }
    }

    /// `Ok` for code 0.
    pub(crate) fn check(code: i16, message: Option<String>) -> Result<(), Self> {
        if code == 0 { Ok(()) } else { Err(Self::new(code, message)) }
    }
}

impl fmt::Display for KafkaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kafka answered {} ({})", self.name, self.code)?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for KafkaError {}

/// The protocol's error codes that callers decide by.
#[allow(missing_docs)]
pub mod code {
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub const LEADER_NOT_AVAILABLE: i16 = 5;
    pub const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    pub const REQUEST_TIMED_OUT: i16 = 7;
    pub const REPLICA_NOT_AVAILABLE: i16 = 9;
    pub const MESSAGE_TOO_LARGE: i16 = 10;
    pub const OFFSET_METADATA_TOO_LARGE: i16 = 12;
    pub const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    pub const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    pub const NOT_COORDINATOR: i16 = 16;
    pub const INVALID_TOPIC: i16 = 17;
    pub const NOT_ENOUGH_REPLICAS: i16 = 19;
    pub const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
    pub const INVALID_GROUP_ID: i16 = 24;
    pub const UNKNOWN_MEMBER_ID: i16 = 25;
    pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    pub const GROUP_AUTHORIZATION_FAILED: i16 = 30;
    pub const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
    pub const UNSUPPORTED_VERSION: i16 = 35;
    pub const TOPIC_ALREADY_EXISTS: i16 = 36;
    pub const INVALID_PARTITIONS: i16 = 37;
    pub const INVALID_REPLICATION_FACTOR: i16 = 38;
    pub const INVALID_CONFIG: i16 = 40;
    pub const NOT_CONTROLLER: i16 = 41;
    pub const INVALID_REQUEST: i16 = 42;
    pub const POLICY_VIOLATION: i16 = 44;
    pub const SECURITY_DISABLED: i16 = 54;
    pub const KAFKA_STORAGE_ERROR: i16 = 56;
    pub const SASL_AUTHENTICATION_FAILED: i16 = 58;
    pub const NON_EMPTY_GROUP: i16 = 68;
    pub const GROUP_ID_NOT_FOUND: i16 = 69;
    pub const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
    pub const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
    pub const FENCED_LEADER_EPOCH: i16 = 74;
    pub const UNKNOWN_LEADER_EPOCH: i16 = 75;
    pub const OFFSET_NOT_AVAILABLE: i16 = 78;
    pub const GROUP_MAX_SIZE_REACHED: i16 = 81;
    pub const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;
    pub const UNSTABLE_OFFSET_COMMIT: i16 = 88;
    pub const THROTTLING_QUOTA_EXCEEDED: i16 = 89;
    pub const RESOURCE_NOT_FOUND: i16 = 91;
    pub const UNKNOWN_TOPIC_ID: i16 = 100;
    pub const INCONSISTENT_TOPIC_ID: i16 = 103;
    pub const FETCH_SESSION_TOPIC_ID_ERROR: i16 = 106;
    pub const FENCED_MEMBER_EPOCH: i16 = 110;
    pub const UNRELEASED_INSTANCE_ID: i16 = 111;
    pub const STALE_MEMBER_EPOCH: i16 = 113;
}
