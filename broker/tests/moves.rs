//! Where partitions lie, asked of three broker processes with stock requests: reassignments are made, listed and given up
//! through any broker, and partitions go back to their preferred leaders.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use stonelog_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use stonelog_protocol::messages::elect_leaders_request::TopicPartitions;
use stonelog_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use stonelog_protocol::messages::metadata_request::MetadataRequestTopic;
use stonelog_protocol::messages::metadata_response::{MetadataResponse, MetadataResponsePartition};
use stonelog_protocol::messages::{
    AlterPartitionReassignmentsRequest, DescribeClusterRequest, ElectLeadersRequest, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse, MetadataRequest,
};

use support::cluster::Cluster;
use support::topic_name;

const TIMEOUT_MS: i32 = 30_000;

/// Waits until all three brokers are unfenced.
fn wait_for_all(cluster: &Cluster) {
    let request = DescribeClusterRequest::default().with_endpoint_type(1);
    cluster.ask_until(0, 1, &request, |response| response.brokers.len() == 3);
}

fn reassign(partitions: &[(i32, Option<&[i32]>)]) -> AlterPartitionReassignmentsRequest {
    let partitions = partitions.iter().map(|(index, replicas)| {
        let replicas = replicas.map(|replicas| replicas.iter().map(|id| (*id).into()).collect());
        ReassignablePartition::default().with_partition_index(*index).with_replicas(replicas)
    });
    let topic = ReassignableTopic::default().with_name(topic_name("t")).with_partitions(partitions.collect());
    AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS)
}

fn alter(cluster: &Cluster, node: usize, partitions: &[(i32, Option<&[i32]>)]) -> Vec<(i32, i16)> {
    let response = cluster.ask(node, 0, &reassign(partitions));
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
    response.responses[0].partitions.iter().map(|one| (one.partition_index, one.error_code)).collect()
}

/// Partition, replicas, adding, removing of topic `t`.
type Moving = (i32, Vec<i32>, Vec<i32>, Vec<i32>);

fn moving(response: &ListPartitionReassignmentsResponse) -> Vec<Moving> {
    let ids = |ids: &[stonelog_protocol::messages::BrokerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    response
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|one| (one.partition_index, ids(&one.replicas), ids(&one.adding_replicas), ids(&one.removing_replicas)))
        .collect()
}

fn list(named: Option<&[i32]>) -> ListPartitionReassignmentsRequest {
    let topics = named.map(|indexes| {
        vec![
            ListPartitionReassignmentsTopics::default()
                .with_name(topic_name("t"))
                .with_partition_indexes(indexes.to_vec()),
            ListPartitionReassignmentsTopics::default()
                .with_name(topic_name("no such topic"))
                .with_partition_indexes(vec![0]),
        ]
    });
    ListPartitionReassignmentsRequest::default().with_topics(topics).with_timeout_ms(TIMEOUT_MS)
}

fn metadata() -> MetadataRequest {
    MetadataRequest::default().with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic_name("t")))]))
}

/// Leader, replicas, in-sync set of one partition.
fn placed(response: &MetadataResponse, index: i32) -> (i32, Vec<i32>, Vec<i32>) {
    let is_it = |partition: &&MetadataResponsePartition| partition.partition_index == index;
    let found = response.topics[0].partitions.iter().find(is_it).unwrap();
    let ids = |ids: &[stonelog_protocol::messages::BrokerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    let mut isr = ids(&found.isr_nodes);
    isr.sort_unstable();
    (found.leader_id.0, ids(&found.replica_nodes), isr)
}

fn elect(election: i8, partitions: Option<&[i32]>) -> ElectLeadersRequest {
    let topics = partitions.map(|partitions| {
        vec![TopicPartitions::default().with_topic(topic_name("t")).with_partitions(partitions.to_vec())]
    });
    ElectLeadersRequest::default()
        .with_election_type(election)
        .with_topic_partitions(topics)
        .with_timeout_ms(TIMEOUT_MS)
}

fn elected(cluster: &Cluster, node: usize, request: &ElectLeadersRequest) -> Vec<(i32, i16)> {
    let response = cluster.ask(node, 2, request);
    assert_eq!(response.error_code, 0);
    let topics = response.replica_election_results.iter().filter(|topic| *topic.topic == *"t");
    topics.flat_map(|topic| topic.partition_result.iter().map(|one| (one.partition_id, one.error_code))).collect()
}

#[test]
fn partitions_are_moved_and_moves_are_listed_and_given_up_by_any_broker() {
    let mut cluster = Cluster::started();
    wait_for_all(&cluster);
    cluster.create("t", &[&[1], &[2], &[3]], &[]);
    let records: String = (0..300).map(|number| format!("record-{number}\n")).collect();
    cluster.succeed(2, &["produce", "t"], &records);

    // To one other broker, and to two: with their records.
    assert_eq!(alter(&cluster, 0, &[(0, Some(&[2])), (1, Some(&[3, 2]))]), [(0, 0), (1, 0)]);
    cluster.ask_until(0, 0, &list(None), |response| moving(response).is_empty());
    let response = cluster.ask_until(1, 9, &metadata(), |response| placed(response, 1).2 == [2, 3]);
    assert_eq!(placed(&response, 0), (2, vec![2], vec![2]));
    assert_eq!(placed(&response, 1).1, [3, 2]);
    let read = cluster.succeed(0, &["consume", "t", "-n", "300"], "");
    assert_eq!(read.lines().count(), 300);

    // What cannot be asked for.
    let unwanted: [(i32, Option<&[i32]>); 4] = [(0, Some(&[9])), (1, Some(&[])), (2, None), (7, Some(&[1]))];
    assert_eq!(alter(&cluster, 2, &unwanted), [(0, 39), (1, 39), (2, 85), (7, 3)]);
    let held = reassign(&[(0, Some(&[2, 3]))]).with_allow_replication_factor_change(false);
    let response = cluster.ask(0, 1, &held);
    assert_eq!((response.allow_replication_factor_change, response.error_code), (false, 0));
    assert_eq!(response.responses[0].partitions[0].error_code, 38);

    // To a broker that is not there: it stays in progress until it is given up.
    cluster.kill(0);
    let dead = DescribeClusterRequest::default().with_endpoint_type(1);
    cluster.ask_until(1, 1, &dead, |response| response.brokers.len() == 2);
    assert_eq!(alter(&cluster, 1, &[(0, Some(&[1, 3]))]), [(0, 0)]);
    let in_progress = (0, vec![1, 3, 2], vec![1, 3], vec![2]);
    assert_eq!(moving(&cluster.ask(1, 0, &list(None))), std::slice::from_ref(&in_progress));
    let everywhere = cluster.ask_until(2, 0, &list(Some(&[0, 1])), |response| !moving(response).is_empty());
    assert_eq!(moving(&everywhere), [in_progress]);
    assert!(moving(&cluster.ask(1, 0, &list(Some(&[1, 2])))).is_empty());
    assert_eq!(alter(&cluster, 2, &[(0, None)]), [(0, 0)]);
    assert!(moving(&cluster.ask(2, 0, &list(None))).is_empty());
    assert_eq!(placed(&cluster.ask(2, 9, &metadata()), 0), (2, vec![2], vec![2]));
}

#[test]
fn partitions_go_back_to_their_preferred_leaders_and_none_is_led_uncleanly_on_a_strict_topic() {
    let mut cluster = Cluster::started();
    wait_for_all(&cluster);
    cluster.create("t", &[&[1, 2, 3], &[2, 3, 1]], &[]);
    cluster.create("single", &[&[1]], &[]);
    cluster.create("relaxed", &[&[1]], &[("flush.messages", "1000")]);
    assert_eq!(elected(&cluster, 1, &elect(0, Some(&[0, 1, 0, 9]))), [(0, 84), (1, 84), (9, 3)]);
    assert!(elected(&cluster, 1, &elect(0, None)).is_empty());

    cluster.kill(0);
    let led = cluster.ask_until(1, 9, &metadata(), |response| placed(response, 0).0 > 1);
    assert_eq!(placed(&led, 1).0, 2);
    assert_eq!(elected(&cluster, 2, &elect(0, Some(&[0, 1]))), [(0, 80), (1, 84)]);
    // The one replica of these is on the broker that is gone: a strict topic may not look for another, and there is none.
    let one = |name: &str| {
        let topic = TopicPartitions::default().with_topic(topic_name(name)).with_partitions(vec![0]);
        let response = cluster.ask(1, 2, &elect(1, None).with_topic_partitions(Some(vec![topic])));
        response.replica_election_results[0].partition_result[0].error_code
    };
    assert_eq!((one("t"), one("single"), one("relaxed")), (84, 44, 83));
    let all = cluster.ask(2, 2, &elect(1, None)).replica_election_results;
    let all: Vec<(&str, i16)> =
        all.iter().map(|topic| (&**topic.topic, topic.partition_result[0].error_code)).collect();
    assert_eq!(all, [("relaxed", 83), ("single", 44)]);

    cluster.start(0);
    cluster.wait_until_ready(0);
    cluster.ask_until(1, 9, &metadata(), |response| placed(response, 0).2 == [1, 2, 3]);
    assert_eq!(elected(&cluster, 0, &elect(0, None)), [(0, 0)]);
    cluster.ask_until(2, 9, &metadata(), |response| placed(response, 0).0 == 1);
}
