//! DescribeTopicPartitions (key 75): topics page by page, with ELR (KIP-966).
//!
//! *Behaviour*: topics in the order of their names, from the cursor on; at most the asked number of partitions, itself
//! bounded by `max.request.partition.size.limit`; then a cursor to go on from. *Versions*: 0.

use std::collections::BTreeSet;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use stonelog_protocol::messages::{
    BrokerId as WireBrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
};
use stonelog_protocol::{BrokerId, StrBytes};
use stonelog_replication::metadata::MetadataImage;
use stonelog_replication::metadata::topic::PartitionRegistration;

use super::metadata::{is_offline, led_by};
use crate::request::RequestContext;

/// `MetadataResponse.AUTHORIZED_OPERATIONS_OMITTED`.
const NO_OPERATIONS: i32 = i32::MIN;

/// Answers a DescribeTopicPartitions request.
pub fn handle(context: &RequestContext, request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let image = context.image();
    let limit = context.broker.config.network.described_partitions_max as usize;
    let mut left = usize::try_from(request.response_partition_limit).unwrap_or(0).min(limit).max(1);
    let (from_topic, from_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.to_string(), usize::try_from(cursor.partition_index).unwrap_or(0)),
        None => (String::new(), 0),
    };
    let named: BTreeSet<String> = request.topics.iter().map(|topic| topic.name.to_string()).collect();
    let names: BTreeSet<String> = match named.is_empty() {
        true => image.topics_from(&from_topic).map(|topic| topic.name.to_string()).collect(),
        false => named.into_iter().filter(|name| *name >= from_topic).collect(),
    };
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names {
        let wire_name = Some(StrBytes::from_string(name.clone()).into());
        let Some(topic) = image.topic_by_name(&name) else {
            let error = match context.broker.is_legal_topic_name(&name) {
                true => ErrorCode::UnknownTopicOrPartition,
                false => ErrorCode::InvalidTopicException,
            };
            response.topics.push(
                DescribeTopicPartitionsResponseTopic::default().with_name(wire_name).with_error_code(error.code()),
            );
            continue;
        };
        let first = if name == from_topic { from_partition } else { 0 };
        if left == 0 {
            response.next_cursor = Some(cursor(&name, first));
            break;
        }
        let partitions: Vec<_> = (0..)
            .zip(&topic.partitions)
            .skip(first)
            .take(left)
            .map(|(index, registration)| describe(&image, index, registration))
            .collect();
        left -= partitions.len();
        let end = first + partitions.len();
        response.topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(wire_name)
                .with_topic_id(uuid::Uuid::from_bytes(topic.id.0))
                .with_is_internal(topic.internal)
                .with_topic_authorized_operations(NO_OPERATIONS)
                .with_partitions(partitions),
        );
        if end < topic.partitions.len() {
            response.next_cursor = Some(cursor(&name, end));
            break;
        }
    }
    response
}

fn cursor(topic: &str, partition: usize) -> Cursor {
    Cursor::default()
        .with_topic_name(StrBytes::from_string(topic.to_owned()).into())
        .with_partition_index(i32::try_from(partition).unwrap_or(i32::MAX))
}

fn describe(
    image: &MetadataImage,
    index: i32,
    registration: &PartitionRegistration,
) -> DescribeTopicPartitionsResponsePartition {
    let wire = |ids: &[BrokerId]| ids.iter().map(|id| WireBrokerId(id.0)).collect::<Vec<_>>();
    let leader = led_by(image, registration);
    let offline: Vec<BrokerId> =
        registration.replicas.iter().copied().filter(|replica| is_offline(image, registration, *replica)).collect();
    let error = if leader.is_some() { ErrorCode::None } else { ErrorCode::LeaderNotAvailable };
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(error.code())
        .with_partition_index(index)
        .with_leader_id(WireBrokerId(leader.map_or(-1, |leader| leader.0)))
        .with_leader_epoch(registration.leader_epoch.0)
        .with_replica_nodes(wire(&registration.replicas))
        .with_isr_nodes(wire(&registration.isr))
        .with_eligible_leader_replicas(Some(wire(&registration.elr)))
        .with_last_known_elr(Some(wire(&registration.last_known_elr)))
        .with_offline_replicas(wire(&offline))
}
