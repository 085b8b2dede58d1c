//! Defaults of the limits, by name. All are configurable where they are used.

/// Bytes of one record: key + value + headers.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Bytes of all records of one produce call.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Records of one produce call.
pub const BATCH_RECORDS_MAX: usize = 10_000;
/// Headers of one record.
pub const RECORD_HEADERS_MAX: usize = 100;
/// Bytes of a header's name.
pub const HEADER_NAME_BYTES_MAX: usize = 255;
/// Bytes of a request body, before and after decompression: a full batch in base64 within JSON.
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// Bytes of the body of an admin or usage call: a resource at all its limits, escaped, fits several times.
pub const ADMIN_BODY_BYTES_MAX: usize = 256 << 10;
/// Bytes of admin and usage calls in flight, tenant and gateway.
pub const ADMIN_BYTES_IN_FLIGHT: u64 = 4 << 20;
/// Bytes of records in one fetch answer.
pub const FETCH_BYTES_MAX: usize = 8 << 20;
/// Bytes of records in one fetch answer, when the caller names none.
pub const FETCH_BYTES_DEFAULT: usize = 1 << 20;
/// Records in one fetch answer.
pub const FETCH_RECORDS_MAX: usize = 10_000;
/// Records in one fetch answer, when the caller names none.
pub const FETCH_RECORDS_DEFAULT: usize = 1_000;
/// Milliseconds a fetch may wait.
pub const FETCH_WAIT_MS_MAX: u64 = 30_000;
/// Partitions of one topic.
pub const TOPIC_PARTITIONS_MAX: i32 = 1_000;
/// Page size of lists.
pub const PAGE_SIZE_MAX: i32 = 1_000;
/// Page size of lists, when the caller names none.
pub const PAGE_SIZE_DEFAULT: i32 = 100;

/// Topics of one consumer group.
pub const GROUP_TOPICS_MAX: usize = 16;
/// Consumer groups of one namespace.
pub const GROUPS_PER_NAMESPACE_MAX: i64 = 20_000;
/// Consumers of one group.
pub const GROUP_CONSUMERS_MAX: usize = 1_000;
/// Records in one answer to a pull.
pub const PULL_RECORDS_MAX: usize = 1_000;
/// Records in one answer to a pull, when the caller names none.
pub const PULL_RECORDS_DEFAULT: usize = 100;
/// Ids of one acknowledging call.
pub const ACK_IDS_MAX: usize = 10_000;
/// Releases of one record by its consumers that are no failures.
pub const RELEASES_MAX: u16 = 1_000;
/// Bytes of the reason of a nack.
pub const NACK_REASON_BYTES_MAX: usize = 1_000;
/// Milliseconds of an ack deadline, least and most.
pub const ACK_DEADLINE_MS: std::ops::RangeInclusive<i64> = 10_000..=600_000;
/// Milliseconds of an ack deadline, when the group names none.
pub const ACK_DEADLINE_MS_DEFAULT: i64 = 30_000;
/// Milliseconds before a record is delivered again, at most.
pub const BACKOFF_MS_MAX: i64 = 60_000;
/// Milliseconds before a record is delivered for the second time, when the group names none.
pub const BACKOFF_MS_DEFAULT: i64 = 2_000;
/// Deliveries before a record is dead, at most.
pub const MAX_ATTEMPTS_MAX: i32 = 100;
/// Deliveries before a record is dead, when the group has a dead-letter topic and names none.
pub const MAX_ATTEMPTS_DEFAULT: i32 = 5;
/// Offsets between the committed one and the next to be read, per partition of a group.
pub const WINDOW_OFFSETS_MAX: i64 = 10_000;
/// Bytes of records not acknowledged, per partition of a group.
pub const WINDOW_BYTES_MAX: u64 = 32 << 20;

/// Limits of a tenant at one gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantLimits {
    /// Requests a second.
    pub requests_per_second: u64,
    /// Bytes produced a second.
    pub ingress_bytes_per_second: u64,
    /// Bytes fetched a second.
    pub egress_bytes_per_second: u64,
    /// Bytes of requests and answers in flight.
    pub bytes_in_flight: u64,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            requests_per_second: 10_000,
            ingress_bytes_per_second: 256 << 20,
            egress_bytes_per_second: 512 << 20,
            bytes_in_flight: 32 << 20,
        }
    }
}
