//! Several log directories on one simulated disk: one fails or is missing, and the others go on.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{LeaderEpoch, Offset, TopicId};
use stonelog_replication::controller::{ConfigEdit, ConfigOperation, ControllerRequest, IncrementalAlterConfigs};
use stonelog_replication::metadata::ConfigResource;
use stonelog_replication::partition::Reject;
use stonelog_replication::runtime::start::{self, StartError, StartOptions, Started};
use stonelog_storage::disk::{Disk as _, SimDisk, SimFault, SimOperation, Tearing};
use stonelog_storage::log_dir::{LogDir, OFFLINE_NAME};
use stonelog_storage::small_file::write_small_file;
use support::*;

const A: &str = "/a";
const B: &str = "/b";

async fn start_on(disk: &SimDisk, paths: &[&str], start_number: u8) -> Result<Started, StartError> {
    let paths = paths.iter().map(PathBuf::from).collect();
    start::start(options(Arc::new(disk.clone()), paths, Upkeep::AtOnce, start_number)).await
}

/// The partitions of a topic that lie in a directory, by the image.
fn partitions_in(started: &Started, topic: TopicId, path: &str) -> Vec<i32> {
    let id = started.node.directories.iter().find(|directory| directory.path == Path::new(path)).unwrap().id;
    let image = started.metadata.image();
    let topic = image.topic_by_id(topic).unwrap();
    (0..)
        .zip(&topic.partitions)
        .filter(|(_, partition)| partition.directories == [id])
        .map(|(index, _)| index)
        .collect()
}

async fn code_of_read(started: &Started, topic: TopicId, index: i32) -> Option<ErrorCode> {
    let id = partition(topic, index);
    let led = started.lanes.call(started.lanes.owner(id), move |lane| {
        std::future::ready(lane.leading(id, LeaderEpoch::NONE).map(drop).err())
    });
    led.await.map(Reject::error_code)
}

async fn produces(started: &Started, topic: TopicId, index: i32) -> Result<(), ErrorCode> {
    produce(started, partition(topic, index), value(index, 0, 50)).await.map(drop)
}

/// A broker with both directories and a topic over them: where its partitions are.
async fn two(disk: &SimDisk) -> (Started, TopicId, Vec<i32>, Vec<i32>) {
    let started = start_on(disk, &[A, B], 1).await.unwrap();
    assert!(started.report.is_new_cluster);
    let topic = create_topic(&started, "t").await;
    let (in_a, in_b) = (partitions_in(&started, topic, A), partitions_in(&started, topic, B));
    assert_eq!((in_a.len(), in_b.len()), (2, 2), "the emptiest directory gets the next partition");
    for index in 0..PARTITIONS {
        produces(&started, topic, index).await.unwrap();
    }
    (started, topic, in_a, in_b)
}

#[tokio::test]
async fn a_failing_directory_leaves_the_others_serving_and_stays_offline_until_it_is_reopened() {
    let disk = SimDisk::new();
    let (started, topic, in_a, in_b) = two(&disk).await;
    disk.fail(SimOperation::SyncData, "/b/journal", 0, SimFault::InputOutput);
    // In flight when it fails: it may be there after a restart.
    assert_eq!(produces(&started, topic, in_b[0]).await, Err(ErrorCode::RequestTimedOut));
    for index in &in_b {
        assert_eq!(produces(&started, topic, *index).await, Err(ErrorCode::KafkaStorageError));
        assert_eq!(code_of_read(&started, topic, *index).await, Some(ErrorCode::KafkaStorageError));
    }
    for index in &in_a {
        produces(&started, topic, *index).await.unwrap();
    }
    assert_eq!(started.node.must_stop(), None);
    let b = started.node.directories[1].id;
    eventually(|| !started.metadata.image().broker(started.node.broker_id).unwrap().has_directory(b)).await;
    let image = started.metadata.image();
    for index in 0..PARTITIONS {
        let leads = image.partition(partition(topic, index)).unwrap().leader.is_some();
        assert_eq!(leads, in_a.contains(&index), "partition {index}");
    }
    // New partitions go where there is a directory.
    let other = create_topic(&started, "other").await;
    for index in 0..PARTITIONS {
        produces(&started, other, index).await.unwrap();
    }
    started.stop().unwrap();

    // The fsync would say OK by now; nobody asks it.
    let again = start_on(&disk, &[A, B], 2).await.unwrap();
    assert!(again.report.absent[0].reason.contains("stonelog storage reopen /b"), "{:?}", again.report.absent);
    assert_eq!(code_of_read(&again, topic, in_b[0]).await, Some(ErrorCode::KafkaStorageError));
    assert_eq!(code_of_read(&again, topic, in_a[0]).await, None);
    again.stop().unwrap();

    let (directory, _) = LogDir::open(Arc::new(disk.clone()), Path::new(B)).unwrap();
    directory.settle_failure().unwrap();
    drop(directory);
    let whole = start_on(&disk, &[A, B], 3).await.unwrap();
    assert!(whole.report.absent.is_empty());
    for index in 0..PARTITIONS {
        assert!(!read_values(&whole, partition(topic, index)).await.is_empty(), "partition {index} is back");
        produces(&whole, topic, index).await.unwrap();
    }
    whole.stop().unwrap();
}

#[tokio::test]
async fn a_directory_that_takes_no_marker_is_remembered_by_its_neighbour() {
    let disk = SimDisk::new();
    let (started, topic, _, in_b) = two(&disk).await;
    disk.fail(SimOperation::Create, "/b/.stonelog_offline", 0, SimFault::InputOutput);
    disk.fail(SimOperation::Write, "/b/journal", 0, SimFault::InputOutput);
    assert!(produces(&started, topic, in_b[0]).await.is_err());
    started.stop().unwrap();
    assert!(!disk.exists(&Path::new(B).join(OFFLINE_NAME)).unwrap());

    let again = start_on(&disk, &[A, B], 2).await.unwrap();
    assert_eq!(again.report.absent[0].path, Path::new(B));
    again.stop().unwrap();
    let (directory, _) = LogDir::open(Arc::new(disk.clone()), Path::new(B)).unwrap();
    directory.settle_failure().unwrap();
    drop(directory);
    let whole = start_on(&disk, &[A, B], 3).await.unwrap();
    assert!(whole.report.absent.is_empty(), "{:?}", whole.report.absent);
    whole.stop().unwrap();
}

#[tokio::test]
async fn a_reopened_directory_comes_back_whatever_its_neighbour_says_and_may_fail_again() {
    let disk = SimDisk::new();
    let (started, topic, _, in_b) = two(&disk).await;
    let b = started.node.directories[1].id;
    started.stop().unwrap();
    disk.kill();
    // Under an epoch that B, whose newest identity the failure took, has not heard of; and one that nobody can read.
    for text in ["1000000\nfdatasync: EIO\n", "?"] {
        let name = format!("{OFFLINE_NAME}-{b}");
        write_small_file(&disk, Path::new(A), &name, text.as_bytes()).unwrap();
        let without = start_on(&disk, &[A, B], 2).await.unwrap();
        assert_eq!(without.report.absent[0].path, Path::new(B));
        without.stop().unwrap();
        disk.kill();
        let (directory, _) = LogDir::open(Arc::new(disk.clone()), Path::new(B)).unwrap();
        directory.settle_failure().unwrap();
        drop(directory);
        // What fails before it is in use again is not settled.
        disk.fail(SimOperation::Create, "/b/.stonelog_offline", 0, SimFault::InputOutput);
        disk.fail(SimOperation::SyncData, "/b/journal", 0, SimFault::InputOutput);
        for number in 3..5 {
            let without = start_on(&disk, &[A, B], number).await.unwrap();
            assert_eq!(without.report.absent[0].path, Path::new(B));
            without.stop().unwrap();
            disk.kill();
        }
        let (directory, _) = LogDir::open(Arc::new(disk.clone()), Path::new(B)).unwrap();
        directory.settle_failure().unwrap();
        drop(directory);
        let whole = start_on(&disk, &[A, B], 5).await.unwrap();
        assert!(whole.report.absent.is_empty(), "{:?}", whole.report.absent);
        // Nor is what fails later, though the broker's epoch is lower than what was settled.
        disk.fail(SimOperation::Create, "/b/.stonelog_offline", 0, SimFault::InputOutput);
        disk.fail(SimOperation::Write, "/b/journal", 0, SimFault::InputOutput);
        assert!(produces(&whole, topic, in_b[0]).await.is_err());
        whole.stop().unwrap();
        disk.kill();
        let without = start_on(&disk, &[A, B], 6).await.unwrap();
        assert_eq!(without.report.absent.len(), 1, "its neighbour remembers");
        without.stop().unwrap();
        disk.kill();
        let (directory, _) = LogDir::open(Arc::new(disk.clone()), Path::new(B)).unwrap();
        directory.settle_failure().unwrap();
        drop(directory);
        start_on(&disk, &[A, B], 7).await.unwrap().stop().unwrap();
        disk.kill();
    }
}

#[tokio::test]
async fn a_device_that_fails_while_the_epoch_is_recorded_is_not_asked_again() {
    let disk = SimDisk::new();
    let (started, topic, in_a, _) = two(&disk).await;
    started.stop().unwrap();
    disk.kill();
    // The next fsync says OK, and the bytes are gone.
    disk.fail(SimOperation::SyncData, "/b/meta.properties", 0, SimFault::LosesBytes);
    assert!(start_on(&disk, &[A, B], 2).await.is_err());
    disk.kill();
    let without = start_on(&disk, &[A, B], 3).await.unwrap();
    assert!(without.report.absent[0].reason.contains("stonelog storage reopen /b"), "{:?}", without.report.absent);
    produces(&without, topic, in_a[0]).await.unwrap();
    without.stop().unwrap();
}

#[tokio::test]
async fn a_directory_that_fails_while_it_is_settled_stops_nobody_else() {
    let disk = SimDisk::new();
    let (started, topic, in_a, _) = two(&disk).await;
    started.stop().unwrap();
    disk.kill();
    let (directory, _) = LogDir::open(Arc::new(disk.clone()), Path::new(B)).unwrap();
    directory.settle_failure().unwrap();
    drop(directory);
    for operation in [SimOperation::Create, SimOperation::Rename] {
        disk.fail(operation, "/b/.stonelog_reopened", 0, SimFault::InputOutput);
        let without = start_on(&disk, &[A, B], 2).await.unwrap();
        assert_eq!(without.report.absent[0].path, Path::new(B), "{operation:?}");
        produces(&without, topic, in_a[0]).await.unwrap();
        without.stop().unwrap();
        disk.kill();
    }
    let whole = start_on(&disk, &[A, B], 3).await.unwrap();
    assert!(whole.report.absent.is_empty(), "{:?}", whole.report.absent);
    whole.stop().unwrap();
}

#[tokio::test]
async fn a_directory_missing_at_the_start_is_absent_and_nothing_of_it_is_made_elsewhere() {
    let disk = SimDisk::new();
    let (started, topic, in_a, in_b) = two(&disk).await;
    started.stop().unwrap();
    disk.kill();
    disk.rename(Path::new(B), Path::new("/unmounted")).unwrap();

    let without = start_on(&disk, &[A, B], 2).await.unwrap();
    assert!(!without.report.is_new_cluster && without.report.absent[0].reason.contains("does not exist"));
    for index in &in_b {
        assert_eq!(produces(&without, topic, *index).await, Err(ErrorCode::KafkaStorageError));
    }
    for index in &in_a {
        produces(&without, topic, *index).await.unwrap();
    }
    assert!(!disk.exists(Path::new(B)).unwrap());
    without.stop().unwrap();
    disk.kill();

    disk.rename(Path::new("/unmounted"), Path::new(B)).unwrap();
    let whole = start_on(&disk, &[A, B], 3).await.unwrap();
    assert!(whole.report.strays.is_empty(), "{:?}", whole.report.strays);
    for index in 0..PARTITIONS {
        assert!(!read_values(&whole, partition(topic, index)).await.is_empty());
        produces(&whole, topic, index).await.unwrap();
    }
    whole.stop().unwrap();
}

#[tokio::test]
async fn an_empty_directory_in_place_of_one_with_data_is_a_new_one() {
    let disk = SimDisk::new();
    let (started, topic, _, in_b) = two(&disk).await;
    started.stop().unwrap();
    disk.kill();
    disk.rename(Path::new(B), Path::new("/unmounted")).unwrap();
    disk.create_dir(Path::new(B)).unwrap();
    let replaced = start_on(&disk, &[A, B], 2).await.unwrap();
    assert!(!replaced.report.is_new_cluster);
    assert_eq!(produces(&replaced, topic, in_b[0]).await, Err(ErrorCode::KafkaStorageError), "absent, not empty");
    let other = create_topic(&replaced, "other").await;
    assert_eq!(partitions_in(&replaced, other, B).len(), PARTITIONS as usize - 1, "the emptiest gets them");
    replaced.stop().unwrap();
}

#[tokio::test]
async fn without_the_metadata_log_the_start_is_refused() {
    let disk = SimDisk::new();
    let (started, ..) = two(&disk).await;
    started.stop().unwrap();
    disk.kill();
    disk.rename(Path::new(A), Path::new("/unmounted")).unwrap();
    let refused = start_on(&disk, &[A, B], 2).await.err().unwrap();
    assert!(matches!(refused, StartError::MetadataAbsent { .. }), "{refused}");
    assert!(refused.to_string().contains("/a: the directory does not exist"), "{refused}");
    disk.kill();
    // An empty one in its place is no new cluster either.
    disk.create_dir(Path::new(A)).unwrap();
    let refused = start_on(&disk, &[A, B], 3).await.err().unwrap();
    assert!(matches!(refused, StartError::MetadataAbsent { .. }), "{refused}");
}

#[tokio::test]
async fn the_last_directory_stops_the_broker_and_the_next_start_says_what_to_run() {
    let disk = SimDisk::new();
    let started = start_on(&disk, &[A], 1).await.unwrap();
    let topic = create_topic(&started, "t").await;
    produces(&started, topic, 0).await.unwrap();
    let mut failures = started.node.watch_failures();
    disk.fail(SimOperation::SyncData, "/a/journal", 0, SimFault::InputOutput);
    assert!(produces(&started, topic, 0).await.is_err());
    failures.changed().await.unwrap();
    assert!(started.node.must_stop().unwrap().contains("the last log directory has failed, /a: fdatasync"));
    started.stop().unwrap();
    let refused = start_on(&disk, &[A], 2).await.err().unwrap();
    assert!(matches!(refused, StartError::AllAbsent(_)), "{refused}");
    assert!(refused.to_string().contains("stonelog storage reopen /a"), "{refused}");
}

async fn set(started: &Started, topic: &str, key: &str, value: &str) {
    let edit = ConfigEdit { key: key.into(), operation: ConfigOperation::Set, value: Some(value.into()) };
    let resources = vec![(ConfigResource::Topic(topic.into()), vec![edit])];
    let request = IncrementalAlterConfigs { resources, validate_only: false };
    started.metadata.submit(ControllerRequest::IncrementalAlterConfigs(request)).await.unwrap();
    applied(started).await;
}

#[tokio::test]
async fn a_topic_changes_and_goes_though_some_of_it_lies_in_a_failed_directory() {
    let disk = SimDisk::new();
    let (started, topic, in_a, in_b) = two(&disk).await;
    disk.fail(SimOperation::SyncData, "/b/journal", 0, SimFault::InputOutput);
    assert!(produces(&started, topic, in_b[0]).await.is_err());
    for messages in ["1000", "1", "1000"] {
        set(&started, "t", "flush.messages", messages).await;
    }
    produces(&started, topic, in_a[0]).await.unwrap();
    delete_topic(&started, "t").await;
    let other = create_topic(&started, "other").await;
    produces(&started, other, 0).await.unwrap();
    started.stop().unwrap();
}

#[tokio::test]
async fn files_go_though_the_checkpoint_that_lets_them_go_found_no_space_at_first() {
    let disk = SimDisk::new();
    let started = start_on(&disk, &[A], 1).await.unwrap();
    let topic = create_topic_with(&started, "t", &[("segment.bytes", "1048576")]).await;
    let id = partition(topic, 0);
    for record in 0..30 {
        produce(&started, id, value(0, record, 50 << 10)).await.unwrap();
    }
    let segments = || {
        let names = disk.list(&Path::new(A).join(id.to_string())).unwrap_or_default();
        names.iter().filter(|entry| entry.name.ends_with(".log")).count()
    };
    eventually(|| segments() == 2).await;
    // One may strike a checkpoint that is still on its way, the other cannot.
    for _ in 0..2 {
        disk.fail(SimOperation::Allocate, "checkpoint", 0, SimFault::StorageFull);
    }
    let raised = started.lanes.call(started.lanes.owner(id), move |lane| lane.delete_records(id, Offset::NONE)).await;
    assert_eq!(raised.unwrap(), Offset(30));
    // All of them, also the one that a flush was still writing when its last record was deleted.
    eventually(|| segments() == 0).await;
    assert_eq!(disk.waiting_faults(), 0);
    started.stop().unwrap();
}

#[tokio::test]
async fn a_log_whose_topic_went_while_its_directory_was_away_is_put_aside_with_what_the_journal_held() {
    let disk = SimDisk::new();
    let paths = || vec![PathBuf::from(A), PathBuf::from(B)];
    // Nothing goes to segments by itself.
    let options_of = |number| options(Arc::new(disk.clone()), paths(), Upkeep::OnlyForRoom, number);
    let started = start::start(options_of(1)).await.unwrap();
    let topic = create_topic(&started, "t").await;
    let in_b = partitions_in(&started, topic, B);
    for index in 0..PARTITIONS {
        produces(&started, topic, index).await.unwrap();
    }
    disk.fail(SimOperation::Write, "/b/journal", 0, SimFault::InputOutput);
    assert!(produces(&started, topic, in_b[0]).await.is_err());
    delete_topic(&started, "t").await;
    started.stop().unwrap();
    let (directory, _) = LogDir::open(Arc::new(disk.clone()), Path::new(B)).unwrap();
    directory.settle_failure().unwrap();
    drop(directory);

    let again = start::start(options_of(2)).await.unwrap();
    let mut kept: Vec<_> = again.report.strays.iter().filter(|path| path.starts_with(B)).collect();
    kept.sort();
    assert_eq!(kept.len(), in_b.len(), "{:?}", again.report.strays);
    for (path, index) in kept.into_iter().zip(&in_b) {
        assert!(path.to_str().unwrap().ends_with(".stray"));
        let log = disk.contents(&path.join("00000000000000000000.log"));
        let held = value(*index, 0, 50);
        assert!(log.windows(held.len()).any(|bytes| bytes == held), "{} lacks its record", path.display());
    }
    // A start that ends before its first checkpoint finds the logs in the journal once more.
    let after = disk.fork();
    again.stop().unwrap();
    after.crash(3, Tearing::Sectors);
    let third = start::start(StartOptions { disk: Arc::new(after.clone()), ..options_of(3) }).await.unwrap();
    assert!(third.report.absent.is_empty() && !third.node.directories[1].is_offline());
    third.stop().unwrap();
}

#[tokio::test]
async fn a_directory_that_fails_in_recovery_and_takes_no_marker_is_remembered_by_its_neighbour() {
    let disk = SimDisk::new();
    let (started, ..) = two(&disk).await;
    started.stop().unwrap();
    disk.kill();
    disk.fail(SimOperation::Create, "/b/.stonelog_offline", 0, SimFault::InputOutput);
    disk.fail(SimOperation::SyncData, "/b/journal", 0, SimFault::InputOutput);
    let without = start_on(&disk, &[A, B], 2).await.unwrap();
    assert_eq!(without.report.absent[0].path, Path::new(B));
    without.stop().unwrap();
    assert!(!disk.exists(&Path::new(B).join(OFFLINE_NAME)).unwrap());
    disk.kill();

    // The fsync would say OK by now.
    let again = start_on(&disk, &[A, B], 3).await.unwrap();
    assert!(again.report.absent[0].reason.contains("stonelog storage reopen /b"), "{:?}", again.report.absent);
    again.stop().unwrap();
    disk.kill();
    let (directory, _) = LogDir::open(Arc::new(disk.clone()), Path::new(B)).unwrap();
    directory.settle_failure().unwrap();
    drop(directory);
    let whole = start_on(&disk, &[A, B], 4).await.unwrap();
    assert!(whole.report.absent.is_empty(), "{:?}", whole.report.absent);
    whole.stop().unwrap();
}
