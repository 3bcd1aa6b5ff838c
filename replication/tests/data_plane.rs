//! The data plane on a real file system, without a network: started, written to, killed, stopped and started again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::{TopicId, Uuid};
use stonelog_replication::controller::{ControllerRequest, RegisterBrokerRequest};
use stonelog_replication::runtime::start::{self, StartOptions, Started};
use stonelog_storage::disk::RealDisk;
use stonelog_storage::log_dir::current_tenure;
use support::*;

/// Bytes of batches that all lanes hold in memory.
async fn held_bytes(broker: &Started) -> u64 {
    let mut held = 0;
    for lane in 0..broker.lanes.count() {
        let of_lane = broker.lanes.call(lane, |lane| {
            let partitions = lane.partitions();
            std::future::ready(partitions.iter().map(|partition| partition.replica().log.memory_bytes()).sum::<u64>())
        });
        held += of_lane.await;
    }
    held
}

#[tokio::test]
async fn lanes_at_rest_hold_no_batches_and_everything_is_still_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(Arc::new(RealDisk), vec![directory.path().to_owned()], Upkeep::AtOnce, 1);
    options.node.rest_after = Duration::from_millis(1);
    let broker = start::start(StartOptions { tenure_of: current_tenure, ..options }).await.unwrap();
    let topic = create_topic(&broker, "t").await;
    // Each batch is large enough to go to its segment at once.
    for numbers in [0..3, 3..5] {
        let count = numbers.end;
        produce_all(&broker, topic, numbers, 70 << 10).await;
        let rest = async {
            while held_bytes(&broker).await > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), rest).await.expect("nothing is kept at rest");
        assert_holds(&broker, topic, count, 70 << 10).await;
    }
    broker.stop().unwrap();
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_kill_and_after_a_stop() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = started(first.path(), Upkeep::OnlyForRoom, 1).await;
    assert!(broker.report.is_new_cluster);
    let topic = create_topic(&broker, "t").await;
    produce_all(&broker, topic, 0..15, 100).await;
    assert_holds(&broker, topic, 15, 100).await;
    // What a killed process leaves: the files as they are now, and nobody to finish anything.
    copy(first.path(), second.path());

    let after_kill = started(second.path(), Upkeep::OnlyForRoom, 2).await;
    assert!(!after_kill.report.is_new_cluster && after_kill.report.directories[0].replayed >= 60);
    assert!(after_kill.report.directories[0].journal_end.damage.is_empty());
    assert_eq!(after_kill.report.strays, Vec::<std::path::PathBuf>::new());
    assert_holds(&after_kill, topic, 15, 100).await;
    produce_all(&after_kill, topic, 15..25, 100).await;
    after_kill.stop().unwrap();

    let after_stop = started(second.path(), Upkeep::AtOnce, 3).await;
    assert_holds(&after_stop, topic, 25, 100).await;
    produce_all(&after_stop, topic, 25..26, 100).await;
    assert_holds(&after_stop, topic, 26, 100).await;
    after_stop.stop().unwrap();
    broker.stop().unwrap();
}

#[tokio::test]
async fn records_many_times_the_journal_pass_through_it_and_stay() {
    let directory = tempfile::tempdir().unwrap();
    let broker = started(directory.path(), Upkeep::OnlyForRoom, 1).await;
    let topic = create_topic(&broker, "t").await;
    // 6 MiB through a journal of 1 MiB: files are freed and used again, or this never ends.
    produce_all(&broker, topic, 0..96, 16 << 10).await;
    let usage = broker.node.directories[0].journal.maintenance().usage();
    assert!(usage.bytes_live <= JOURNAL.bytes_max, "{usage:?}");
    assert_holds(&broker, topic, 96, 16 << 10).await;
    broker.stop().unwrap();

    let again = started(directory.path(), Upkeep::AtOnce, 2).await;
    assert!(again.report.directories[0].replayed < 96 * PARTITIONS as u64, "what a checkpoint covers is not replayed");
    assert_holds(&again, topic, 96, 16 << 10).await;
    // Everything goes to segments; then the journal keeps only the file that is being written.
    produce_all(&again, topic, 96..110, 16 << 10).await;
    let node = Arc::clone(&again.node);
    eventually(|| node.directories[0].journal.maintenance().usage().bytes_live <= 2 * JOURNAL.file_bytes).await;
    assert_holds(&again, topic, 110, 16 << 10).await;
    again.stop().unwrap();
}

#[tokio::test]
async fn files_of_a_deleted_topic_go_though_nothing_else_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let broker = started(directory.path(), Upkeep::AtOnce, 1).await;
    let (gone, kept) = (create_topic(&broker, "gone").await, create_topic(&broker, "kept").await);
    produce_all(&broker, kept, 0..3, 100).await;
    produce_all(&broker, gone, 0..10, 16 << 10).await;
    let path = |topic: TopicId, index: i32| directory.path().join(format!("{topic}-{index}"));
    eventually(|| (0..PARTITIONS).all(|index| path(gone, index).exists())).await;
    delete_topic(&broker, "gone").await;
    assert!(produce(&broker, partition(gone, 0), vec![1]).await.is_err());
    eventually(|| (0..PARTITIONS).all(|index| !path(gone, index).exists())).await;
    broker.stop().unwrap();

    let again = started(directory.path(), Upkeep::AtOnce, 2).await;
    assert_eq!(again.report.strays, Vec::<std::path::PathBuf>::new());
    assert_holds(&again, kept, 3, 100).await;
    assert!(produce(&again, partition(gone, 0), vec![1]).await.is_err());
    again.stop().unwrap();
}

#[tokio::test]
async fn a_process_whose_place_another_one_takes_leads_nothing_under_the_new_epoch_and_has_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let broker = started(directory.path(), Upkeep::OnlyForRoom, 1).await;
    let topic = create_topic(&broker, "t").await;
    produce_all(&broker, topic, 0..3, 100).await;
    assert_eq!(broker.node.must_stop(), None);
    let mut news = broker.node.watch_failures();
    let image = broker.metadata.image();
    let request = RegisterBrokerRequest {
        id: broker.node.broker_id,
        cluster_id: image.cluster_id().unwrap().clone(),
        incarnation: Uuid([9; 16]),
        endpoints: Vec::new(),
        rack: None,
        directories: Vec::new(),
        differing: Vec::new(),
        replaces: Some(broker.node.broker_epoch),
    };
    broker.metadata.submit(ControllerRequest::RegisterBroker(request)).await.unwrap();
    news.changed().await.unwrap();
    let reason = broker.node.must_stop().unwrap();
    assert!(reason.contains("another process has registered broker 1"), "{reason}");
    for lane in 0..broker.lanes.count() {
        let index = broker.lanes.call(lane, |lane| std::future::ready(lane.image().index())).await;
        assert_eq!(index, image.index(), "lane {lane} has not gone on to the other process's epoch");
    }
    broker.stop().unwrap();
}
