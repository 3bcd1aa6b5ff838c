//! DeleteRecords (key 21): raises a partition's log start offset (KIP-107).
//!
//! *Behaviour*: everything below the offset is gone once this is answered, for readers here and for whoever leads next; -1
//! means the high watermark. The new start is durable on every replica that is up before the answer; where one does not
//! say so within the request's time it is REQUEST_TIMED_OUT. *Versions*: 0–2.
//! *Differences from Kafka*: on compacted topics without `delete` it is refused with POLICY_VIOLATION, as Kafka does.

use std::collections::HashMap;
use std::time::Duration;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use stonelog_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use stonelog_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use stonelog_protocol::{Offset, PartitionIndex, TopicPartition};
use stonelog_replication::metadata::topic::TopicImage;
use stonelog_replication::partition::Reject;

use crate::request::RequestContext;

/// The longest that a request waits for other replicas, whatever it says.
const TIMEOUT_MAX: Duration = Duration::from_secs(5 * 60);

/// Answers a DeleteRecords request.
pub async fn handle(context: &RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let image = context.image();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).min(TIMEOUT_MAX);
    let deadline = context.broker.node.clock.mono() + timeout;
    // All are begun before any is waited for.
    let begin = |topic: DeleteRecordsTopic| {
        let found = image.topic_by_name(&topic.name).map(|found| &**found);
        let one = |asked: DeleteRecordsPartition| {
            (asked.partition_index, delete(context, found, asked.partition_index, Offset(asked.offset)))
        };
        (topic.name, topic.partitions.into_iter().map(one).collect::<Vec<_>>())
    };
    let begun: Vec<_> = distinct(request.topics).into_iter().map(begin).collect();
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

/// Each partition once, where it was named first, with the offset that was named last (`KafkaApis` makes it a map).
fn distinct(mut topics: Vec<DeleteRecordsTopic>) -> Vec<DeleteRecordsTopic> {
    let mut last = HashMap::new();
    for topic in &topics {
        for asked in &topic.partitions {
            last.insert((topic.name.clone(), asked.partition_index), asked.offset);
        }
    }
    for topic in &mut topics {
        topic.partitions.retain_mut(|asked| match last.remove(&(topic.name.clone(), asked.partition_index)) {
            None => false,
            Some(offset) => {
                asked.offset = offset;
                true
            }
        });
    }
    topics
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

#[cfg(test)]
mod tests {
    use stonelog_protocol::StrBytes;

    use super::*;

    #[test]
    fn a_partition_that_is_named_twice_is_deleted_from_once_to_the_last_offset() {
        let one = |index, offset| DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset);
        let topic = |name, partitions: &[(i32, i64)]| {
            DeleteRecordsTopic::default()
                .with_name(StrBytes::from_static_str(name).into())
                .with_partitions(partitions.iter().map(|(index, offset)| one(*index, *offset)).collect())
        };
        let asked = vec![topic("t", &[(0, 1), (1, 2), (0, 3)]), topic("u", &[(0, 5)]), topic("t", &[(0, 4)])];
        let expected = vec![topic("t", &[(0, 4), (1, 2)]), topic("u", &[(0, 5)]), topic("t", &[])];
        assert_eq!(distinct(asked), expected);
    }
}
