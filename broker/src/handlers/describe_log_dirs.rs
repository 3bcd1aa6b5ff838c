//! DescribeLogDirs (key 35): the log directories, their space, and the size of every replica in them.
//!
//! *Behaviour*: a directory that failed, or that this start could not use, has the error KAFKA_STORAGE_ERROR and nothing
//! else.
//!
//! *Versions*: 1–4. Space from 4 on (KIP-827), a top-level error from 3 on.
//! *Differences from Kafka*: future replicas do not exist.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

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
    let wanted: Option<HashMap<String, HashSet<i32>>> = request.topics.map(|topics| {
        let mut wanted: HashMap<String, HashSet<i32>> = HashMap::new();
        for topic in topics {
            wanted.entry(topic.topic.to_string()).or_default().extend(topic.partitions);
        }
        wanted
    });
    let mut sizes = Vec::new();
    let lanes = context.lane.lanes();
    for lane in 0..lanes.count() {
        sizes.extend(lanes.call(lane, |lane| std::future::ready(lane.replica_sizes())).await);
    }
    sizes.retain(|size| {
        let asked = |wanted: &HashMap<String, HashSet<i32>>| {
            wanted.get(&*size.topic).is_some_and(|partitions| partitions.contains(&size.partition.0))
        };
        wanted.as_ref().is_none_or(asked)
    });
    let online = node.online().map(|directory| {
        let here = sizes.iter().filter(|size| size.directory == directory.place);
        describe(context.version(), &directory.path, here)
    });
    let failed = node.directories.iter().filter(|directory| directory.is_offline()).map(|failed| &failed.path);
    let offline = failed.chain(node.absent.iter().map(|absent| &absent.path));
    let results = online.chain(offline.map(|path| offline_result(path))).collect();
    DescribeLogDirsResponse::default().with_results(results)
}

fn describe<'a>(version: i16, path: &Path, sizes: impl Iterator<Item = &'a ReplicaSize>) -> DescribeLogDirsResult {
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for size in sizes {
        let partition = DescribeLogDirsPartition::default()
            .with_partition_index(size.partition.0)
            .with_partition_size(i64::try_from(size.bytes).unwrap_or(i64::MAX));
        topics.entry(&size.topic).or_default().push(partition);
    }
    let mut result = named(path);
    for (name, mut partitions) in topics {
        partitions.sort_by_key(|partition| partition.partition_index);
        let name = StrBytes::from_string(name.to_owned()).into();
        result.topics.push(DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions));
    }
    if version >= 4 {
        (result.total_bytes, result.usable_bytes) = space(path).unwrap_or((-1, -1));
    }
    result
}

fn offline_result(path: &Path) -> DescribeLogDirsResult {
    named(path).with_error_code(ErrorCode::KafkaStorageError.code())
}

fn named(path: &Path) -> DescribeLogDirsResult {
    DescribeLogDirsResult::default().with_log_dir(StrBytes::from_string(path.display().to_string()))
}

/// Total and usable bytes of the directory's file system.
fn space(path: &Path) -> Option<(i64, i64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX);
    Some((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}
