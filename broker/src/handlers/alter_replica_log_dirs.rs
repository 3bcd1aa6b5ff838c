//! AlterReplicaLogDirs (key 34): in which of this broker's directories replicas shall lie (KIP-113).
//!
//! *Behaviour*: a replica that lies there already is fine, one that is not on this broker (yet) is REPLICA_NOT_AVAILABLE,
//! a path that is none of the broker's LOG_DIR_NOT_FOUND. Kafka's reassignment tool asks this when it is given the
//! assignment that it printed for going back. *Versions*: 1–2.
//! *Differences from Kafka*: nothing is moved between directories, and where a replica that is still to come will lie is
//! the controller's choice: one that lies in another directory answers INVALID_REQUEST.

use std::collections::BTreeMap;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use stonelog_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};
use stonelog_protocol::{PartitionIndex, StrBytes, TopicPartition};

use crate::request::RequestContext;

/// Answers an AlterReplicaLogDirs request.
pub async fn handle(context: &RequestContext, request: AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse {
    let mut results: BTreeMap<String, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for directory in &request.dirs {
        for topic in &directory.topics {
            let told = results.entry(topic.name.to_string()).or_default();
            for index in &topic.partitions {
                let error = judge(context, &directory.path, &topic.name, PartitionIndex(*index)).await;
                let result = AlterReplicaLogDirPartitionResult::default().with_partition_index(*index);
                told.push(result.with_error_code(error.code()));
            }
        }
    }
    let results = results.into_iter().map(|(topic, partitions)| {
        let name = StrBytes::from_string(topic).into();
        AlterReplicaLogDirTopicResult::default().with_topic_name(name).with_partitions(partitions)
    });
    AlterReplicaLogDirsResponse::default().with_results(results.collect())
}

async fn judge(context: &RequestContext, path: &str, topic: &str, index: PartitionIndex) -> ErrorCode {
    let node = &context.broker.node;
    let known = node.directories.iter().find(|directory| directory.path.display().to_string() == path);
    let wanted = match known {
        None => return ErrorCode::LogDirNotFound,
        Some(directory) if directory.is_offline() => return ErrorCode::KafkaStorageError,
        Some(directory) => directory.id,
    };
    let Some(topic) = context.image().topic_by_name(topic).map(|topic| topic.id) else {
        return ErrorCode::ReplicaNotAvailable;
    };
    let place = TopicPartition { topic_id: topic, partition: index };
    let lanes = context.lane.lanes();
    let lies_in = lanes.call(lanes.owner(place), move |lane| {
        std::future::ready(lane.partition(place).map(|partition| partition.directory().id))
    });
    match lies_in.await {
        None => ErrorCode::ReplicaNotAvailable,
        Some(id) if id == wanted => ErrorCode::None,
        Some(_) => ErrorCode::InvalidRequest,
    }
}
