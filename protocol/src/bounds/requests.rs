//! Shapes of every served request, at every version the API table accepts.
//!
//! Source: Kafka 4.1's message definitions. Each shape is proved against kafka-protocol by a round trip.

mod admin;
mod cluster;
mod data;
mod group;

use super::shape::Shape;
use crate::api::ApiName;

/// The shape of an API's request.
pub(super) fn shape(api: ApiName) -> &'static Shape {
    match api {
        ApiName::Produce => &data::PRODUCE,
        ApiName::Fetch => &data::FETCH,
        ApiName::ListOffsets => &data::LIST_OFFSETS,
        ApiName::Metadata => &data::METADATA,
        ApiName::InitProducerId => &data::INIT_PRODUCER_ID,
        ApiName::OffsetForLeaderEpoch => &data::OFFSET_FOR_LEADER_EPOCH,
        ApiName::ApiVersions => &data::API_VERSIONS,
        ApiName::OffsetCommit => &group::OFFSET_COMMIT,
        ApiName::OffsetFetch => &group::OFFSET_FETCH,
        ApiName::FindCoordinator => &group::FIND_COORDINATOR,
        ApiName::JoinGroup => &group::JOIN_GROUP,
        ApiName::Heartbeat => &group::HEARTBEAT,
        ApiName::LeaveGroup => &group::LEAVE_GROUP,
        ApiName::SyncGroup => &group::SYNC_GROUP,
        ApiName::DescribeGroups => &group::DESCRIBE_GROUPS,
        ApiName::ListGroups => &group::LIST_GROUPS,
        ApiName::DeleteGroups => &group::DELETE_GROUPS,
        ApiName::OffsetDelete => &group::OFFSET_DELETE,
        ApiName::CreateTopics => &admin::CREATE_TOPICS,
        ApiName::DeleteTopics => &admin::DELETE_TOPICS,
        ApiName::DeleteRecords => &admin::DELETE_RECORDS,
        ApiName::DescribeAcls => &admin::DESCRIBE_ACLS,
        ApiName::DescribeConfigs => &admin::DESCRIBE_CONFIGS,
        ApiName::AlterConfigs => &admin::ALTER_CONFIGS,
        ApiName::IncrementalAlterConfigs => &admin::INCREMENTAL_ALTER_CONFIGS,
        ApiName::DescribeLogDirs => &admin::DESCRIBE_LOG_DIRS,
        ApiName::CreatePartitions => &admin::CREATE_PARTITIONS,
        ApiName::DescribeCluster => &admin::DESCRIBE_CLUSTER,
        ApiName::DescribeTopicPartitions => &admin::DESCRIBE_TOPIC_PARTITIONS,
        ApiName::ElectLeaders => &cluster::ELECT_LEADERS,
        ApiName::AlterPartitionReassignments => &cluster::ALTER_PARTITION_REASSIGNMENTS,
        ApiName::ListPartitionReassignments => &cluster::LIST_PARTITION_REASSIGNMENTS,
        ApiName::AlterReplicaLogDirs => &cluster::ALTER_REPLICA_LOG_DIRS,
        ApiName::DescribeQuorum => &cluster::DESCRIBE_QUORUM,
        ApiName::UpdateFeatures => &cluster::UPDATE_FEATURES,
        ApiName::UnregisterBroker => &cluster::UNREGISTER_BROKER,
        ApiName::AddRaftVoter => &cluster::ADD_RAFT_VOTER,
        ApiName::RemoveRaftVoter => &cluster::REMOVE_RAFT_VOTER,
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{ApiKey, RequestKind};

    use super::super::{check_request, sample_request};
    use crate::api::APIS;

    #[test]
    fn every_shape_is_that_of_the_codec_at_every_version() {
        for api in APIS {
            let key = ApiKey::try_from(api.key()).unwrap();
            for version in api.accepted.clone() {
                for seed in 0..20 {
                    let body = sample_request(api.name, version, seed);
                    let mut bytes = bytes::Bytes::from(body.clone());
                    let decoded = RequestKind::decode(key, &mut bytes, version)
                        .unwrap_or_else(|error| panic!("{} v{version}: {error:#}", api.name));
                    assert!(bytes.is_empty(), "{} v{version} leaves {} bytes", api.name, bytes.len());
                    let mut encoded = bytes::BytesMut::new();
                    decoded.encode(&mut encoded, version).unwrap();
                    assert_eq!(&encoded[..], &body[..], "{} v{version}", api.name);
                    check_request(api.name, version, &encoded)
                        .unwrap_or_else(|error| panic!("{} v{version}: {error}", api.name));
                }
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        for api in APIS {
            for version in api.accepted.clone() {
                let body = sample_request(api.name, version, 1);
                for length in 0..body.len() {
                    assert!(check_request(api.name, version, &body[..length]).is_err(), "{} v{version}", api.name);
                }
            }
        }
    }
}
