//! What clients see of three brokers: hints to the leader wherever they ask, too few replicas, a broker that is gone,
//! who may still lead, features.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use stonelog_protocol::Timestamp;
use stonelog_protocol::batch::{BatchBuilder, NewRecord};
use stonelog_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use stonelog_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use stonelog_protocol::messages::describe_topic_partitions_request::TopicRequest;
use stonelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use stonelog_protocol::messages::metadata_request::MetadataRequestTopic;
use stonelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use stonelog_protocol::messages::update_features_request::FeatureUpdateKey;
use stonelog_protocol::messages::{
    AlterReplicaLogDirsRequest, ApiVersionsRequest, BrokerId, DescribeClusterRequest, DescribeLogDirsRequest,
    DescribeQuorumRequest, DescribeTopicPartitionsRequest, FetchRequest, MetadataRequest, ProduceRequest,
    UnregisterBrokerRequest, UpdateFeaturesRequest,
};

use support::cluster::Cluster;
use support::{text, topic_name};

const FENCED_LEADER_EPOCH: i16 = 74;
const UNKNOWN_LEADER_EPOCH: i16 = 75;

fn brokers(with_fenced: bool) -> DescribeClusterRequest {
    DescribeClusterRequest::default().with_endpoint_type(1).with_include_fenced_brokers(with_fenced)
}

fn metadata(topic: &str) -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    MetadataRequest::default().with_topics(Some(vec![topic]))
}

fn produce(topic: &str, acks: i16) -> ProduceRequest {
    let mut builder = BatchBuilder::new();
    builder.push(NewRecord::new(Timestamp(1), None, Some(b"v")));
    let partition = PartitionProduceData::default().with_records(Some(builder.build().unwrap().into()));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

fn fetch(topic_id: uuid::Uuid) -> FetchRequest {
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20).with_current_leader_epoch(-1);
    let topic = FetchTopic::default().with_topic_id(topic_id).with_partitions(vec![partition]);
    FetchRequest::default().with_max_bytes(1 << 20).with_session_epoch(-1).with_topics(vec![topic])
}

fn ids(ids: &[BrokerId]) -> Vec<i32> {
    ids.iter().map(|id| id.0).collect()
}

fn quorum() -> DescribeQuorumRequest {
    let partition = PartitionData::default().with_partition_index(0);
    let topic = TopicData::default().with_topic_name(topic_name("__cluster_metadata")).with_partitions(vec![partition]);
    DescribeQuorumRequest::default().with_topics(vec![topic])
}

/// What Produce answers for its one partition.
fn produced(cluster: &Cluster, node: usize, topic: &str, acks: i16) -> i16 {
    cluster.ask(node, 10, &produce(topic, acks)).responses[0].partition_responses[0].error_code
}

#[test]
fn brokers_that_do_not_lead_say_who_does_and_where_it_is() {
    let cluster = Cluster::started();
    cluster.ask_until(0, 1, &DescribeClusterRequest::default().with_endpoint_type(1), |r| r.brokers.len() == 3);
    // Broker 3 holds no replica.
    let id = cluster.create("t", &[&[1, 2]], &[]);
    cluster.ask_until(2, 9, &metadata("t"), |response| response.topics[0].error_code == 0);
    let port = i32::from(cluster.ports[0]);
    for node in [1, 2] {
        let response = cluster.ask(node, 10, &produce("t", -1));
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.current_leader.leader_id.0), (6, 1), "asked broker {}", node + 1);
        assert_eq!(partition.current_leader.leader_epoch, 0);
        let endpoints: Vec<_> = response.node_endpoints.iter().map(|at| (at.node_id.0, at.port)).collect();
        assert_eq!(endpoints, [(1, port)]);
    }
    // A replica in step answers consumers; who has none says the same as to producers.
    let response = cluster.ask(2, 16, &fetch(id));
    let partition = &response.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.current_leader.leader_id.0), (6, 1));
    let endpoints: Vec<_> = response.node_endpoints.iter().map(|at| (at.node_id.0, at.port)).collect();
    assert_eq!(endpoints, [(1, port)]);
    assert_eq!(produced(&cluster, 0, "t", -1), 0);
    // The quorum's leader is the controller, and is described alike by all.
    for node in 0..3 {
        let response = cluster.ask(node, 2, &quorum());
        assert_eq!((response.error_code, response.topics[0].partitions[0].error_code), (0, 0));
        let partition = &response.topics[0].partitions[0];
        assert_eq!(partition.leader_id, cluster.ask(node, 1, &brokers(false)).controller_id);
        let voters: Vec<i32> = partition.current_voters.iter().map(|voter| voter.replica_id.0).collect();
        assert_eq!(voters, [1, 2, 3]);
        assert!(partition.high_watermark > 0 && partition.leader_epoch > 0);
        assert!(response.nodes.iter().all(|node| &*node.listeners[0].name == "CONTROLLER"), "{:?}", response.nodes);
    }
    // Whom a client is to ask is there, for it has answered: the active controller may have died a moment ago.
    for node in 0..3 {
        assert_eq!(cluster.ask(node, 9, &metadata("t")).controller_id.0, node as i32 + 1);
    }
}

#[test]
fn who_reads_with_an_epoch_is_told_that_it_is_over_or_unknown_and_where_its_history_ended() {
    let cluster = Cluster::started();
    cluster.ask_until(0, 1, &brokers(false).with_endpoint_type(1), |r| r.brokers.len() == 3);
    let id = cluster.create("t", &[&[1, 2, 3]], &[]);
    assert_eq!(produced(&cluster, 0, "t", -1), 0);
    let all_in_sync =
        |r: &stonelog_protocol::messages::MetadataResponse| r.topics[0].partitions[0].isr_nodes.len() == 3;
    cluster.ask_until(0, 9, &metadata("t"), all_in_sync);
    cluster.succeed(0, &["leader", "transfer", "t:0", "--to", "2"], "");
    let led = |r: &stonelog_protocol::messages::MetadataResponse| r.topics[0].partitions[0].leader_id.0 == 2;
    let response = cluster.ask_until(1, 9, &metadata("t"), led);
    let epoch = response.topics[0].partitions[0].leader_epoch;
    assert!(epoch > 0);
    assert_eq!(produced(&cluster, 1, "t", -1), 0);

    let read = |offset: i64, current: i32, last: i32| {
        let mut request = fetch(id);
        let partition = &mut request.topics[0].partitions[0];
        partition.fetch_offset = offset;
        partition.current_leader_epoch = current;
        partition.last_fetched_epoch = last;
        let mut response = cluster.ask(1, 16, &request);
        response.responses.remove(0).partitions.remove(0)
    };
    assert_eq!(read(1, epoch, 0).error_code, 0);
    assert_eq!(read(1, epoch - 1, 0).error_code, FENCED_LEADER_EPOCH);
    assert_eq!(read(1, epoch + 1, 0).error_code, UNKNOWN_LEADER_EPOCH);
    // It has read two records of the first epoch, it says; that had one.
    let parted = read(2, epoch, 0);
    assert_eq!(parted.error_code, 0);
    assert_eq!((parted.diverging_epoch.epoch, parted.diverging_epoch.end_offset), (0, 1));
    assert!(parted.records.as_ref().is_none_or(|records| records.is_empty()), "nothing of another history");
    let agreed = read(2, epoch, epoch);
    assert_eq!((agreed.error_code, agreed.diverging_epoch.epoch), (0, -1));
}

#[test]
fn a_broker_that_is_gone_is_fenced_and_shown_until_it_is_forgotten() {
    let mut cluster = Cluster::started();
    cluster.ask_until(0, 1, &DescribeClusterRequest::default().with_endpoint_type(1), |r| r.brokers.len() == 3);
    cluster.create("t", &[&[1, 2, 3]], &[("min.insync.replicas", "3")]);
    cluster.create("relaxed", &[&[1, 2, 3]], &[("min.insync.replicas", "3"), ("flush.messages", "1000")]);
    cluster.create("two", &[&[1, 2, 3]], &[]);
    assert_eq!(produced(&cluster, 0, "t", -1), 0);
    cluster.kill(2);
    let response = cluster.ask_until(0, 2, &brokers(true), |r| r.brokers.iter().any(|broker| broker.is_fenced));
    let seen: Vec<_> = response.brokers.iter().map(|broker| (broker.broker_id.0, broker.is_fenced)).collect();
    assert_eq!(seen, [(1, false), (2, false), (3, true)]);
    assert_eq!(cluster.ask(0, 2, &brokers(false)).brokers.len(), 2);
    assert_eq!(cluster.ask(0, 2, &brokers(false).with_endpoint_type(2)).error_code, 114);
    assert_eq!(cluster.ask(0, 2, &brokers(false).with_endpoint_type(7)).error_code, 115);

    // It may still lead: what was acknowledged is there.
    let topics = vec![TopicRequest::default().with_name(topic_name("t"))];
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(topics)
        .with_response_partition_limit(10)
        .with_cursor(None);
    let response = cluster.ask(0, 0, &request);
    let partition = &response.topics[0].partitions[0];
    assert_eq!((ids(&partition.isr_nodes), ids(&partition.offline_replicas)), (vec![1, 2], vec![3]));
    assert_eq!(ids(partition.eligible_leader_replicas.as_ref().unwrap()), [3]);
    assert!(partition.last_known_elr.as_ref().unwrap().is_empty());
    let response = cluster.ask(0, 9, &metadata("t"));
    assert_eq!((response.brokers.len(), ids(&response.topics[0].partitions[0].offline_replicas)), (2, vec![3]));

    // On a strict topic an acknowledgement has one meaning; on a relaxed one acks=1 is the leader's.
    assert_eq!((produced(&cluster, 0, "t", -1), produced(&cluster, 0, "t", 1)), (19, 19));
    assert_eq!((produced(&cluster, 0, "relaxed", -1), produced(&cluster, 0, "relaxed", 1)), (19, 0));
    assert_eq!(produced(&cluster, 0, "two", -1), 0);

    // Who is forgotten is in no set any more.
    let unregister = |id: i32| UnregisterBrokerRequest::default().with_broker_id(BrokerId(id));
    assert_eq!(cluster.ask(0, 0, &unregister(9)).error_code, 102);
    assert_eq!(cluster.ask(1, 0, &unregister(3)).error_code, 0);
    let response = cluster.ask_until(0, 2, &brokers(true), |response| response.brokers.len() == 2);
    assert!(response.brokers.iter().all(|broker| !broker.is_fenced));
    let elr = |response: &stonelog_protocol::messages::DescribeTopicPartitionsResponse| {
        ids(response.topics[0].partitions[0].eligible_leader_replicas.as_ref().unwrap())
    };
    assert!(elr(&cluster.ask(1, 0, &request)).is_empty(), "who is forgotten may not lead");
}

#[test]
fn a_replica_may_be_asked_to_lie_where_it_lies() {
    let directory = tempfile::tempdir().unwrap();
    let broker = support::Broker::start(directory.path(), &[]);
    let mut client = broker.connect();
    client.create_topic("t");
    let described = client.ask(2, &DescribeLogDirsRequest::default().with_topics(None));
    let path = described.results[0].log_dir.to_string();
    let mut ask = |path: &str, topic: &str, index: i32| {
        let topic = AlterReplicaLogDirTopic::default().with_name(topic_name(topic)).with_partitions(vec![index]);
        let dir = AlterReplicaLogDir::default().with_path(text(path)).with_topics(vec![topic]);
        let response = client.ask(2, &AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]));
        response.results[0].partitions[0].error_code
    };
    assert_eq!(ask(&path, "t", 0), 0);
    assert_eq!((ask(&path, "t", 1), ask(&path, "nothing", 0)), (9, 9));
    assert_eq!(ask("/elsewhere", "t", 0), 57);
}

#[test]
fn features_are_told_and_only_the_level_that_holds_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let broker = support::Broker::start(directory.path(), &[]);
    let mut client = broker.connect();
    let (name, version) = (text("test"), text("1"));
    let hello = ApiVersionsRequest::default().with_client_software_name(name).with_client_software_version(version);
    let response = client.ask(3, &hello);
    assert!(response.finalized_features_epoch > 0);
    let supported: Vec<_> = response
        .supported_features
        .iter()
        .map(|feature| (feature.name.to_string(), feature.min_version, feature.max_version))
        .collect();
    assert_eq!(supported, [("stonelog.metadata.version".to_owned(), 1, 1)]);
    let finalized: Vec<_> = response
        .finalized_features
        .iter()
        .map(|feature| (feature.name.to_string(), feature.min_version_level, feature.max_version_level))
        .collect();
    assert_eq!(finalized, [("stonelog.metadata.version".to_owned(), 1, 1)]);

    let update = |name: &str, level: i16, upgrade_type: i8| {
        let update = FeatureUpdateKey::default()
            .with_feature(text(name))
            .with_max_version_level(level)
            .with_upgrade_type(upgrade_type);
        UpdateFeaturesRequest::default().with_feature_updates(vec![update]).with_timeout_ms(1_000)
    };
    assert_eq!(client.ask(2, &update("stonelog.metadata.version", 1, 1)).error_code, 0);
    let response = client.ask(1, &update("stonelog.metadata.version", 1, 2));
    assert_eq!((response.error_code, response.results.len()), (0, 1));
    assert_eq!(client.ask(2, &update("stonelog.metadata.version", 2, 1)).error_code, 95);
    assert_eq!(client.ask(2, &update("transaction.version", 1, 1)).error_code, 95);
}
