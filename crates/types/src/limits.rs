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
