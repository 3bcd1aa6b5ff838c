//! Replication quotas, asked of three broker processes as `kafka-reassign-partitions --throttle` does: replicas that are
//! added wait for the rate, others are done meanwhile, replicas in sync are never held up, and the end of a throttle is
//! the end of the wait.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use stonelog_protocol::Timestamp;
use stonelog_protocol::batch::{BatchBuilder, NewRecord};
use stonelog_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use stonelog_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use stonelog_protocol::messages::metadata_request::MetadataRequestTopic;
use stonelog_protocol::messages::metadata_response::MetadataResponse;
use stonelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use stonelog_protocol::messages::{
    AlterPartitionReassignmentsRequest, DescribeClusterRequest, IncrementalAlterConfigsRequest, MetadataRequest,
    ProduceRequest,
};

use support::cluster::Cluster;
use support::{text, topic_name};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Bytes of one produced record: some make more than is pushed before a rate of nearly nothing is exceeded.
const RECORD_BYTES: usize = 512 << 10;

fn produce(cluster: &Cluster, partition: i32, records: usize) {
    for number in 0..records {
        let mut builder = BatchBuilder::new();
        builder.push(NewRecord::new(Timestamp(1), None, Some(&vec![number as u8; RECORD_BYTES])));
        let data = PartitionProduceData::default().with_index(partition);
        let data = data.with_records(Some(builder.build().unwrap().into()));
        let topic = TopicProduceData::default().with_name(topic_name("t")).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        let answered = cluster.ask(0, 10, &request);
        assert_eq!(answered.responses[0].partition_responses[0].error_code, 0);
    }
}

/// Sets a key of a topic or a broker, or takes it back.
fn set(cluster: &Cluster, kind: i8, name: &str, key: &str, value: Option<&str>) {
    let config = AlterableConfig::default()
        .with_name(text(key))
        .with_config_operation(if value.is_some() { 0 } else { 1 })
        .with_value(value.map(text));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answered = cluster.ask(0, 1, &request);
    assert_eq!(answered.responses[0].error_code, 0, "{:?}", answered.responses[0].error_message);
}

fn reassign(cluster: &Cluster, partitions: &[(i32, &[i32])]) {
    let partitions = partitions.iter().map(|(index, replicas)| {
        let replicas = replicas.iter().map(|id| (*id).into()).collect();
        ReassignablePartition::default().with_partition_index(*index).with_replicas(Some(replicas))
    });
    let topic = ReassignableTopic::default().with_name(topic_name("t")).with_partitions(partitions.collect());
    let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let answered = cluster.ask(0, 0, &request);
    assert!(answered.responses[0].partitions.iter().all(|one| one.error_code == 0), "{answered:?}");
}

fn metadata() -> MetadataRequest {
    MetadataRequest::default().with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic_name("t")))]))
}

fn in_sync(response: &MetadataResponse, index: i32) -> Vec<i32> {
    let found = response.topics[0].partitions.iter().find(|one| one.partition_index == index).unwrap();
    let mut isr: Vec<i32> = found.isr_nodes.iter().map(|id| id.0).collect();
    isr.sort_unstable();
    isr
}

#[test]
fn replicas_out_of_sync_wait_for_the_rate_and_nobody_else_does() {
    let cluster = Cluster::started();
    let all = DescribeClusterRequest::default().with_endpoint_type(1);
    cluster.ask_until(0, 1, &all, |response| response.brokers.len() == 3);
    cluster.create("t", &[&[1], &[1]], &[]);
    produce(&cluster, 0, 6);
    produce(&cluster, 1, 24);

    // The leader of one partition sends nearly nothing to a new replica of it, and the other, larger one is done meanwhile.
    set(&cluster, BROKER, "1", "leader.replication.throttled.rate", Some("1"));
    set(&cluster, TOPIC, "t", "leader.replication.throttled.replicas", Some("0:1"));
    reassign(&cluster, &[(0, &[1, 2]), (1, &[1, 2])]);
    let seen = cluster.ask_until(0, 9, &metadata(), |response| in_sync(response, 1) == [1, 2]);
    assert_eq!(in_sync(&seen, 0), [1], "it waits for the rate");

    // Throttled as well, and in sync: acknowledged by both.
    set(&cluster, TOPIC, "t", "leader.replication.throttled.replicas", Some("*"));
    produce(&cluster, 1, 4);
    assert_eq!(in_sync(&cluster.ask(0, 9, &metadata()), 1), [1, 2]);
    assert_eq!(in_sync(&cluster.ask(0, 9, &metadata()), 0), [1]);

    set(&cluster, BROKER, "1", "leader.replication.throttled.rate", None);
    cluster.ask_until(0, 9, &metadata(), |response| in_sync(response, 0) == [1, 2]);

    // The same at the other end: a new follower asks for nearly nothing.
    set(&cluster, BROKER, "3", "follower.replication.throttled.rate", Some("1"));
    set(&cluster, TOPIC, "t", "follower.replication.throttled.replicas", Some("0:3"));
    reassign(&cluster, &[(0, &[1, 2, 3]), (1, &[1, 2, 3])]);
    let seen = cluster.ask_until(0, 9, &metadata(), |response| in_sync(response, 1) == [1, 2, 3]);
    assert_eq!(in_sync(&seen, 0), [1, 2], "it waits for the rate");
    set(&cluster, TOPIC, "t", "follower.replication.throttled.replicas", Some("*"));
    produce(&cluster, 1, 4);
    assert_eq!(in_sync(&cluster.ask(0, 9, &metadata()), 1), [1, 2, 3]);
    set(&cluster, BROKER, "3", "follower.replication.throttled.rate", Some("1000000000"));
    cluster.ask_until(0, 9, &metadata(), |response| in_sync(response, 0) == [1, 2, 3]);
}
