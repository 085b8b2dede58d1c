//! The requests we send, tied to their responses and to the versions we speak.

use bytes::{Bytes, BytesMut};
pub(crate) use kacrab_protocol::generated::describe_configs_response::DescribeConfigsResourceResult as DescribedConfig;
pub(crate) use kacrab_protocol::generated::offset_for_leader_epoch_response::EpochEndOffset;
pub(crate) use kacrab_protocol::generated::{
    AlterClientQuotasRequestData, AlterClientQuotasResponseData, AlterUserScramCredentialsRequestData,
    AlterUserScramCredentialsResponseData, ApiVersionsRequestData, ApiVersionsResponseData,
    ConsumerGroupDescribeRequestData, ConsumerGroupDescribeResponseData, ConsumerGroupHeartbeatRequestData,
    ConsumerGroupHeartbeatResponseData, CreateAclsRequestData, CreateAclsResponseData, CreatePartitionsRequestData,
    CreatePartitionsResponseData, CreateTopicsRequestData, CreateTopicsResponseData, DeleteAclsRequestData,
    DeleteAclsResponseData, DeleteGroupsRequestData, DeleteGroupsResponseData, DeleteRecordsRequestData,
    DeleteRecordsResponseData, DeleteTopicsRequestData, DeleteTopicsResponseData, DescribeAclsRequestData,
    DescribeAclsResponseData, DescribeClusterRequestData, DescribeClusterResponseData, DescribeConfigsRequestData,
    DescribeConfigsResponseData, DescribeUserScramCredentialsRequestData, DescribeUserScramCredentialsResponseData,
    FetchRequestData, FetchResponseData, FindCoordinatorRequestData, FindCoordinatorResponseData,
    IncrementalAlterConfigsRequestData, IncrementalAlterConfigsResponseData, ListGroupsRequestData,
    ListGroupsResponseData, ListOffsetsRequestData, ListOffsetsResponseData, MetadataRequestData, MetadataResponseData,
    OffsetCommitRequestData, OffsetCommitResponseData, OffsetDeleteRequestData, OffsetDeleteResponseData,
    OffsetFetchRequestData, OffsetFetchResponseData, OffsetForLeaderEpochRequestData, OffsetForLeaderEpochResponseData,
    ProduceRequestData, ProduceResponseData, SaslAuthenticateRequestData, SaslAuthenticateResponseData,
    SaslHandshakeRequestData, SaslHandshakeResponseData, ScramCredentialDeletion, ScramCredentialUpsertion,
};
pub(crate) use kacrab_protocol::{KafkaString as Text, KafkaUuid as Uuid};

use super::{ProtocolResult, Request};

macro_rules! requests {
    ($($name:literal $api:literal v $min:literal..$max:literal: $request:ident => $response:ident $($throttle:ident)?;)*) => {$(
        impl Request for $request {
            const API: i16 = $api;
            const NAME: &'static str = $name;
            const VERSIONS: (i16, i16) = ($min, $max);
            type Response = $response;

            fn write(&self, buf: &mut BytesMut, version: i16) -> ProtocolResult<()> {
                $request::write(self, buf, version)
            }

            fn read_response(buf: &mut Bytes, version: i16) -> ProtocolResult<$response> {
                $response::read(buf, version)
            }

            fn throttle_ms(_response: &$response) -> i32 {
                0 $(+ _response.$throttle)?
            }
        }
    )*};
}

// Produce stops at 12 because 13 names topics by id only. Fetch starts at 13 for the opposite reason: a read must
// notice that a name was given to another topic. Offsets stop at 9: from 10 on they name topics by id only, and a
// position must be readable for a topic that is gone. Heartbeats begin where members choose their own ids.
requests! {
    "Produce" 0 v 9..12: ProduceRequestData => ProduceResponseData throttle_time_ms;
    "Fetch" 1 v 13..17: FetchRequestData => FetchResponseData throttle_time_ms;
    "ListOffsets" 2 v 6..10: ListOffsetsRequestData => ListOffsetsResponseData throttle_time_ms;
    "Metadata" 3 v 12..13: MetadataRequestData => MetadataResponseData throttle_time_ms;
    "OffsetCommit" 8 v 9..9: OffsetCommitRequestData => OffsetCommitResponseData throttle_time_ms;
    "OffsetFetch" 9 v 9..9: OffsetFetchRequestData => OffsetFetchResponseData throttle_time_ms;
    "FindCoordinator" 10 v 4..6: FindCoordinatorRequestData => FindCoordinatorResponseData throttle_time_ms;
    "ListGroups" 16 v 5..5: ListGroupsRequestData => ListGroupsResponseData throttle_time_ms;
    "SaslHandshake" 17 v 1..1: SaslHandshakeRequestData => SaslHandshakeResponseData;
    "ApiVersions" 18 v 0..4: ApiVersionsRequestData => ApiVersionsResponseData throttle_time_ms;
    "CreateTopics" 19 v 7..7: CreateTopicsRequestData => CreateTopicsResponseData throttle_time_ms;
    "DeleteTopics" 20 v 6..6: DeleteTopicsRequestData => DeleteTopicsResponseData throttle_time_ms;
    "DeleteRecords" 21 v 2..2: DeleteRecordsRequestData => DeleteRecordsResponseData throttle_time_ms;
    "DescribeAcls" 29 v 2..3: DescribeAclsRequestData => DescribeAclsResponseData throttle_time_ms;
    "CreateAcls" 30 v 2..3: CreateAclsRequestData => CreateAclsResponseData throttle_time_ms;
    "DeleteAcls" 31 v 2..3: DeleteAclsRequestData => DeleteAclsResponseData throttle_time_ms;
    "DescribeConfigs" 32 v 4..4: DescribeConfigsRequestData => DescribeConfigsResponseData throttle_time_ms;
    "SaslAuthenticate" 36 v 2..2: SaslAuthenticateRequestData => SaslAuthenticateResponseData;
    "OffsetForLeaderEpoch" 23 v 4..4:
        OffsetForLeaderEpochRequestData => OffsetForLeaderEpochResponseData throttle_time_ms;
    "CreatePartitions" 37 v 2..3: CreatePartitionsRequestData => CreatePartitionsResponseData throttle_time_ms;
    "DeleteGroups" 42 v 2..2: DeleteGroupsRequestData => DeleteGroupsResponseData throttle_time_ms;
    "IncrementalAlterConfigs" 44 v 1..1:
        IncrementalAlterConfigsRequestData => IncrementalAlterConfigsResponseData throttle_time_ms;
    "OffsetDelete" 47 v 0..0: OffsetDeleteRequestData => OffsetDeleteResponseData throttle_time_ms;
    "AlterClientQuotas" 49 v 1..1: AlterClientQuotasRequestData => AlterClientQuotasResponseData throttle_time_ms;
    "DescribeUserScramCredentials" 50 v 0..0:
        DescribeUserScramCredentialsRequestData => DescribeUserScramCredentialsResponseData throttle_time_ms;
    "AlterUserScramCredentials" 51 v 0..0:
        AlterUserScramCredentialsRequestData => AlterUserScramCredentialsResponseData throttle_time_ms;
    "DescribeCluster" 60 v 0..2: DescribeClusterRequestData => DescribeClusterResponseData throttle_time_ms;
    "ConsumerGroupHeartbeat" 68 v 1..1:
        ConsumerGroupHeartbeatRequestData => ConsumerGroupHeartbeatResponseData throttle_time_ms;
    "ConsumerGroupDescribe" 69 v 0..1:
        ConsumerGroupDescribeRequestData => ConsumerGroupDescribeResponseData throttle_time_ms;
}
