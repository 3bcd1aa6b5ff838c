//! The cleaner on a real file system, without a network: a compacted topic shrinks while it is written, keeps the newest
//! record of each key, and is the same after a kill.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use stonelog_protocol::batch::build::{BatchBuilder, NewRecord};
use stonelog_protocol::batch::records::Records;
use stonelog_protocol::batch::{BatchHeader, HEADER_BYTES};
use stonelog_protocol::{LeaderEpoch, Offset, Timestamp, TopicId, TopicPartition};
use stonelog_replication::controller::{ControllerRequest, ControllerResponse, CreateTopics, NewTopic};
use stonelog_replication::partition::Acks;
use stonelog_replication::runtime::lane::Append;
use stonelog_replication::runtime::read::{ReadRequest, Reader};
use stonelog_replication::runtime::start::{self, StartOptions, Started};
use stonelog_storage::disk::RealDisk;
use stonelog_storage::log_dir::current_tenure;
use support::*;

/// So long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(120);
const KEYS: u8 = 10;
const VALUE_BYTES: usize = 4 << 10;

async fn broker(directory: &Path, start_number: u8, settings: &[(&str, &str)]) -> Started {
    let disk = std::sync::Arc::new(RealDisk);
    let mut options = options(disk, vec![directory.to_owned()], Upkeep::AtOnce, start_number);
    let settings = [("log.cleaner.backoff.ms", "5")].iter().chain(settings);
    options.node.broker_defaults = settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    start::start(StartOptions { tenure_of: current_tenure, ..options }).await.unwrap()
}

async fn compacted_topic(broker: &Started) -> TopicPartition {
    let configs = [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")];
    let topic = NewTopic {
        name: "t".into(),
        partitions: 1,
        replication_factor: 1,
        assignments: Vec::new(),
        configs: configs.map(|(key, value)| (key.into(), Some(value.into()))).into(),
    };
    let request = CreateTopics { topics: vec![topic], validate_only: false };
    let created: TopicId = match broker.metadata.submit(ControllerRequest::CreateTopics(request)).await.unwrap() {
        ControllerResponse::CreateTopics(mut results) => results.remove(0).result.unwrap().id,
        other => panic!("{other:?}"),
    };
    applied(broker).await;
    partition(created, 0)
}

async fn put(broker: &Started, to: TopicPartition, number: i64) {
    let key = [number as u8 % KEYS];
    let mut builder = BatchBuilder::new();
    builder.push(NewRecord::new(Timestamp(1_700_000_000_000), Some(&key), Some(&value(0, number, VALUE_BYTES))));
    let batch = BytesMut::from(&builder.build().unwrap()[..]);
    let deadline = broker.node.clock.mono() + Duration::from_secs(60);
    let owner = broker.lanes.owner(to);
    broker.lanes.call(owner, move |lane| async move { lane.room_for(&[to]).await }).await;
    let done = broker.lanes.call(owner, move |lane| {
        let header = BatchHeader::read(&batch).unwrap();
        let appended = lane.append(Append { partition: to, batch, header, acks: Acks::All }).unwrap();
        async move { lane.acknowledged(appended, deadline).await }
    });
    assert_eq!(done.await, Ok(()));
}

/// The newest number of each key, and how many records there are, as a consumer from the beginning sees them.
async fn newest(broker: &Started, from: TopicPartition) -> (BTreeMap<u8, i64>, usize) {
    let (mut newest, mut count, mut next) = (BTreeMap::new(), 0, Offset(0));
    loop {
        let request = ReadRequest {
            partition: from,
            fetch_offset: next,
            bytes_max: 64 << 10,
            current_leader_epoch: LeaderEpoch::NONE,
            last_fetched_epoch: LeaderEpoch::NONE,
        };
        let read = broker
            .lanes
            .call(broker.lanes.owner(from), move |lane| lane.read_all(Reader::OfLeader, vec![request], 64 << 10));
        let answer = read.await.remove(0);
        let batches = answer.done.unwrap().batches;
        if batches.is_empty() {
            assert_eq!(next, answer.progress.unwrap().high_watermark, "a reader comes to the end");
            return (newest, count);
        }
        for mut bytes in batches {
            while !bytes.is_empty() {
                let header = BatchHeader::read(&bytes).unwrap();
                let batch = bytes.split_to(header.batch_bytes);
                assert!(header.next_offset() > next);
                next = header.next_offset();
                for record in Records::new(&batch[HEADER_BYTES..], header.records_count) {
                    let record = record.unwrap();
                    let text = String::from_utf8_lossy(record.value.unwrap());
                    let number = text.split('/').nth(1).unwrap().parse().unwrap();
                    newest.insert(record.key.unwrap()[0], number);
                    count += 1;
                }
            }
        }
    }
}

fn expected(end: i64) -> BTreeMap<u8, i64> {
    (end - i64::from(KEYS)..end).map(|number| (number as u8 % KEYS, number)).collect()
}

fn log_files(directory: &Path, of: TopicPartition) -> Vec<(String, u64)> {
    let mut files: Vec<(String, u64)> = std::fs::read_dir(directory.join(of.to_string()))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().contains(".log"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.metadata().map_or(0, |meta| meta.len())))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_compacted_topic_shrinks_and_keeps_the_newest_of_each_key_also_after_a_kill() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let started = broker(first.path(), 1, &[]).await;
    let topic = compacted_topic(&started).await;
    // 6 MiB of ten keys.
    for number in 0..1_500 {
        put(&started, topic, number).await;
        if number % 500 == 499 {
            assert_eq!(newest(&started, topic).await.0, expected(number + 1));
        }
    }
    // All but the active segment and one clean one.
    let size = |broker: &Started| {
        let files = log_files(broker.node.directories[0].path.as_path(), topic);
        files.iter().map(|(_, bytes)| bytes).sum::<u64>()
    };
    eventually(|| size(&started) < 2_500_000).await;
    assert_eq!(newest(&started, topic).await.0, expected(1_500));
    copy(first.path(), second.path());
    started.stop().unwrap();

    let again = broker(second.path(), 2, &[]).await;
    let (found, count) = newest(&again, topic).await;
    assert_eq!(found, expected(1_500));
    assert!(count < 600, "{count} of 1,500 records are left");
    for number in 1_500..2_100 {
        put(&again, topic, number).await;
    }
    eventually(|| size(&again) < 2_500_000).await;
    assert_eq!(newest(&again, topic).await.0, expected(2_100));
    again.stop().unwrap();
}

#[tokio::test]
async fn a_cleaner_that_is_switched_off_compacts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let started = broker(directory.path(), 1, &[("log.cleaner.enable", "false")]).await;
    let topic = compacted_topic(&started).await;
    for number in 0..600 {
        put(&started, topic, number).await;
    }
    let due = move |lane: std::rc::Rc<stonelog_replication::runtime::lane::Lane>| {
        let partition = lane.partition(topic).unwrap();
        let now = lane.node().clock.wall();
        let due = partition.replica().log.compaction_due(now, partition.progress().last_stable_offset).is_some();
        std::future::ready(due)
    };
    let is_due = async {
        while !started.lanes.call(started.lanes.owner(topic), due).await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_due).await.expect("it is dirty enough");
    // Each waits for the disk: a cleaner would have looked many times.
    for number in 600..800 {
        put(&started, topic, number).await;
    }
    assert_eq!(newest(&started, topic).await.1, 800);
    assert!(log_files(directory.path(), topic).iter().all(|(name, _)| !name.contains(".1.")));
    started.stop().unwrap();
}

#[tokio::test]
async fn a_topic_deleted_while_it_is_compacted_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    // So slow that the compaction does not end by itself.
    let started = broker(directory.path(), 1, &[("log.cleaner.io.max.bytes.per.second", "200000")]).await;
    let topic = compacted_topic(&started).await;
    for number in 0..900 {
        put(&started, topic, number).await;
    }
    let compacting = move |lane: std::rc::Rc<stonelog_replication::runtime::lane::Lane>| {
        let partition = lane.partition(topic).unwrap();
        std::future::ready(partition.is_compacting())
    };
    let is_begun = async {
        while !started.lanes.call(started.lanes.owner(topic), compacting).await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_begun).await.expect("it is compacted");
    delete_topic(&started, "t").await;
    let path = directory.path().join(topic.to_string());
    eventually(|| !path.exists()).await;
    started.stop().unwrap();
}
