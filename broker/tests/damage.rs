//! A damaged byte in the data directory of a real broker process: the range answers CORRUPT_MESSAGE, everything else is
//! served, and the start says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use stonelog_protocol::batch::records::Records;
use stonelog_protocol::batch::{BatchBuilder, BatchHeader, NewRecord};
use stonelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use stonelog_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use stonelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use stonelog_protocol::messages::{FetchRequest, FindCoordinatorRequest, GroupId, OffsetCommitRequest, ProduceRequest};
use stonelog_protocol::{ErrorCode, Timestamp};
use stonelog_storage::checkpoint::{CHECKPOINT_KIND, CHECKPOINT_NAME, Checkpoint, ReplicaCheckpoint};
use stonelog_storage::small_file::Envelope;

use support::{BlockingClient, Broker, text, topic_name};

const TOPIC: &str = "t";
const BLOCK: u64 = 64 << 10;

impl BlockingClient {
    /// Each record is a batch and, acknowledged before the next, a commit of its own.
    fn produce(&mut self, values: std::ops::Range<u64>) {
        for number in values {
            let mut builder = BatchBuilder::new();
            builder.push(NewRecord::new(Timestamp(1), None, Some(&value(number))));
            let partition = PartitionProduceData::default().with_records(Some(builder.build().unwrap().into()));
            let topic = TopicProduceData::default().with_name(topic_name(TOPIC)).with_partition_data(vec![partition]);
            let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
            let response = self.ask(9, &request);
            let partition = &response.responses[0].partition_responses[0];
            assert_eq!((partition.error_code, partition.base_offset), (0, number as i64));
        }
    }

    /// The value at an offset, or the error. At the log's end it waits for a moment.
    fn value_at(&mut self, offset: u64) -> Result<Option<Vec<u8>>, ErrorCode> {
        let partition = FetchPartition::default().with_fetch_offset(offset as i64).with_partition_max_bytes(1);
        let topic = FetchTopic::default().with_topic(topic_name(TOPIC)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(50)
            .with_min_bytes(1)
            .with_max_bytes(1)
            .with_topics(vec![topic]);
        let response = self.ask(11, &request);
        let answer = &response.responses[0].partitions[0];
        match ErrorCode::from_code(answer.error_code) {
            Some(ErrorCode::None) => {}
            error => return Err(error.expect("a known error")),
        }
        let records = answer.records.clone().unwrap_or_default();
        if records.is_empty() {
            return Ok(None);
        }
        let header = BatchHeader::read(&records).unwrap();
        assert_eq!(header.base_offset.0, offset as i64);
        let section: Bytes = records.slice(stonelog_protocol::batch::HEADER_BYTES..header.batch_bytes);
        let record = Records::new(&section, 1).next().unwrap().unwrap();
        Ok(Some(record.value.unwrap().to_vec()))
    }

    /// Everything is served but what lies in the range.
    fn assert_served(&mut self, all: u64, lost: std::ops::Range<u64>) {
        for offset in 0..all {
            let expected = match lost.contains(&offset) {
                true => Err(ErrorCode::CorruptMessage),
                false => Ok(Some(value(offset))),
            };
            assert_eq!(self.value_at(offset), expected, "offset {offset}");
        }
    }
}

/// Two kilobytes that no other record holds.
fn value(number: u64) -> Vec<u8> {
    format!("record {number:06} ").repeat(150).into_bytes()
}

fn flip(path: &Path, byte: u64) {
    let mut file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut one = [0];
    file.seek(SeekFrom::Start(byte)).unwrap();
    file.read_exact(&mut one).unwrap();
    one[0] ^= 4;
    file.seek(SeekFrom::Start(byte)).unwrap();
    file.write_all(&one).unwrap();
    file.sync_all().unwrap();
}

/// The one replica with records, as the checkpoint on the disk has it.
fn checkpointed(data_dir: &Path) -> Option<ReplicaCheckpoint> {
    // One copy, and nothing is repaired: the broker is at work on them.
    let bytes = std::fs::read(data_dir.join(CHECKPOINT_NAME)).ok()?;
    let (_, payload) = Envelope::open(&CHECKPOINT_KIND, &bytes).unwrap();
    Checkpoint::decode(payload).unwrap().replicas.into_iter().find(|replica| replica.end.0 > 0)
}

/// The lines of the banner that speak of damage.
fn damage_in(broker: &Broker) -> Vec<&String> {
    broker.banner.iter().filter(|line| line.starts_with("DAMAGE")).collect()
}

/// Flips a bit of what begins with the marker, of which a kilobyte and more follows, in the journal. Which file that is.
fn flip_in_journal(data_dir: &Path, marker: &[u8]) -> PathBuf {
    let files = std::fs::read_dir(data_dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let hit = files.filter(|path| path.extension().is_some_and(|end| end == "journal")).find_map(|path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        Some((bytes.windows(marker.len()).position(|window| window == marker)?, path))
    });
    let (at, path) = hit.expect("the record is in the journal");
    flip(&path, at as u64 + 1000);
    path
}

#[test]
fn groups_whose_log_cannot_be_read_are_unavailable_and_not_said_to_be_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["offsets.topic.num.partitions=1"];
    let broker = Broker::start(dir.path(), &settings);
    let mut client = broker.connect();
    client.create_topic(TOPIC);
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    assert_eq!(client.ask(4, &request).coordinators[0].error_code, 0);
    let commit = |client: &mut BlockingClient, number: i64| {
        let note = format!("note {number:06} ").repeat(150);
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(number);
        let partition = partition.with_committed_metadata(Some(text(&note)));
        let topic = OffsetCommitRequestTopic::default().with_name(topic_name(TOPIC)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        client.ask(7, &request).topics[0].partitions[0].error_code
    };
    for number in 0..20 {
        assert_eq!(commit(&mut client, number), 0);
    }
    drop(broker);
    flip_in_journal(dir.path(), b"note 000007 ");
    let broker = Broker::start(dir.path(), &settings);
    let mut client = broker.connect();
    for number in 0..3 {
        let error = loop {
            let error = commit(&mut client, number);
            if error != ErrorCode::CoordinatorLoadInProgress.code() {
                break error;
            }
        };
        // Not that somebody else coordinates, of whom the client would ask again and again.
        assert_eq!(error, ErrorCode::CoordinatorNotAvailable.code());
    }
}

#[test]
fn a_damaged_journal_commit_costs_its_records_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let mut client = broker.connect();
    client.create_topic(TOPIC);
    client.produce(0..20);
    drop(broker);
    let path = flip_in_journal(dir.path(), b"record 000007 ");
    for _ in 0..2 {
        let broker = Broker::start(dir.path(), &[]);
        let damage = damage_in(&broker);
        assert!(damage.iter().any(|line| line.contains(path.to_str().unwrap())), "{:#?}", broker.banner);
        assert!(damage.iter().any(|line| line.contains("-0 offsets 7..8 ")), "{:#?}", broker.banner);
        assert!(broker.banner.iter().any(|line| line.contains(" 1 damaged, 0 lost")), "{:#?}", broker.banner);
        broker.connect().assert_served(20, 7..8);
    }
    let broker = Broker::start(dir.path(), &[]);
    let mut client = broker.connect();
    client.produce(20..25);
    client.assert_served(25, 7..8);
}

#[test]
fn a_damaged_segment_block_costs_the_batches_that_touch_it_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let mut client = broker.connect();
    client.create_topic(TOPIC);
    client.produce(0..300);
    // Waits with fetches at the log's end, each of which takes a moment.
    let replica = loop {
        match checkpointed(dir.path()) {
            Some(replica) if replica.segments.last().unwrap().bytes > 2 * BLOCK => break replica,
            _ => assert_eq!(client.value_at(300), Ok(None)),
        }
    };
    drop(broker);
    let log = dir.path().join(replica.replica.partition.to_string()).join("00000000000000000000.log");
    flip(&log, BLOCK + 4321);
    let batch_bytes = 61 + value(0).len() as u64 + 9;
    let broker = Broker::start(dir.path(), &[]);
    assert!(damage_in(&broker).is_empty(), "nobody has read it yet");
    let mut client = broker.connect();
    let bytes = std::fs::read(&log).unwrap();
    let first_len = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as u64 + 12;
    assert!(first_len.abs_diff(batch_bytes) < 8, "all batches are of one size: {first_len}");
    let lost = BLOCK / first_len..(2 * BLOCK).div_ceil(first_len);
    client.assert_served(300, lost.clone());
    // The checkpoint knows it, so that the next start does.
    while checkpointed(dir.path()).is_none_or(|replica| replica.holes.is_empty()) {
        assert_eq!(client.value_at(300), Ok(None));
    }
    drop(broker);
    let broker = Broker::start(dir.path(), &[]);
    let told = format!("-0 offsets {}..{} ", lost.start, lost.end);
    let damage = damage_in(&broker);
    let is_told = |line: &&String| line.contains(&told) && line.contains(log.to_str().unwrap());
    assert!(damage.iter().any(is_told), "{told}: {:#?}", broker.banner);
    let mut client = broker.connect();
    client.assert_served(300, lost.clone());
    client.produce(300..310);
    client.assert_served(310, lost);
}
