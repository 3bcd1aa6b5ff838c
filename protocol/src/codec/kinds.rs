//! The requests and responses of the served APIs, each as one enum to match on exhaustively.

use bytes::Bytes;
use kafka_protocol::messages::*;

use super::{DecodeError, EncodeError, decode_request_as, encode_response_of};
use crate::api::ApiName;

macro_rules! kinds {
    ($($name:ident $request:ident $response:ident,)*) => {
        /// A decoded request of a served API.
        #[derive(Clone, Debug, PartialEq)]
        pub enum RequestKind {
            $(
                #[doc = concat!("A [`", stringify!($request), "`].")]
                $name($request),
            )*
        }

        /// A response of a served API, ready to encode.
        #[derive(Clone, Debug, PartialEq)]
        pub enum ResponseKind {
            $(
                #[doc = concat!("A [`", stringify!($response), "`].")]
                $name($response),
            )*
        }

        $(
            impl From<$request> for RequestKind {
                fn from(request: $request) -> RequestKind {
                    RequestKind::$name(request)
                }
            }

            impl From<$response> for ResponseKind {
                fn from(response: $response) -> ResponseKind {
                    ResponseKind::$name(response)
                }
            }
        )*

        impl RequestKind {
            /// The API this request is of.
            pub fn name(&self) -> ApiName {
                match self {
                    $(RequestKind::$name(_) => ApiName::$name,)*
                }
            }
        }

        impl ResponseKind {
            /// The API this response is of.
            pub fn name(&self) -> ApiName {
                match self {
                    $(ResponseKind::$name(_) => ApiName::$name,)*
                }
            }
        }

        /// Decodes a request's body, after the pre-validator has walked it.
        pub fn decode_request(api: ApiName, version: i16, body: Bytes) -> Result<RequestKind, DecodeError> {
            Ok(match api {
                $(ApiName::$name => RequestKind::$name(decode_request_as::<$request>(version, body)?),)*
            })
        }

        /// Encodes a response with its length and header. See [`encode_response_of`].
        pub fn encode_response(
            version: i16,
            correlation_id: i32,
            response: &ResponseKind,
        ) -> Result<bytes::BytesMut, EncodeError> {
            match response {
                $(ResponseKind::$name(response) => {
                    encode_response_of::<$request>(version, correlation_id, response)
                })*
            }
        }
    };
}

kinds! {
    Produce ProduceRequest ProduceResponse,
    Fetch FetchRequest FetchResponse,
    ListOffsets ListOffsetsRequest ListOffsetsResponse,
    Metadata MetadataRequest MetadataResponse,
    OffsetCommit OffsetCommitRequest OffsetCommitResponse,
    OffsetFetch OffsetFetchRequest OffsetFetchResponse,
    FindCoordinator FindCoordinatorRequest FindCoordinatorResponse,
    JoinGroup JoinGroupRequest JoinGroupResponse,
    Heartbeat HeartbeatRequest HeartbeatResponse,
    LeaveGroup LeaveGroupRequest LeaveGroupResponse,
    SyncGroup SyncGroupRequest SyncGroupResponse,
    DescribeGroups DescribeGroupsRequest DescribeGroupsResponse,
    ListGroups ListGroupsRequest ListGroupsResponse,
    ApiVersions ApiVersionsRequest ApiVersionsResponse,
    CreateTopics CreateTopicsRequest CreateTopicsResponse,
    DeleteTopics DeleteTopicsRequest DeleteTopicsResponse,
    DeleteRecords DeleteRecordsRequest DeleteRecordsResponse,
    InitProducerId InitProducerIdRequest InitProducerIdResponse,
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse,
    DescribeAcls DescribeAclsRequest DescribeAclsResponse,
    DescribeConfigs DescribeConfigsRequest DescribeConfigsResponse,
    AlterConfigs AlterConfigsRequest AlterConfigsResponse,
    DescribeLogDirs DescribeLogDirsRequest DescribeLogDirsResponse,
    CreatePartitions CreatePartitionsRequest CreatePartitionsResponse,
    DeleteGroups DeleteGroupsRequest DeleteGroupsResponse,
    IncrementalAlterConfigs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
    OffsetDelete OffsetDeleteRequest OffsetDeleteResponse,
    DescribeCluster DescribeClusterRequest DescribeClusterResponse,
    DescribeTopicPartitions DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse,
    ElectLeaders ElectLeadersRequest ElectLeadersResponse,
    AlterPartitionReassignments AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse,
    ListPartitionReassignments ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse,
    AlterReplicaLogDirs AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse,
    DescribeQuorum DescribeQuorumRequest DescribeQuorumResponse,
    UpdateFeatures UpdateFeaturesRequest UpdateFeaturesResponse,
    UnregisterBroker UnregisterBrokerRequest UnregisterBrokerResponse,
    AddRaftVoter AddRaftVoterRequest AddRaftVoterResponse,
    RemoveRaftVoter RemoveRaftVoterRequest RemoveRaftVoterResponse,
}
