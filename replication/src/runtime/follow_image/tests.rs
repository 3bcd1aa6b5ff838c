//! Replicas that leave a lane and come back, on a lone node with a simulated disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::batch::build::{BatchBuilder, NewRecord};
use stonelog_protocol::{BrokerId, Offset, Timestamp};
use stonelog_storage::disk::{Disk, SimDisk};
use stonelog_storage::journal::JournalOptions;
use stonelog_storage::log_dir::Tenure;
use stonelog_storage::segment::SegmentFile;

use super::*;
use crate::controller::{ControllerRequest, ControllerResponse, CreateTopics, Defaults, NewTopic, SettingsRules};
use crate::metadata::{Endpoint, SecurityProtocol};
use crate::partition::Acks;
use crate::runtime::lane::Append;
use crate::runtime::node::NodeSettings;
use crate::runtime::start::{Random, StartOptions, Started, start};

const DIRECTORY: &str = "/d";
const NEVER: Duration = Duration::from_secs(24 * 3600);
const BATCHES: i64 = 8;

async fn started(disk: &SimDisk, start_number: u8, checkpoint_after: Duration) -> Started {
    let journal = JournalOptions {
        file_bytes: 256 << 10,
        first_file_bytes: 64 << 10,
        commit_bytes_max: 64 << 10,
        bytes_max: 8 << 20,
    };
    let options = StartOptions {
        disk: Arc::new(disk.clone()),
        cluster: None,
        log_dirs: vec![PathBuf::from(DIRECTORY)],
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
        journal,
        lanes: 1,
        node: NodeSettings {
            broker_defaults: BTreeMap::new(),
            tail_bytes_max: 256 << 10,
            unflushed_bytes_max: 4 << 20,
            hangs_after: NEVER,
            free_bytes_min: 0,
            entry_bytes_max: journal.entry_bytes_max(),
            flush_after: Duration::from_millis(1),
            checkpoint_after,
            rest_after: NEVER,
            retention_check_every: NEVER,
            producer_id_expiration: NEVER,
            scrub: None,
        },
        progress: Arc::default(),
        rules: Arc::new(SettingsRules { static_broker: BTreeMap::new(), broker_key: |_| None, group_key: |_| None }),
        defaults: Defaults::default(),
        random: Random {
            cluster: [start_number; 16],
            directory: [start_number + 50; 16],
            incarnation: [start_number + 100; 16],
        },
        tenure_of: |_| Ok(Tenure { boot_id: [1; 16], mount_id: Some(1) }),
    };
    start(options).await.unwrap()
}

async fn create_topic(started: &Started) -> TopicPartition {
    let topic = NewTopic {
        name: "t".into(),
        partitions: 1,
        replication_factor: 1,
        assignments: Vec::new(),
        configs: Default::default(),
    };
    let request = CreateTopics { topics: vec![topic], validate_only: false };
    let id = match started.metadata.submit(ControllerRequest::CreateTopics(request)).await.unwrap() {
        ControllerResponse::CreateTopics(mut results) => results.remove(0).result.unwrap().id,
        other => panic!("{other:?}"),
    };
    let index = started.metadata.image().index();
    started.lanes.call(0, move |lane| lane.applied(index)).await;
    TopicPartition { topic_id: id, partition: PartitionIndex(0) }
}

/// Appends some batches, and waits until all of them are in segments.
async fn fill(started: &Started, id: TopicPartition) {
    let appended = started.lanes.call(0, move |lane| {
        for _ in 0..BATCHES {
            let mut builder = BatchBuilder::new();
            builder.push(NewRecord::new(Timestamp(1_700_000_000_000), None, Some(&[7; 9000])));
            let batch = BytesMut::from(&builder.build().unwrap()[..]);
            let header = BatchHeader::read(&batch).unwrap();
            lane.append(Append { partition: id, batch, header, acks: Acks::All }).unwrap();
        }
        std::future::ready(())
    });
    appended.await;
    let is_flushed = move |lane: &Rc<Lane>| {
        let partition = lane.partition(id).unwrap();
        let log = &partition.replica().log;
        log.segments().last().is_some_and(|last| last.end == log.log_end())
    };
    eventually(started, is_flushed).await;
}

async fn eventually(started: &Started, is_so: impl Fn(&Rc<Lane>) -> bool + Clone + Send + 'static) {
    let waiting = async {
        loop {
            let is_so = is_so.clone();
            if started.lanes.call(0, move |lane| std::future::ready(is_so(&lane))).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.expect("it never came to be");
}

/// What the metadata say of the partition is applied again, as when it comes back to this broker.
fn comes_back(lane: &Rc<Lane>, id: TopicPartition) -> bool {
    let image = lane.image();
    lane.reconcile(&image, image.topic_by_id(id.topic_id).unwrap(), &mut Recovered::default());
    lane.partition(id).is_some()
}

async fn assert_files_are_there(disk: &SimDisk, started: &Started, id: TopicPartition) {
    let state = started.lanes.call(0, move |lane| {
        let partition = lane.partition(id).unwrap();
        let log = &partition.replica().log;
        let names: Vec<_> = log.segments().iter().map(|segment| segment.name()).collect();
        std::future::ready((log.log_end(), names))
    });
    let (end, names) = state.await;
    assert_eq!(end, Offset(BATCHES), "nothing of its former life");
    assert!(!names.is_empty());
    for name in names {
        let path = Path::new(DIRECTORY).join(name.of(id).path(SegmentFile::Log));
        assert!(disk.exists(&path).unwrap(), "{}", path.display());
    }
}

#[tokio::test]
async fn replica_that_comes_back_is_made_when_the_files_of_its_former_life_are_gone() {
    let disk = SimDisk::new();
    let started = started(&disk, 1, Duration::from_millis(1)).await;
    let id = create_topic(&started).await;
    fill(&started, id).await;
    let is_back = started.lanes.call(0, move |lane| {
        lane.drop_partition(id);
        std::future::ready(comes_back(&lane, id))
    });
    assert!(!is_back.await, "its files would go with the old ones");
    eventually(&started, move |lane| lane.partition(id).is_some()).await;
    fill(&started, id).await;
    assert_files_are_there(&disk, &started, id).await;
    started.stop().unwrap();
}

#[tokio::test]
async fn replica_that_comes_back_at_the_start_waits_for_the_same() {
    let disk = SimDisk::new();
    let first = started(&disk, 1, Duration::from_millis(1)).await;
    let id = create_topic(&first).await;
    fill(&first, id).await;
    first.stop().unwrap();
    disk.kill();
    // It leaves, and no checkpoint has removed its files when the broker ends.
    let second = started(&disk, 2, NEVER).await;
    second
        .lanes
        .call(0, move |lane| {
            lane.drop_partition(id);
            std::future::ready(())
        })
        .await;
    second.stop().unwrap();
    disk.kill();
    // The metadata have it here again.
    let third = started(&disk, 3, Duration::from_millis(1)).await;
    eventually(&third, move |lane| lane.partition(id).is_some()).await;
    fill(&third, id).await;
    assert_files_are_there(&disk, &third, id).await;
    third.stop().unwrap();
}
