//! Compaction in a real broker process with settings that users have: compacted topics and `__consumer_offsets` shrink
//! while they are written, and say the same before, after, and after a kill.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stonelog_protocol::Timestamp;
use stonelog_protocol::batch::{BatchBuilder, BatchHeader, Compression, NewRecord, Records, open_records};
use stonelog_protocol::messages::create_topics_request::CreatableTopicConfig;
use stonelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use stonelog_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use stonelog_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use stonelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use stonelog_protocol::messages::*;

use support::{Broker, Client, new_topic, text, topic_name};

/// Small segments, and a cleaner that does not rest.
const SETTINGS: [&str; 3] =
    ["offsets.topic.num.partitions=1", "offsets.topic.segment.bytes=1048576", "log.cleaner.backoff.ms=20"];

impl Client {
    async fn create_topic(&mut self, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
        let configs = configs
            .iter()
            .map(|(key, value)| CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value))));
        self.create(new_topic(topic, partitions).with_configs(configs.collect())).await;
    }

    async fn produce(&mut self, topic: &str, key: Option<&[u8]>, value: &[u8]) -> i16 {
        let mut batch = BatchBuilder::new().compressed(Compression::Lz4, None);
        batch.push(NewRecord::new(Timestamp(1_700_000_000_000), key, Some(value)));
        let partition = PartitionProduceData::default().with_records(Some(batch.build().unwrap().into()));
        let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![partition]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        self.ask(9, request).await.responses[0].partition_responses[0].error_code
    }

    /// What a consumer from the beginning knows of each key in the end, and how many records it met.
    async fn consume(&mut self, topic: &str) -> (BTreeMap<Vec<u8>, Vec<u8>>, usize) {
        let (mut newest, mut count, mut next) = (BTreeMap::new(), 0, 0);
        loop {
            let partition = FetchPartition::default().with_fetch_offset(next).with_partition_max_bytes(1 << 20);
            let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
            let request = FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![topic]);
            let response = self.ask(4, request).await;
            let partition = &response.responses[0].partitions[0];
            assert_eq!(partition.error_code, 0);
            let records = partition.records.clone().unwrap_or_default();
            if records.is_empty() {
                assert_eq!(next, partition.high_watermark, "a consumer comes to the end");
                return (newest, count);
            }
            let mut rest = &records[..];
            // The last one may be cut off.
            while let Ok(header) = BatchHeader::read(rest) {
                let (batch, more) = rest.split_at(header.batch_bytes);
                let section = open_records(batch, &header, 1 << 20).unwrap();
                for record in Records::new(&section, header.records_count) {
                    let record = record.unwrap();
                    newest.insert(record.key.unwrap().to_vec(), record.value.unwrap().to_vec());
                    count += 1;
                }
                next = header.next_offset().0;
                rest = more;
            }
        }
    }

    async fn commit(&mut self, group: &str, topic: &str, partitions: i32, offset: i64) {
        let partitions = (0..partitions).map(|index| {
            OffsetCommitRequestPartition::default().with_partition_index(index).with_committed_offset(offset)
        });
        let topic =
            OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let response = self.ask(7, request).await;
        assert!(response.topics[0].partitions.iter().all(|partition| partition.error_code == 0));
    }

    async fn committed(&mut self, group: &str, topic: &str, partitions: i32) -> Vec<i64> {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partition_indexes((0..partitions).collect());
        let request = OffsetFetchRequest::default().with_group_id(GroupId(text(group))).with_topics(Some(vec![topic]));
        const LOAD_IN_PROGRESS: i16 = 14;
        let response = loop {
            let response = self.ask(7, request.clone()).await;
            if response.error_code != LOAD_IN_PROGRESS {
                break response;
            }
        };
        assert_eq!(response.error_code, 0);
        let mut found: Vec<(i32, i64)> = response.topics[0]
            .partitions
            .iter()
            .map(|partition| (partition.partition_index, partition.committed_offset))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, offset)| offset).collect()
    }
}

/// The `.log` files in the data directory that have taken the place of others, which are gone, and the bytes of all.
fn logs(data_dir: &Path) -> (Vec<PathBuf>, u64) {
    let (mut compacted, mut bytes) = (Vec::new(), 0);
    for directory in std::fs::read_dir(data_dir).unwrap().filter_map(|entry| std::fs::read_dir(entry.ok()?.path()).ok())
    {
        for entry in directory.filter_map(Result::ok) {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                bytes += entry.metadata().map_or(0, |metadata| metadata.len());
                let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
                let replaced = stem.split_once('.').map(|(base, _)| path.with_file_name(format!("{base}.log")));
                if replaced.is_some_and(|replaced| !replaced.exists()) {
                    compacted.push(path);
                }
            }
        }
    }
    (compacted, bytes)
}

#[tokio::test]
async fn a_compacted_topic_shrinks_and_a_consumer_reads_the_newest_of_each_key() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &SETTINGS);
    let mut client = broker.open().await;
    client.create_topic("t", 1, &[("cleanup.policy", "compact"), ("segment.bytes", "1048576")]).await;
    let mut expected = BTreeMap::new();
    // 5 MiB that lz4 cannot make smaller.
    let mut state = 7_u64;
    for n in 0..320_u32 {
        let value: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(16 << 10)
        .collect();
        let key = format!("key-{}", n % 7).into_bytes();
        assert_eq!(client.produce("t", Some(&key), &value).await, 0);
        expected.insert(key, value);
    }
    assert_eq!(client.consume("t").await.0, expected);
    while logs(dir.path()).0.is_empty() || logs(dir.path()).1 > (5 << 20) / 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.consume("t").await.0, expected);
    drop(broker);

    let broker = Broker::start(dir.path(), &SETTINGS);
    let mut client = broker.open().await;
    let (found, count) = client.consume("t").await;
    assert_eq!(found, expected);
    assert!(count < 200, "{count} of 320 records are left");
}

#[tokio::test]
async fn a_record_without_key_is_refused_on_a_compacted_topic() {
    const INVALID_RECORD: i16 = 87;
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &SETTINGS);
    let mut client = broker.open().await;
    client.create_topic("t", 1, &[("cleanup.policy", "compact,delete")]).await;
    assert_eq!(client.produce("t", None, b"value").await, INVALID_RECORD);
    assert_eq!(client.produce("t", Some(b""), b"value").await, 0, "an empty key is a key");
}

#[tokio::test]
async fn committed_offsets_are_the_same_before_and_after_their_log_is_compacted_and_read_back() {
    const PARTITIONS: i32 = 400;
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &SETTINGS);
    let mut client = broker.open().await;
    client.create_topic("t", PARTITIONS, &[]).await;
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    assert_eq!(client.ask(4, request).await.coordinators[0].error_code, 0);
    client.commit("early", "t", 3, 7).await;
    let mut round = 0;
    // Until some of it was compacted, and some more, so that compacted and new segments follow each other.
    while logs(dir.path()).0.is_empty() || round % 50 != 0 {
        round += 1;
        client.commit("g", "t", PARTITIONS, round).await;
    }
    client.commit("g", "t", 5, round + 100).await;
    let mut expected = vec![round; PARTITIONS as usize];
    expected[..5].fill(round + 100);
    assert_eq!(client.committed("g", "t", PARTITIONS).await, expected);
    assert_eq!(client.committed("early", "t", 3).await, [7; 3]);
    drop(broker);

    let broker = Broker::start(dir.path(), &SETTINGS);
    let mut client = broker.open().await;
    assert!(!logs(dir.path()).0.is_empty());
    assert_eq!(client.committed("g", "t", PARTITIONS).await, expected);
    assert_eq!(client.committed("early", "t", 3).await, [7; 3]);
}
