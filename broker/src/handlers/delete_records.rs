//! DeleteRecords (key 21): raises a partition's log start offset (KIP-107).
//!
//! *Behaviour*: everything below the offset is gone once this is answered, for readers here and for whoever leads next; -1
//! means the high watermark. The new start is durable on every replica that is up before the answer; where one does not
//! say so within the request's time it is REQUEST_TIMED_OUT. *Versions*: 0–2.
//! *Differences from Kafka*: on compacted topics without `delete` it is refused with POLICY_VIOLATION, as Kafka does.

use std::time::Duration;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use stonelog_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use stonelog_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use stonelog_protocol::{Offset, PartitionIndex, TopicPartition};
use stonelog_replication::metadata::topic::TopicImage;
use stonelog_replication::partition::Reject;

use crate::request::RequestContext;

/// Answers a DeleteRecords request.
pub async fn handle(context: &RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let image = context.image();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = context.broker.node.clock.mono() + timeout;
    // All are begun before any is waited for.
    let begin = |topic: DeleteRecordsTopic| {
        let found = image.topic_by_name(&topic.name).map(|found| &**found);
        let one = |asked: DeleteRecordsPartition| {
            (asked.partition_index, delete(context, found, asked.partition_index, Offset(asked.offset)))
        };
        (topic.name, topic.partitions.into_iter().map(one).collect::<Vec<_>>())
    };
    let begun: Vec<_> = request.topics.into_iter().map(begin).collect();
    let mut topics = Vec::with_capacity(begun.len());
    for (name, deletes) in begun {
        let mut partitions = Vec::with_capacity(deletes.len());
        for (index, delete) in deletes {
            let result = match delete {
                Ok(delete) => {
                    let deleted = tokio::time::timeout_at(deadline.into(), delete).await;
                    deleted.map_or(Err(ErrorCode::RequestTimedOut), |deleted| deleted.map_err(Reject::error_code))
                }
                Err(error) => Err(error),
            };
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(index);
            partitions.push(match result {
                Ok(start) => answer.with_low_watermark(start.0),
                Err(error) => answer.with_low_watermark(-1).with_error_code(error.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

/// Begins to delete, or says why it is not done.
fn delete(
    context: &RequestContext,
    topic: Option<&TopicImage>,
    index: i32,
    before: Offset,
) -> Result<impl Future<Output = Result<Offset, Reject>> + use<>, ErrorCode> {
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
    Ok(lanes.call(lanes.owner(partition), move |lane| lane.delete_records(partition, before)))
}
