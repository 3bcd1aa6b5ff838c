//! What three brokers promise to clients while one of them, or their controller, is not there to keep it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use stonelog_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use stonelog_protocol::messages::metadata_request::MetadataRequestTopic;
use stonelog_protocol::messages::{
    DescribeClusterRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest, MetadataRequest,
};

use support::cluster::Cluster;
use support::{text, topic_name};

const TOPIC: i8 = 2;
const LEADER_NOT_AVAILABLE: i16 = 5;
const REQUEST_TIMED_OUT: i16 = 7;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;

/// Makes a topic of one partition on these brokers, once all are there.
fn create(cluster: &Cluster, replicas: &[i32], configs: &[(&str, &str)]) {
    let all = DescribeClusterRequest::default().with_endpoint_type(1);
    cluster.ask_until(0, 1, &all, |response| response.brokers.len() == 3);
    cluster.create("t", &[replicas], configs);
}

fn metadata(topics: &[&str]) -> MetadataRequest {
    let topics = topics.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))));
    MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(true)
}

fn set(key: &str, value: &str) -> IncrementalAlterConfigsRequest {
    let config = AlterableConfig::default().with_name(text(key)).with_value(Some(text(value)));
    let resource = AlterConfigsResource::default().with_resource_type(TOPIC).with_resource_name(text("t"));
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource.with_configs(vec![config])])
}

#[test]
fn a_topic_is_said_to_be_strict_when_every_replica_goes_by_it() {
    let cluster = Cluster::started_with(&["broker.session.timeout.ms=60000", "request.timeout.ms=4000"]);
    create(&cluster, &[1, 2, 3], &[("flush.messages", "1000")]);
    let described = DescribeClusterRequest::default().with_endpoint_type(1);
    let controller = cluster.ask(0, 1, &described).controller_id.0;
    let asked = usize::try_from(controller - 1).unwrap();
    let held = (asked + 1) % 3;
    cluster.hold(held, true);
    let response = cluster.ask(asked, 1, &set("flush.messages", "1")).responses.remove(0);
    let message = response.error_message.unwrap_or_default();
    assert_eq!(response.error_code, REQUEST_TIMED_OUT, "{message}");
    assert!(message.contains(&format!("broker {} may", held + 1)), "{message}");
    // What cannot have tightened anything waits for nobody.
    let response = cluster.ask(asked, 1, &set("retention.ms", "100000")).responses.remove(0);
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
    cluster.hold(held, false);
    let response = cluster.ask(asked, 1, &set("flush.messages", "1")).responses.remove(0);
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
}

#[test]
fn without_a_controller_what_exists_is_described_and_what_would_be_made_is_not_waited_for() {
    let mut cluster = Cluster::started();
    create(&cluster, &[1], &[]);
    cluster.ask_until(0, 9, &metadata(&["t"]), |response| response.topics[0].error_code == 0);
    cluster.kill(1);
    cluster.kill(2);
    let response = cluster.ask(0, 9, &metadata(&["t", "u"]));
    let errors: Vec<i16> = response.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(errors, [0, LEADER_NOT_AVAILABLE]);
    assert_eq!(response.topics[0].partitions[0].leader_id.0, 1);
    let group = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    assert_eq!(cluster.ask(0, 4, &group).coordinators[0].error_code, COORDINATOR_NOT_AVAILABLE);
}
