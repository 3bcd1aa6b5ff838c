//! What the data plane's tests share: a lone node without a network, topics, appends and reads.

#![allow(dead_code, reason = "each test target uses its part")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::batch::build::{BatchBuilder, NewRecord};
use stonelog_protocol::batch::records::Records;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId, TopicPartition};
use stonelog_replication::controller::{
    ControllerRequest, ControllerResponse, CreateTopics, Defaults, DeleteTopics, NewTopic, SettingsRules,
    TopicReference,
};
use stonelog_replication::metadata::{Endpoint, SecurityProtocol};
use stonelog_replication::partition::Acks;
use stonelog_replication::runtime::lane::Append;
use stonelog_replication::runtime::node::NodeSettings;
use stonelog_replication::runtime::read::{ReadRequest, Reader};
use stonelog_replication::runtime::start::{self, Random, StartOptions, Started};
use stonelog_storage::disk::{Disk, RealDisk};
use stonelog_storage::journal::JournalOptions;
use stonelog_storage::log_dir::{Tenure, current_tenure};

pub(crate) const PARTITIONS: i32 = 4;
/// Small enough that a test of a few megabytes goes round it several times.
pub(crate) const JOURNAL: JournalOptions = JournalOptions {
    file_bytes: 256 << 10,
    first_file_bytes: 64 << 10,
    commit_bytes_max: 64 << 10,
    bytes_max: 1 << 20,
};
pub(crate) const NEVER: Duration = Duration::from_secs(24 * 3600);

/// How soon batches go to segments, and segments into a checkpoint.
#[derive(Clone, Copy)]
pub(crate) enum Upkeep {
    AtOnce,
    OnlyForRoom,
}

pub(crate) async fn started(directory: &Path, upkeep: Upkeep, start_number: u8) -> Started {
    let options = options(Arc::new(RealDisk), vec![directory.to_owned()], upkeep, start_number);
    start::start(StartOptions { tenure_of: current_tenure, ..options }).await.unwrap()
}

/// Options for any disk; the tenure is always the same.
pub(crate) fn options(disk: Arc<dyn Disk>, log_dirs: Vec<PathBuf>, upkeep: Upkeep, start_number: u8) -> StartOptions {
    let after = match upkeep {
        Upkeep::AtOnce => Duration::from_millis(1),
        Upkeep::OnlyForRoom => NEVER,
    };
    StartOptions {
        disk,
        log_dirs,
        metadata_place: 0,
        node_id: BrokerId(1),
        cluster_id: None,
        rack: None,
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 1,
            protocol: SecurityProtocol::Plaintext,
        }],
        journal: JOURNAL,
        lanes: 2,
        node: NodeSettings {
            broker_defaults: BTreeMap::new(),
            tail_bytes_max: 256 << 10,
            unflushed_bytes_max: 512 << 10,
            hangs_after: NEVER,
            free_bytes_min: 0,
            entry_bytes_max: JOURNAL.entry_bytes_max(),
            flush_after: after,
            checkpoint_after: after,
            rest_after: NEVER,
            retention_check_every: NEVER,
            producer_id_expiration: NEVER,
            scrub: None,
        },
        progress: Arc::default(),
        cluster: None,
        rules: Arc::new(SettingsRules { static_broker: BTreeMap::new(), broker_key: |_| None, group_key: |_| None }),
        defaults: Defaults::default(),
        random: Random {
            cluster: [start_number; 16],
            directory: [start_number + 50; 16],
            incarnation: [start_number + 100; 16],
        },
        tenure_of: |_| Ok(Tenure { boot_id: [1; 16], mount_id: Some(1) }),
    }
}

pub(crate) async fn create_topic(started: &Started, name: &str) -> TopicId {
    create_topic_with(started, name, &[]).await
}

pub(crate) async fn create_topic_with(started: &Started, name: &str, configs: &[(&str, &str)]) -> TopicId {
    let topic = NewTopic {
        name: name.into(),
        partitions: PARTITIONS,
        replication_factor: 1,
        assignments: Vec::new(),
        configs: configs.iter().map(|(key, value)| (key.to_string(), Some(value.to_string()))).collect(),
    };
    let request = CreateTopics { topics: vec![topic], validate_only: false };
    let created = match started.metadata.submit(ControllerRequest::CreateTopics(request)).await.unwrap() {
        ControllerResponse::CreateTopics(mut results) => results.remove(0).result.unwrap().id,
        other => panic!("{other:?}"),
    };
    applied(started).await;
    created
}

pub(crate) async fn delete_topic(started: &Started, name: &str) {
    let request = DeleteTopics { topics: vec![TopicReference::Name(name.into())] };
    started.metadata.submit(ControllerRequest::DeleteTopics(request)).await.unwrap();
    applied(started).await;
}

pub(crate) async fn applied(started: &Started) {
    let index = started.metadata.image().index();
    for lane in 0..started.lanes.count() {
        started.lanes.call(lane, move |lane| lane.applied(index)).await;
    }
}

pub(crate) fn partition(topic_id: TopicId, index: i32) -> TopicPartition {
    TopicPartition { topic_id, partition: PartitionIndex(index) }
}

/// A record that says which one it is.
pub(crate) fn value(partition: i32, number: i64, bytes: usize) -> Vec<u8> {
    let mut value = format!("{partition}/{number}/").into_bytes();
    value.resize(bytes, b'.');
    value
}

/// A batch of one record.
pub(crate) fn batch_of(value: &[u8]) -> BytesMut {
    let mut builder = BatchBuilder::new();
    builder.push(NewRecord::new(Timestamp(1_700_000_000_000), None, Some(value)));
    BytesMut::from(&builder.build().unwrap()[..])
}

/// Appends one record and waits for its acknowledgement.
pub(crate) async fn produce(started: &Started, to: TopicPartition, value: Vec<u8>) -> Result<Offset, ErrorCode> {
    let batch = batch_of(&value);
    let deadline = started.node.clock.mono() + Duration::from_secs(60);
    let owner = started.lanes.owner(to);
    started.lanes.call(owner, move |lane| async move { lane.room_for(&[to]).await }).await;
    let produced = started.lanes.call(owner, move |lane| {
        let header = BatchHeader::read(&batch).unwrap();
        let appended = lane.append(Append { partition: to, batch, header, acks: Acks::All });
        async move {
            let appended = appended.map_err(|reject| reject.error_code())?;
            lane.acknowledged(appended, deadline).await?;
            Ok(appended.base_offset)
        }
    });
    produced.await
}

/// Appends records `numbers` to every partition, the partitions at the same time, each in order.
pub(crate) async fn produce_all(started: &Started, topic: TopicId, numbers: std::ops::Range<i64>, value_bytes: usize) {
    let one = |index: i32| {
        let numbers = numbers.clone();
        async move {
            for number in numbers {
                let produced = produce(started, partition(topic, index), value(index, number, value_bytes)).await;
                assert_eq!(produced, Ok(Offset(number)));
            }
        }
    };
    futures_util::future::join_all((0..PARTITIONS).map(one)).await;
}

/// Reads a partition from its start to its high watermark, in several reads.
pub(crate) async fn read_values(started: &Started, from: TopicPartition) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    loop {
        let request = ReadRequest {
            partition: from,
            fetch_offset: Offset(values.len() as i64),
            bytes_max: 64 << 10,
            current_leader_epoch: LeaderEpoch::NONE,
            last_fetched_epoch: LeaderEpoch::NONE,
        };
        let read = started
            .lanes
            .call(started.lanes.owner(from), move |lane| lane.read_all(Reader::OfLeader, vec![request], 64 << 10));
        let batches = read.await.remove(0).done.unwrap().batches;
        if batches.is_empty() {
            return values;
        }
        for mut bytes in batches {
            while !bytes.is_empty() {
                let header = BatchHeader::read(&bytes).unwrap();
                let batch = bytes.split_to(header.batch_bytes);
                assert_eq!(header.base_offset, Offset(values.len() as i64));
                for record in Records::new(&batch[stonelog_protocol::batch::HEADER_BYTES..], header.records_count) {
                    values.push(record.unwrap().value.unwrap().to_vec());
                }
            }
        }
    }
}

pub(crate) async fn assert_holds(started: &Started, topic: TopicId, count: i64, value_bytes: usize) {
    for index in 0..PARTITIONS {
        let expected: Vec<_> = (0..count).map(|number| value(index, number, value_bytes)).collect();
        let found = read_values(started, partition(topic, index)).await;
        assert!(found == expected, "partition {index}: {} of {} records as they were", found.len(), expected.len());
    }
}

/// Looks again until it is so.
pub(crate) async fn eventually(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.expect("it never came to be");
}

/// Attempts to copy a directory, each of which takes as long as the copy.
const COPIES_TRIED: usize = 2000;

/// Copies a directory at a moment at which nothing changes in it: what a process that is killed then leaves.
pub(crate) fn copy(from: &Path, to: &Path) {
    for _ in 0..COPIES_TRIED {
        let before = files(from);
        if let Some(before) = before
            && copy_once(from, to).is_ok()
            && files(from) == Some(before)
        {
            return;
        }
        // It may not be there yet.
        let _ = std::fs::remove_dir_all(to);
    }
    panic!("{} never rests", from.display());
}

fn copy_once(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_once(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Every file with its length and the moment it was written last; `None` when one went meanwhile.
fn files(directory: &Path) -> Option<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).ok()? {
        let entry = entry.ok()?;
        let about = entry.metadata().ok()?;
        if about.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.insert(entry.path(), (about.len(), about.modified().ok()?));
        }
    }
    Some(found)
}
