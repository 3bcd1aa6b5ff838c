//! Requests against a real broker process: what one connection sends is done and answered in its order, whatever each
//! request costs, and a short request gets no answer of any length.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;

use stonelog_protocol::batch::{BatchBuilder, Compression, NewRecord};
use stonelog_protocol::codec::encode_request;
use stonelog_protocol::messages::create_topics_request::CreatableTopic;
use stonelog_protocol::messages::describe_configs_request::DescribeConfigsResource;
use stonelog_protocol::messages::metadata_request::MetadataRequestTopic;
use stonelog_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use stonelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use stonelog_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, DescribeGroupsRequest, FindCoordinatorRequest,
    GroupId, ListOffsetsRequest, MetadataRequest, OffsetFetchRequest, ProduceRequest,
};
use stonelog_protocol::{ProducerEpoch, ProducerId, Timestamp};

use support::{Broker, LIMIT, text, topic_name};

fn batch(sequence: i32, value_bytes: usize) -> Vec<u8> {
    let mut builder =
        BatchBuilder::new().compressed(Compression::Zstd, None).by_producer(ProducerId(7), ProducerEpoch(0), sequence);
    builder.push(NewRecord::new(Timestamp(1), None, Some(&vec![0; value_bytes])));
    builder.build().unwrap()
}

fn produce(topic: &str, batch: Vec<u8>) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(batch.into()));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

#[test]
fn requests_behind_a_large_compressed_batch_are_appended_and_answered_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let mut client = broker.connect();
    client.create_topic("t");
    // The sequence check notices any other order.
    let sizes = [100, 40 << 20, 100, 100, 20 << 20, 100];
    let mut frames = Vec::new();
    for (number, value_bytes) in (0..).zip(sizes) {
        let request = produce("t", batch(number, value_bytes));
        frames.extend(encode_request(9, number, None, &request).unwrap());
    }
    client.0.write_all(&frames).unwrap();
    for number in 0..sizes.len() as i32 {
        let (correlation_id, response) = client.answer::<ProduceRequest>(9);
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((correlation_id, partition.error_code), (number, 0));
        assert_eq!(partition.base_offset, i64::from(number));
    }
}

#[test]
fn client_that_leaves_while_its_batch_is_validated_leaves_the_broker_serving() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let mut client = broker.connect();
    client.create_topic("t");
    let large = encode_request(9, 1, None, &produce("t", batch(0, 60 << 20))).unwrap();
    for _ in 0..8 {
        broker.connect().0.write_all(&large).unwrap();
    }
    let small = produce("t", {
        let mut builder = BatchBuilder::new();
        builder.push(NewRecord::new(Timestamp(1), None, Some(b"v")));
        builder.build().unwrap()
    });
    let response = client.ask(9, &small);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

#[test]
fn what_is_asked_for_many_times_is_answered_once() {
    const TIMES: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let mut client = broker.connect();
    client.create_topic("t");

    let topic = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
    let response = client.ask(9, &MetadataRequest::default().with_topics(Some(vec![topic; TIMES])));
    assert_eq!(response.topics.len(), 1);

    let me = |name: &str| DescribeConfigsResource::default().with_resource_type(4).with_resource_name(text(name));
    let node = response.brokers[0].node_id.0.to_string();
    let resources = [vec![me(&node); TIMES], vec![me(&format!("+{node}")), me(&format!("00{node}"))]].concat();
    let request = DescribeConfigsRequest::default()
        .with_resources(resources.into_iter().map(|resource| resource.with_configuration_keys(None)).collect());
    let response = client.ask(4, &request);
    assert_eq!(response.results.len(), 1);
    assert!(response.results[0].configs.len() > 100);

    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    assert_eq!(client.ask(4, &find).coordinators[0].error_code, 0);
    let groups = vec![GroupId(text("g")); TIMES];
    assert_eq!(client.ask(5, &DescribeGroupsRequest::default().with_groups(groups)).groups.len(), 1);
    let everything = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g"))).with_topics(None);
    let response = client.ask(8, &OffsetFetchRequest::default().with_groups(vec![everything; TIMES]));
    assert_eq!(response.groups.len(), 1);
}

#[test]
fn requests_that_name_very_many_things_are_answered() {
    // What compares each with each, of so many, takes minutes.
    const MANY: usize = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let mut client = broker.connect();
    let names = || (0..MANY).map(|number| topic_name(&format!("!{}", number % (MANY / 2))));

    let topics = names().map(|name| CreatableTopic::default().with_name(name).with_replication_factor(1));
    let response = client.ask(4, &CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(50_000));
    assert_eq!(response.topics.len(), MANY / 2);
    let request = DeleteTopicsRequest::default().with_topic_names(names().collect()).with_timeout_ms(50_000);
    assert_eq!(client.ask(4, &request).responses.len(), MANY / 2);
    let topics = names().map(|name| MetadataRequestTopic::default().with_name(Some(name)));
    let request = MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(true);
    assert_eq!(client.ask(9, &request).topics.len(), MANY / 2);
}

#[test]
fn partition_of_a_long_name_that_is_asked_for_many_times_is_refused() {
    use stonelog_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let partitions = (0..200_000).map(|number| ListOffsetsPartition::default().with_partition_index(number / 2));
    let topic =
        ListOffsetsTopic::default().with_name(topic_name(&"x".repeat(30_000))).with_partitions(partitions.collect());
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let response = broker.connect().ask(4, &request);
    assert!(response.topics[0].partitions.iter().all(|partition| partition.error_code == 42));
}

#[test]
fn fetch_that_cannot_hold_more_does_not_wait_for_more() {
    use stonelog_protocol::messages::FetchRequest;
    use stonelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let mut client = broker.connect();
    client.create_topic("t");
    for _ in 0..3 {
        let mut builder = BatchBuilder::new();
        builder.push(NewRecord::new(Timestamp(1), None, Some(&[7; 60_000])));
        client.ask(9, &produce("t", builder.build().unwrap()));
    }
    let fetch = |bytes_max: i32, bytes_min: i32| {
        let partition = FetchPartition::default().with_partition_max_bytes(bytes_max);
        let topic = FetchTopic::default().with_topic(topic_name("t")).with_partitions(vec![partition.clone()]);
        FetchRequest::default()
            .with_replica_id((-1).into())
            .with_min_bytes(bytes_min)
            .with_max_bytes(bytes_max)
            // Longer than this test waits for an answer.
            .with_max_wait_ms(2 * LIMIT.as_millis() as i32)
            .with_session_epoch(-1)
            .with_topics(vec![topic])
    };
    for bytes_min in [100_000, 150_000, i32::MAX] {
        let response = client.ask(12, &fetch(100_000, bytes_min));
        let records = response.responses[0].partitions[0].records.as_ref().unwrap();
        assert!((60_000..70_000).contains(&records.len()), "one batch fits: {} bytes", records.len());
    }
}
