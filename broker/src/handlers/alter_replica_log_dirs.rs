//! AlterReplicaLogDirs (key 34): in which of this broker's directories replicas shall lie (KIP-113).
//!
//! *Behaviour*: a replica that lies there already is fine, one that is not on this broker (yet) is REPLICA_NOT_AVAILABLE,
//! a path that is none of the broker's LOG_DIR_NOT_FOUND. Kafka's reassignment tool asks this when it is given the
//! assignment that it printed for going back. *Versions*: 1–2.
//! *Differences from Kafka*: nothing is moved between directories, and where a replica that is still to come will lie is
//! the controller's choice: one that lies in another directory answers INVALID_REQUEST.

use std::collections::BTreeMap;
use std::rc::Rc;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use stonelog_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};
use stonelog_protocol::{DirectoryId, PartitionIndex, StrBytes, TopicPartition};
use stonelog_replication::runtime::lane::Lane;

use crate::request::RequestContext;

/// Partitions that a lane is asked about in one turn.
const AT_ONCE: usize = 1_024;

/// A replica that may be here.
struct Asked {
    /// Its topic's place in the answer, and its own there.
    place: (usize, usize),
    partition: TopicPartition,
    wanted: DirectoryId,
}

/// Answers an AlterReplicaLogDirs request.
pub async fn handle(context: &RequestContext, request: AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse {
    let (image, lanes, node) = (context.image(), context.lane.lanes(), &context.broker.node);
    let mut results: Vec<(String, Vec<AlterReplicaLogDirPartitionResult>)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut by_lane: BTreeMap<usize, Vec<Asked>> = BTreeMap::new();
    for directory in &request.dirs {
        let known = node.directories.iter().find(|known| known.path.display().to_string() == *directory.path);
        let wanted = match known {
            None => Err(ErrorCode::LogDirNotFound),
            Some(known) if known.is_offline() => Err(ErrorCode::KafkaStorageError),
            Some(known) => Ok(known.id),
        };
        for topic in &directory.topics {
            let found = image.topic_by_name(&topic.name).map(|topic| topic.id).ok_or(ErrorCode::ReplicaNotAvailable);
            let name = topic.name.to_string();
            let topic_place = *places.entry(name.clone()).or_insert(results.len());
            if topic_place == results.len() {
                results.push((name, Vec::new()));
            }
            let told = &mut results[topic_place].1;
            for index in &topic.partitions {
                let place = (topic_place, told.len());
                let error = match (wanted, found) {
                    (Err(error), _) | (_, Err(error)) => error,
                    (Ok(wanted), Ok(topic_id)) => {
                        let partition = TopicPartition { topic_id, partition: PartitionIndex(*index) };
                        by_lane.entry(lanes.owner(partition)).or_default().push(Asked { place, partition, wanted });
                        ErrorCode::UnknownServerError
                    }
                };
                let result = AlterReplicaLogDirPartitionResult::default().with_partition_index(*index);
                told.push(result.with_error_code(error.code()));
            }
        }
    }
    for (owner, asked) in by_lane {
        for some in asked.chunks(AT_ONCE) {
            let partitions: Vec<TopicPartition> = some.iter().map(|asked| asked.partition).collect();
            let look = move |lane: Rc<Lane>| {
                let lies_in = |id: TopicPartition| lane.partition(id).map(|partition| partition.directory().id);
                std::future::ready(partitions.into_iter().map(lies_in).collect::<Vec<_>>())
            };
            for (asked, lies_in) in some.iter().zip(lanes.call(owner, look).await) {
                let error = match lies_in {
                    None => ErrorCode::ReplicaNotAvailable,
                    Some(id) if id == asked.wanted => ErrorCode::None,
                    Some(_) => ErrorCode::InvalidRequest,
                };
                let (topic, place) = asked.place;
                results[topic].1[place].error_code = error.code();
            }
        }
    }
    let results = results.into_iter().map(|(topic, partitions)| {
        let name = StrBytes::from_string(topic).into();
        AlterReplicaLogDirTopicResult::default().with_topic_name(name).with_partitions(partitions)
    });
    AlterReplicaLogDirsResponse::default().with_results(results.collect())
}
