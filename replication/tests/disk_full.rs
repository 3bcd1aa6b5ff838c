//! A log directory that fills up, on the simulated disk: producers are refused before anything is stored, internal
//! topics and metadata go on, what was appended is acknowledged, and room brings everything back without a restart.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stonelog_protocol::TopicId;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_replication::partition::{Acks, Reject};
use stonelog_replication::runtime::lane::Append;
use stonelog_replication::runtime::node::NodeSettings;
use stonelog_replication::runtime::space::Room;
use stonelog_replication::runtime::start::{self, StartOptions, Started};
use stonelog_storage::disk::{Disk as _, SimDisk};
use support::*;

const D: &str = "/d";
const VALUE_BYTES: usize = 16 << 10;

async fn start_on(disk: &SimDisk, free_bytes_min: u64, start_number: u8) -> Started {
    let options = options(Arc::new(disk.clone()), vec![PathBuf::from(D)], Upkeep::AtOnce, start_number);
    let node = NodeSettings { free_bytes_min, ..options.node.clone() };
    start::start(StartOptions { node, ..options }).await.unwrap()
}

fn room(started: &Started) -> Room {
    started.node.directories[0].space.room()
}

/// Leaves so much free, from now on.
fn leave_free(disk: &SimDisk, bytes: u64) {
    disk.set_capacity(Some(u64::MAX));
    let space = disk.space(Path::new(D)).unwrap();
    disk.set_capacity(Some(space.total_bytes - space.usable_bytes + bytes));
}

/// Produces to partition 0 until it is refused; how many were acknowledged.
async fn produce_until_refused(started: &Started, topic: TopicId, from: i64) -> i64 {
    for number in from.. {
        match produce(started, partition(topic, 0), value(0, number, VALUE_BYTES)).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, ErrorCode::KafkaStorageError);
                return number;
            }
        }
        assert!(number < 10_000, "the disk never fills up");
    }
    unreachable!("it returns when it is refused")
}

#[tokio::test]
async fn a_full_disk_refuses_producers_loses_nothing_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new();
    let started = start_on(&disk, 0, 1).await;
    let topic = create_topic(&started, "t").await;
    produce(&started, partition(topic, 0), value(0, 0, VALUE_BYTES)).await.unwrap();
    leave_free(&disk, 2 << 20);
    let acknowledged = produce_until_refused(&started, topic, 1).await;
    assert!(room(&started) >= Room::Full);
    // Reads go on, internal topics and metadata too, with the journal files that there are.
    assert_eq!(read_values(&started, partition(topic, 0)).await.len() as i64, acknowledged);
    let internal = create_topic(&started, "__consumer_offsets").await;
    produce(&started, partition(internal, 0), value(0, 0, 100)).await.unwrap();

    disk.set_capacity(None);
    eventually(|| room(&started) == Room::Ample).await;
    produce(&started, partition(topic, 0), value(0, acknowledged, VALUE_BYTES)).await.unwrap();
    started.stop().unwrap();
    disk.kill();
    let again = start_on(&disk, 0, 2).await;
    let values = read_values(&again, partition(topic, 0)).await;
    let expected: Vec<_> = (0..=acknowledged).map(|number| value(0, number, VALUE_BYTES)).collect();
    assert!(values == expected, "{} of {} records", values.len(), expected.len());
    again.stop().unwrap();
}

#[tokio::test]
async fn below_the_watermark_producers_are_refused_and_the_rest_is_for_internal_topics() {
    let disk = SimDisk::new();
    let started = start_on(&disk, 32 << 20, 1).await;
    let (topic, internal) = (create_topic(&started, "t").await, create_topic(&started, "__consumer_offsets").await);
    produce(&started, partition(topic, 0), value(0, 0, 100)).await.unwrap();
    leave_free(&disk, 31 << 20);
    eventually(|| room(&started) == Room::Low).await;
    let refused = produce(&started, partition(topic, 0), value(0, 1, 100)).await;
    assert_eq!(refused, Err(ErrorCode::KafkaStorageError));
    for number in 0..100 {
        produce(&started, partition(internal, 0), value(0, number, VALUE_BYTES)).await.unwrap();
    }
    leave_free(&disk, 64 << 20);
    eventually(|| room(&started) == Room::Ample).await;
    produce(&started, partition(topic, 0), value(0, 1, 100)).await.unwrap();
    assert_eq!(read_values(&started, partition(topic, 0)).await.len(), 2, "what was refused was not stored");
    started.stop().unwrap();
}

#[tokio::test]
async fn a_start_on_a_full_disk_serves_what_there_is() {
    let disk = SimDisk::new();
    let started = start_on(&disk, 0, 1).await;
    let topic = create_topic(&started, "t").await;
    leave_free(&disk, 2 << 20);
    let acknowledged = produce_until_refused(&started, topic, 0).await;
    drop(started.stop());
    disk.kill();
    let again = start_on(&disk, 0, 2).await;
    assert_eq!(read_values(&again, partition(topic, 0)).await.len() as i64, acknowledged);
    disk.set_capacity(None);
    eventually(|| room(&again) == Room::Ample).await;
    produce(&again, partition(topic, 0), value(0, acknowledged, VALUE_BYTES)).await.unwrap();
    again.stop().unwrap();
}

#[tokio::test]
async fn internal_topics_on_a_full_disk_are_refused_before_memory_is() {
    let disk = SimDisk::new();
    let started = start_on(&disk, 0, 1).await;
    let internal = create_topic(&started, "__consumer_offsets").await;
    let id = partition(internal, 0);
    produce(&started, id, value(0, 0, 100)).await.unwrap();
    leave_free(&disk, 0);
    let node = Arc::clone(&started.node);
    // One turn of a lane: nothing becomes written meanwhile, let alone flushed.
    let appends = started.lanes.call(started.lanes.owner(id), move |lane| {
        let append = |number: i64| {
            let batch = batch_of(&value(0, number, VALUE_BYTES));
            let header = BatchHeader::read(&batch).unwrap();
            lane.append(Append { partition: id, batch, header, acks: Acks::All })
        };
        let refused = (1..1000).find_map(|number| append(number).err());
        std::future::ready((refused, node.directories[0].unflushed_bytes.load(Ordering::Relaxed)))
    });
    let (refused, unflushed) = appends.await;
    assert_eq!(refused, Some(Reject::NoSpace));
    assert!(unflushed < 1 << 20, "{unflushed} bytes are kept in memory");
    disk.set_capacity(None);
    // What was admitted is written, and then it goes on.
    let goes_on = async {
        let mut number = 1;
        while produce(&started, id, value(0, number, VALUE_BYTES)).await.is_err() {
            number += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), goes_on).await.expect("there is space again");
    started.stop().unwrap();
}
