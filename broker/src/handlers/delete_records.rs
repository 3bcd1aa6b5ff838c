//! DeleteRecords (key 21): raises a partition's log start offset (KIP-107).
//!
//! *Behaviour*: everything below the offset is gone for readers once this is answered; -1 means the high watermark. The
//! new start is durable before the answer. *Versions*: 0–2.
//! *Differences from Kafka*: on compacted topics without `delete` it is refused with POLICY_VIOLATION, as Kafka does.

use std::time::Duration;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use stonelog_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use stonelog_protocol::{Offset, PartitionIndex, TopicPartition};
use stonelog_replication::metadata::topic::TopicImage;

use crate::request::RequestContext;

/// Answers a DeleteRecords request.
pub async fn handle(context: &RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let image = context.image();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = context.broker.node.clock.mono() + timeout;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = image.topic_by_name(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let delete = delete(context, found.map(|found| &**found), asked.partition_index, Offset(asked.offset));
            let result = match tokio::time::timeout_at(deadline.into(), delete).await {
                Ok(result) => result,
                Err(_) => Err(ErrorCode::RequestTimedOut),
            };
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
            partitions.push(match result {
                Ok(start) => answer.with_low_watermark(start.0),
                Err(error) => answer.with_low_watermark(-1).with_error_code(error.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete(
    context: &RequestContext,
    topic: Option<&TopicImage>,
    index: i32,
    before: Offset,
) -> Result<Offset, ErrorCode> {
    let index = PartitionIndex(index);
    let topic = topic.filter(|topic| topic.partition(index).is_some()).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if topic.internal {
        return Err(ErrorCode::InvalidTopicException);
    }
    if !context.lane.topic_config(topic).cleanup_policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let partition = TopicPartition { topic_id: topic.id, partition: index };
    let lanes = context.lane.lanes();
    lanes
        .call(lanes.owner(partition), move |lane| lane.delete_records(partition, before))
        .await
        .map_err(|reject| reject.error_code())
}
