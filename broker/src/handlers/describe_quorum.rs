//! DescribeQuorum (key 55): who holds the metadata log, who leads it, and how far behind each copy is (KIP-595, KIP-836).
//!
//! *Behaviour*: of partition 0 of `__cluster_metadata`, what the quorum's leader knows; whichever broker is asked fetches
//! it there. Any other partition is UNKNOWN_TOPIC_OR_PARTITION. *Versions*: 0–2. Times from 1 on; directories, messages
//! and the voters' addresses from 2 on (KIP-853).
//! *Differences from Kafka*: `__cluster_metadata` is not a topic here, its records are our own; the offsets are positions
//! of entries in the quorum's log. The partition is answered once, however often it is named; Kafka refuses such requests.

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::describe_quorum_request::TopicData as AskedTopic;
use stonelog_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use stonelog_protocol::messages::{BrokerId as WireBrokerId, DescribeQuorumRequest, DescribeQuorumResponse};
use stonelog_protocol::{StrBytes, Timestamp};
use stonelog_replication::controller::{QuorumFacts, ReplicaFacts};

use crate::request::RequestContext;

/// `Topic.CLUSTER_METADATA_TOPIC_NAME`.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// Its only partition.
const METADATA_PARTITION: i32 = 0;
/// What stands for an end or a time that is not known.
const UNKNOWN: i64 = -1;

/// Answers a DescribeQuorum request.
pub async fn handle(context: &RequestContext, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let listener = context.broker.config.controller_listeners.first().map(|listener| listener.name.as_str());
    let asked = context.broker.metadata.describe_quorum();
    match tokio::time::timeout(context.broker.config.network.request_timeout, asked).await {
        Ok(Ok(facts)) => respond(context.version(), &request.topics, &facts, listener),
        Ok(Err(error)) => refuse(context.version(), error.code(), error.to_string()),
        Err(_) => {
            refuse(context.version(), ErrorCode::RequestTimedOut, ErrorCode::RequestTimedOut.message().to_owned())
        }
    }
}

fn refuse(version: i16, error: ErrorCode, message: String) -> DescribeQuorumResponse {
    let message = (version >= 2).then(|| StrBytes::from_string(message));
    DescribeQuorumResponse::default().with_error_code(error.code()).with_error_message(message)
}

fn respond(version: i16, asked: &[AskedTopic], facts: &QuorumFacts, listener: Option<&str>) -> DescribeQuorumResponse {
    // It is described once: all its replicas are hundreds of times as long as its name.
    let mut is_described = false;
    let topics = asked.iter().map(|topic| {
        let partitions = topic.partitions.iter().filter_map(|partition| {
            let is_it = *topic.topic_name == *METADATA_TOPIC && partition.partition_index == METADATA_PARTITION;
            match is_it {
                true if std::mem::replace(&mut is_described, true) => None,
                true => Some(described(version, facts)),
                false => Some(unknown(partition.partition_index)),
            }
        });
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions.collect())
    });
    let response = DescribeQuorumResponse::default().with_error_message(None).with_topics(topics.collect());
    if version >= 2 {
        response.with_nodes(facts.voters.iter().map(|voter| node(voter, listener)).collect())
    } else {
        response
    }
}

fn unknown(index: i32) -> PartitionData {
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
        .with_error_message(None)
        .with_leader_id(WireBrokerId(-1))
        .with_leader_epoch(-1)
        .with_high_watermark(UNKNOWN)
}

fn described(version: i16, facts: &QuorumFacts) -> PartitionData {
    let replicas = |all: &[ReplicaFacts]| all.iter().map(|one| replica(version, one)).collect();
    PartitionData::default()
        .with_partition_index(METADATA_PARTITION)
        .with_error_message(None)
        .with_leader_id(WireBrokerId(facts.leader.0))
        .with_leader_epoch(i32::try_from(facts.epoch).unwrap_or(i32::MAX))
        .with_high_watermark(offset(facts.high_watermark))
        .with_current_voters(replicas(&facts.voters))
        .with_observers(replicas(&facts.observers))
}

fn replica(version: i16, facts: &ReplicaFacts) -> ReplicaState {
    let time = |time: Option<Timestamp>| time.map_or(UNKNOWN, |time| time.0);
    let state = ReplicaState::default()
        .with_replica_id(WireBrokerId(facts.node.0))
        .with_log_end_offset(facts.log_end.map_or(UNKNOWN, offset));
    let state = match version {
        1.. => state
            .with_last_fetch_timestamp(time(facts.last_fetch))
            .with_last_caught_up_timestamp(time(facts.last_caught_up)),
        _ => state,
    };
    if version >= 2 { state.with_replica_directory_id(uuid::Uuid::from_bytes(facts.directory.0)) } else { state }
}

/// Where a voter is reached; a lone one has no address for others.
fn node(facts: &ReplicaFacts, listener: Option<&str>) -> Node {
    let place = facts.endpoint.as_ref().zip(listener).map(|((host, port), listener)| {
        Listener::default()
            .with_name(StrBytes::from_string(listener.to_owned()))
            .with_host(StrBytes::from_string(host.clone()))
            .with_port(*port)
    });
    Node::default().with_node_id(WireBrokerId(facts.node.0)).with_listeners(place.into_iter().collect())
}

fn offset(end: u64) -> i64 {
    i64::try_from(end).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::messages::describe_quorum_request::PartitionData as AskedPartition;
    use stonelog_protocol::{BrokerId, Uuid};

    use super::*;

    fn facts() -> QuorumFacts {
        let replica = |node, log_end| ReplicaFacts {
            node: BrokerId(node),
            directory: Uuid([7; 16]),
            endpoint: Some(("host".to_owned(), 9093)),
            log_end,
            last_fetch: Some(Timestamp(5)),
            last_caught_up: None,
        };
        QuorumFacts {
            leader: BrokerId(2),
            epoch: 4,
            high_watermark: 90,
            voters: vec![replica(1, None), replica(2, Some(91))],
            observers: vec![ReplicaFacts { endpoint: None, ..replica(4, Some(80)) }],
        }
    }

    fn asked(topic: &'static str, partition: i32) -> AskedTopic {
        let partition = AskedPartition::default().with_partition_index(partition);
        AskedTopic::default().with_topic_name(StrBytes::from_static_str(topic).into()).with_partitions(vec![partition])
    }

    #[test]
    fn the_metadata_log_is_described_and_nothing_else_is() {
        let response = respond(2, &[asked(METADATA_TOPIC, 0), asked("t", 0), asked(METADATA_TOPIC, 1)], &facts(), None);
        let errors: Vec<i16> = response.topics.iter().map(|topic| topic.partitions[0].error_code).collect();
        assert_eq!(errors, [0, 3, 3]);
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.leader_id.0, partition.leader_epoch, partition.high_watermark), (2, 4, 90));
        let ends: Vec<_> = partition.current_voters.iter().map(|one| (one.replica_id.0, one.log_end_offset)).collect();
        assert_eq!(ends, [(1, -1), (2, 91)]);
        assert_eq!(partition.observers[0].last_fetch_timestamp, 5);
        assert_eq!(partition.observers[0].last_caught_up_timestamp, -1);
    }

    #[test]
    fn the_metadata_log_is_described_once_however_often_it_is_named() {
        let mut twice = asked(METADATA_TOPIC, 0);
        twice.partitions.push(twice.partitions[0].clone());
        let response = respond(2, &[twice, asked(METADATA_TOPIC, 0)], &facts(), None);
        assert_eq!(response.topics.iter().map(|topic| topic.partitions.len()).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn what_a_version_has_no_room_for_is_left_out() {
        let oldest = respond(0, &[asked(METADATA_TOPIC, 0)], &facts(), Some("CONTROLLER"));
        let voter = &oldest.topics[0].partitions[0].current_voters[1];
        assert_eq!((voter.last_fetch_timestamp, voter.replica_directory_id.is_nil()), (-1, true));
        assert!(oldest.nodes.is_empty());
        let newest = respond(2, &[asked(METADATA_TOPIC, 0)], &facts(), Some("CONTROLLER"));
        let listener = &newest.nodes[0].listeners[0];
        assert_eq!((&*listener.name, &*listener.host, listener.port), ("CONTROLLER", "host", 9093));
        assert!(!newest.topics[0].partitions[0].observers[0].replica_directory_id.is_nil());
    }
}
