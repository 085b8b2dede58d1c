//! The one place that names the protocol codec's crate.
//!
//! It gives the rest of this crate the generated message structs, a [`Request`] trait that ties a request to its
//! response and version range, framing, and bounded inflation. Replacing the codec means rewriting this module.

mod messages;

use bytes::{Bytes, BytesMut};
use kacrab_protocol::compression::{CompressionErrorKind, gzip, lz4, snappy, zstd};
use kacrab_protocol::frame::{RequestFrameSpec, encode_request_frame};
use kacrab_protocol::generated::{ApiKey, ErrorCode};

pub(crate) use kacrab_protocol::generated::{
    alter_client_quotas_request, consumer_group_describe_response, consumer_group_heartbeat_request,
    create_acls_request, create_partitions_request, create_topics_request, delete_acls_request, delete_records_request,
    delete_topics_request, describe_configs_request, describe_user_scram_credentials_request, fetch_request,
    fetch_response, incremental_alter_configs_request, list_offsets_request, metadata_request, offset_commit_request,
    offset_delete_request, offset_fetch_request, offset_for_leader_epoch_request, produce_request,
};
pub(crate) use messages::*;

use crate::batch::header::Compression;
use crate::error::{Error, Result};
use crate::types::KafkaTopicId;

type ProtocolResult<T> = std::result::Result<T, kacrab_protocol::ProtocolError>;

/// A request we can send: what it is, in which versions, and what comes back.
pub(crate) trait Request: Send + Sync {
    /// Number of the request on the wire.
    const API: i16;
    /// Name for errors and logs.
    const NAME: &'static str;
    /// Lowest and highest version we speak; the codec may know more.
    const VERSIONS: (i16, i16);
    type Response: Send + 'static;

    fn write(&self, buf: &mut BytesMut, version: i16) -> ProtocolResult<()>;
    fn read_response(buf: &mut Bytes, version: i16) -> ProtocolResult<Self::Response>;
    /// Milliseconds the broker asks us to stay quiet on this connection.
    fn throttle_ms(response: &Self::Response) -> i32;
}

/// Encodes a whole frame: length, header, body.
pub(crate) fn encode_frame<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<Bytes> {
    let api_key = ApiKey::from_i16(R::API).ok_or(Error::Unsupported { api: R::NAME })?;
    let spec = RequestFrameSpec { api_key, api_version: version, correlation_id, client_id, capacity_hint: 256 };
    encode_request_frame(spec, |buf| request.write(buf, version))
        .map(BytesMut::freeze)
        .map_err(|error| Error::InvalidRequest(format!("encode {}: {error}", R::NAME)))
}

/// Decodes a frame's payload (header and body) that answers `R` in `version`. The correlation id is the caller's to
/// check beforehand, with [`correlation_id`].
pub(crate) fn decode_payload<R: Request>(payload: Bytes, version: i16) -> Result<R::Response> {
    let malformed = |error| Error::Protocol(format!("decode {} response: {error}", R::NAME));
    let api_key = ApiKey::from_i16(R::API).ok_or(Error::Unsupported { api: R::NAME })?;
    let mut envelope =
        kacrab_protocol::frame::decode_response_envelope(api_key, version, payload).map_err(malformed)?;
    R::read_response(&mut envelope.body, version).map_err(malformed)
}

/// The correlation id at the start of a response payload.
pub(crate) fn correlation_id(payload: &[u8]) -> Option<i32> {
    payload.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

/// Kafka's name of an error code and whether it is retriable.
pub(crate) fn describe_error(code: i16) -> (String, bool) {
    use crate::error::code::{
        FENCED_LEADER_EPOCH, FENCED_MEMBER_EPOCH, KAFKA_STORAGE_ERROR, STALE_MEMBER_EPOCH, THROTTLING_QUOTA_EXCEEDED,
        UNKNOWN_LEADER_EPOCH,
    };
    let known = ErrorCode::from(code);
    // The codec's list lacks these, and Kafka's own clients do retry them.
    // It also calls a member's outdated epoch retriable: the same request would be refused for ever.
    let retriable = (known.is_retriable() && !matches!(code, FENCED_MEMBER_EPOCH | STALE_MEMBER_EPOCH))
        || matches!(code, FENCED_LEADER_EPOCH | UNKNOWN_LEADER_EPOCH | KAFKA_STORAGE_ERROR | THROTTLING_QUOTA_EXCEEDED);
    (upper_snake(&format!("{known:?}")), retriable)
}

/// Why a payload was not inflated.
pub(crate) enum InflateError {
    /// It is more than was allowed.
    TooLarge,
    /// It is not what its compression says.
    Damaged(String),
}

/// Inflates a batch's payload, refusing to produce more than `max_bytes`.
pub(crate) fn inflate(
    compression: Compression,
    payload: &[u8],
    max_bytes: usize,
) -> std::result::Result<Vec<u8>, InflateError> {
    let inflated = match compression {
        Compression::None => return Ok(payload.to_vec()),
        Compression::Gzip => gzip::decompress_bounded(payload, max_bytes),
        Compression::Snappy => snappy::decompress_bounded(payload, max_bytes),
        Compression::Lz4 => lz4::decompress_bounded(payload, max_bytes),
        Compression::Zstd => zstd::decompress_bounded(payload, max_bytes),
    };
    inflated.map_err(|error| match error.kind {
        CompressionErrorKind::DecompressedTooLarge { .. } => InflateError::TooLarge,
        other => InflateError::Damaged(other.to_string()),
    })
}

/// Text for a request field.
pub(crate) fn text(value: impl Into<String>) -> Text {
    Text::from(value.into())
}

pub(crate) fn to_uuid(id: KafkaTopicId) -> Uuid {
    let half = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&id.0[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    Uuid::from_parts(half(0), half(8))
}

pub(crate) fn from_uuid(id: Uuid) -> KafkaTopicId {
    KafkaTopicId(id.to_bytes())
}

fn upper_snake(camel: &str) -> String {
    let mut name = String::with_capacity(camel.len() + 8);
    for (at, letter) in camel.chars().enumerate() {
        if letter.is_ascii_uppercase() && at > 0 {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_carry_kafkas_names() {
        assert_eq!(describe_error(36), ("TOPIC_ALREADY_EXISTS".to_owned(), false));
        assert_eq!(describe_error(6), ("NOT_LEADER_OR_FOLLOWER".to_owned(), true));
        assert!(describe_error(crate::error::code::FENCED_LEADER_EPOCH).1);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_answers_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            fn try_all<R: Request>(bytes: &[u8]) {
                for version in R::VERSIONS.0..=R::VERSIONS.1 {
                    let _any_outcome = decode_payload::<R>(Bytes::copy_from_slice(bytes), version);
                }
            }
            try_all::<FetchRequestData>(&bytes);
            try_all::<MetadataRequestData>(&bytes);
            try_all::<ListOffsetsRequestData>(&bytes);
            try_all::<ProduceRequestData>(&bytes);
            try_all::<ApiVersionsRequestData>(&bytes);
            try_all::<SaslAuthenticateRequestData>(&bytes);
            try_all::<CreateTopicsRequestData>(&bytes);
            try_all::<DescribeConfigsRequestData>(&bytes);
            try_all::<DescribeAclsRequestData>(&bytes);
            try_all::<DescribeClusterRequestData>(&bytes);
            try_all::<FindCoordinatorRequestData>(&bytes);
            try_all::<ConsumerGroupHeartbeatRequestData>(&bytes);
            try_all::<ConsumerGroupDescribeRequestData>(&bytes);
            try_all::<OffsetCommitRequestData>(&bytes);
            try_all::<OffsetFetchRequestData>(&bytes);
            try_all::<OffsetDeleteRequestData>(&bytes);
            try_all::<OffsetForLeaderEpochRequestData>(&bytes);
            try_all::<ListGroupsRequestData>(&bytes);
            try_all::<DeleteGroupsRequestData>(&bytes);
        }
    }
}
