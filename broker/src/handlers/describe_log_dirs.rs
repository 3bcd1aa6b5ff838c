//! DescribeLogDirs (key 35): the log directory, its space, and the size of every replica in it.
//!
//! *Versions*: 1–4. Space from 4 on (KIP-827), a top-level error from 3 on.
//! *Differences from Kafka*: there is one directory; future replicas do not exist.

use std::collections::BTreeMap;

use stonelog_protocol::StrBytes;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use stonelog_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use stonelog_replication::runtime::find_offset::ReplicaSize;

use crate::request::RequestContext;

/// Answers a DescribeLogDirs request.
pub async fn handle(context: &RequestContext, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let node = &context.broker.node;
    let mut result =
        DescribeLogDirsResult::default().with_log_dir(StrBytes::from_string(node.log_dir.display().to_string()));
    if node.is_offline() {
        result.error_code = ErrorCode::KafkaStorageError.code();
        return DescribeLogDirsResponse::default().with_results(vec![result]);
    }
    let wanted: Option<BTreeMap<String, Vec<i32>>> = request
        .topics
        .map(|topics| topics.into_iter().map(|topic| (topic.topic.to_string(), topic.partitions)).collect());
    let lanes = context.lane.lanes();
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for lane in 0..lanes.count() {
        let sizes = lanes.call(lane, |lane| std::future::ready(lane.replica_sizes())).await;
        for ReplicaSize { topic, partition, bytes } in sizes {
            let asked = wanted
                .as_ref()
                .is_none_or(|wanted| wanted.get(&*topic).is_some_and(|partitions| partitions.contains(&partition.0)));
            if asked {
                topics.entry(topic.to_string()).or_default().push(
                    DescribeLogDirsPartition::default()
                        .with_partition_index(partition.0)
                        .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX)),
                );
            }
        }
    }
    for (name, mut partitions) in topics {
        partitions.sort_by_key(|partition| partition.partition_index);
        let name = StrBytes::from_string(name).into();
        result.topics.push(DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions));
    }
    if context.version() >= 4 {
        (result.total_bytes, result.usable_bytes) = space(&node.log_dir).unwrap_or((-1, -1));
    }
    DescribeLogDirsResponse::default().with_results(vec![result])
}

/// Total and usable bytes of the directory's file system.
fn space(path: &std::path::Path) -> Option<(i64, i64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX);
    Some((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}
