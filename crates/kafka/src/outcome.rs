//! What became of a record, and the translation from librdkafka's words.

use std::fmt;

use rdkafka_sys::rd_kafka_resp_err_t as Code;

/// What became of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordOutcome {
    /// In the log on all in-sync replicas.
    Persisted {
        /// Its offset; absent when a retry found the record already there.
        offset: Option<i64>,
        /// The time stored with it, ms since the epoch.
        timestamp_ms: i64,
    },
    /// Not in the log, and it never will be.
    NotPersisted(Failure),
    /// It may be in the log, or get there.
    PossiblyPersisted(Failure),
}

/// Why a record is not `Persisted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Time was over before it could be sent, or before an answer came.
    Deadline,
    /// More is waiting than the sink may hold.
    Overloaded,
    /// Kafka knows no such topic.
    UnknownTopic,
    /// No topic can have such a partition.
    UnknownPartition,
    /// Larger than Kafka allows.
    TooLarge,
    /// Kafka could not take it at the moment: no leader, too few replicas, connection lost.
    Unavailable,
    /// Kafka refused it for good; the number is Kafka's error code.
    Refused(i32),
    /// The sink is closing.
    Closing,
}

impl Failure {
    /// Whether sending the record again may succeed.
    pub fn is_retriable(self) -> bool {
        match self {
            Self::Deadline | Self::Overloaded | Self::Unavailable | Self::Closing => true,
            Self::UnknownTopic | Self::UnknownPartition | Self::TooLarge | Self::Refused(_) => false,
        }
    }

    pub(crate) fn from_code(code: Code) -> Self {
        use Code as C;
        match code {
            // Partitions never go alone, and a record is handed over only after its partition was seen.
            C::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | C::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
            | C::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => Self::UnknownTopic,
            C::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE | C::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE => Self::TooLarge,
            C::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT | C::RD_KAFKA_RESP_ERR__TIMED_OUT => Self::Deadline,
            C::RD_KAFKA_RESP_ERR__QUEUE_FULL => Self::Overloaded,
            C::RD_KAFKA_RESP_ERR_INVALID_MSG
            | C::RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE
            | C::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP
            | C::RD_KAFKA_RESP_ERR_INVALID_RECORD
            | C::RD_KAFKA_RESP_ERR_POLICY_VIOLATION
            | C::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
            | C::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED
            | C::RD_KAFKA_RESP_ERR__INVALID_ARG => Self::Refused(code as i32),
            _ => Self::Unavailable,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline => f.write_str("deadline"),
            Self::Overloaded => f.write_str("overloaded"),
            Self::UnknownTopic => f.write_str("unknown topic"),
            Self::UnknownPartition => f.write_str("unknown partition"),
            Self::TooLarge => f.write_str("too large"),
            Self::Unavailable => f.write_str("unavailable"),
            Self::Refused(code) => write!(f, "refused with code {code}"),
            Self::Closing => f.write_str("closing"),
        }
    }
}
