//! A topic that has lost two of its three brokers, all of them, and the quorum besides: nothing is acknowledged that is not
//! on enough disks, what was committed is read on, and with its brokers everything is back.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use stonelog_protocol::Timestamp;
use stonelog_protocol::batch::{BatchBuilder, NewRecord};
use stonelog_protocol::messages::elect_leaders_request::TopicPartitions;
use stonelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use stonelog_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use stonelog_protocol::messages::metadata_request::MetadataRequestTopic;
use stonelog_protocol::messages::metadata_response::MetadataResponsePartition;
use stonelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use stonelog_protocol::messages::{
    DescribeClusterRequest, ElectLeadersRequest, FetchRequest, IncrementalAlterConfigsRequest, MetadataRequest,
    ProduceRequest,
};

use support::cluster::Cluster;
use support::{text, topic_name};

const NONE: i16 = 0;
const REQUEST_TIMED_OUT: i16 = 7;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const INVALID_CONFIG: i16 = 40;
const POLICY_VIOLATION: i16 = 44;
const TOPIC: i8 = 2;
const UNCLEAN: i8 = 1;
const NOBODY: i32 = -1;

/// A strict topic and a relaxed one on these brokers, once all are there.
fn topics(cluster: &Cluster, brokers: &[i32]) -> [(&'static str, uuid::Uuid); 2] {
    let all = DescribeClusterRequest::default().with_endpoint_type(1);
    cluster.ask_until(0, 1, &all, |response| response.brokers.len() == cluster.ports.len());
    let strict = cluster.create("strict", &[brokers], &[]);
    let relaxed = cluster.create("relaxed", &[brokers], &[("flush.messages", "1000")]);
    [("strict", strict), ("relaxed", relaxed)]
}

/// What Produce answers for one record.
fn produce(cluster: &Cluster, node: usize, topic: &str, acks: i16, value: &str) -> i16 {
    let mut builder = BatchBuilder::new();
    builder.push(NewRecord::new(Timestamp(1), None, Some(value.as_bytes())));
    let partition = PartitionProduceData::default().with_records(Some(builder.build().unwrap().into()));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![partition]);
    let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(3_000).with_topic_data(vec![topic]);
    cluster.ask(node, 10, &request).responses[0].partition_responses[0].error_code
}

/// High watermark and how many bytes of records somebody reads who begins at `offset`.
fn read(cluster: &Cluster, node: usize, id: uuid::Uuid, offset: i64) -> (i64, usize) {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(-1);
    let topic = FetchTopic::default().with_topic_id(id).with_partitions(vec![partition]);
    let request = FetchRequest::default().with_max_bytes(1 << 20).with_session_epoch(-1).with_topics(vec![topic]);
    let response = cluster.ask(node, 16, &request);
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, NONE);
    (partition.high_watermark, partition.records.as_ref().map_or(0, |records| records.len()))
}

/// Waits until the only partition of `topic` is as wanted to a node.
fn wait(cluster: &Cluster, node: usize, topic: &str, is_wanted: impl Fn(&MetadataResponsePartition) -> bool) {
    let named = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![named]));
    cluster.ask_until(node, 12, &request, |response| response.topics[0].partitions.first().is_some_and(&is_wanted));
}

/// Waits until somebody on this node may write to both topics with everybody in sync.
fn wait_whole(cluster: &Cluster, node: usize) {
    for topic in ["strict", "relaxed"] {
        wait(cluster, node, topic, |partition| partition.leader_id.0 > 0 && partition.isr_nodes.len() == 3);
    }
}

/// What everybody reads of a topic, by the command.
fn values(cluster: &Cluster, topic: &str, count: usize) -> Vec<String> {
    let read = cluster.succeed(0, &["consume", topic, "-n", &count.to_string()], "");
    read.lines().map(str::to_owned).collect()
}

#[test]
fn with_two_of_three_brokers_gone_nothing_is_acknowledged_below_min_isr_and_with_all_gone_nobody_is_elected() {
    let mut cluster = Cluster::started_with_brokers(3);
    let [(_, strict), (_, relaxed)] = topics(&cluster, &[4, 5, 6]);
    wait_whole(&cluster, 0);
    wait_whole(&cluster, 3);
    for topic in ["strict", "relaxed"] {
        assert_eq!(produce(&cluster, 3, topic, -1, "first"), NONE);
    }

    // The controllers stay up: the set shrinks below its minimum.
    cluster.kill(4);
    cluster.kill(5);
    for topic in ["strict", "relaxed"] {
        for node in [0, 3] {
            wait(&cluster, node, topic, |partition| partition.isr_nodes.len() == 1 && partition.leader_id.0 == 4);
        }
    }
    for acks in [-1, 1] {
        assert_eq!(produce(&cluster, 3, "strict", acks, "refused"), NOT_ENOUGH_REPLICAS, "acks={acks}");
    }
    assert_eq!(produce(&cluster, 3, "relaxed", -1, "refused"), NOT_ENOUGH_REPLICAS);
    assert_eq!(produce(&cluster, 3, "relaxed", 1, "second"), NONE, "the leader's own copy is what was asked for");
    for id in [strict, relaxed] {
        let (watermark, bytes) = read(&cluster, 3, id, 0);
        assert!(watermark == 1 && bytes > 0, "what was committed is read on");
    }
    assert_eq!(read(&cluster, 3, relaxed, 1), (1, 0), "nothing above the high watermark is shown");

    // All of them: offline, and nobody is elected, whoever asks.
    cluster.kill(3);
    for topic in ["strict", "relaxed"] {
        wait(&cluster, 0, topic, |partition| partition.leader_id.0 == NOBODY);
    }
    let named = TopicPartitions::default().with_topic(topic_name("strict")).with_partitions(vec![0]);
    let request = ElectLeadersRequest::default()
        .with_election_type(UNCLEAN)
        .with_topic_partitions(Some(vec![named]))
        .with_timeout_ms(30_000);
    let elected = cluster.ask(0, 2, &request);
    assert_eq!(elected.replica_election_results[0].partition_result[0].error_code, POLICY_VIOLATION);
    let config =
        AlterableConfig::default().with_name(text("unclean.leader.election.enable")).with_value(Some(text("true")));
    let resource = AlterConfigsResource::default().with_resource_type(TOPIC).with_resource_name(text("strict"));
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource.with_configs(vec![config])]);
    assert_eq!(cluster.ask(0, 1, &request).responses[0].error_code, INVALID_CONFIG);
    wait(&cluster, 0, "strict", |partition| partition.leader_id.0 == NOBODY);

    // Back: whole, with everything that was acknowledged.
    for node in [5, 4, 3] {
        cluster.start(node);
    }
    for node in [5, 4, 3] {
        cluster.wait_until_ready(node);
    }
    wait_whole(&cluster, 0);
    cluster.succeed(0, &["produce", "strict"], "last\n");
    assert_eq!(values(&cluster, "strict", 2), ["first", "last"]);
    let relaxed = values(&cluster, "relaxed", 1);
    assert_eq!(relaxed, ["first"]);
}

#[test]
fn with_the_quorum_gone_too_answers_time_out_and_what_was_committed_is_read_on() {
    let mut cluster = Cluster::started();
    let [(_, strict), (_, relaxed)] = topics(&cluster, &[1, 2, 3]);
    wait_whole(&cluster, 0);
    for topic in ["strict", "relaxed"] {
        assert_eq!(produce(&cluster, 0, topic, -1, "first"), NONE);
    }
    cluster.kill(1);
    cluster.kill(2);
    // Nobody can take the dead out of the set, so what is written waits for them.
    for acks in [-1, 1] {
        assert_eq!(produce(&cluster, 0, "strict", acks, "unknown"), REQUEST_TIMED_OUT, "acks={acks}");
    }
    assert_eq!(produce(&cluster, 0, "relaxed", -1, "unknown"), REQUEST_TIMED_OUT);
    assert_eq!(produce(&cluster, 0, "relaxed", 1, "second"), NONE);
    for id in [strict, relaxed] {
        let (watermark, bytes) = read(&cluster, 0, id, 0);
        assert!(watermark == 1 && bytes > 0, "what was committed is read on");
        assert_eq!(read(&cluster, 0, id, 1), (1, 0), "nothing above the high watermark is shown");
    }
    for node in [1, 2] {
        cluster.start(node);
    }
    for node in [1, 2] {
        cluster.wait_until_ready(node);
    }
    wait_whole(&cluster, 0);
    cluster.succeed(0, &["produce", "strict"], "last\n");
    // What timed out may be there: it was appended, and its leader has been up all the time.
    let values = values(&cluster, "strict", 4);
    assert_eq!(values, ["first", "unknown", "unknown", "last"]);
}
