//! OffsetForLeaderEpoch (key 23): where a leader epoch ended, so that a reader can see whether its history is ours.
//!
//! *Behaviour*: the end of the greatest epoch at or below the one asked for; -1 and -1 when none is known (KIP-101,
//! KIP-320). *Versions*: 2–4. *Differences from Kafka*: a request with a replica id is refused.

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use stonelog_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use stonelog_protocol::{LeaderEpoch, PartitionIndex, TopicPartition};

use crate::request::RequestContext;

/// Answers an OffsetForLeaderEpoch request.
pub async fn handle(context: &RequestContext, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let image = context.image();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = image.topic_by_name(&topic.topic);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let index = PartitionIndex(asked.partition);
            let place = found
                .filter(|topic| topic.partition(index).is_some())
                .map(|topic| TopicPartition { topic_id: topic.id, partition: index });
            let result = match place {
                // Clients are -1 (or -2, a debugging consumer); brokers have other ways here.
                _ if request.replica_id.0 >= 0 => Err(ErrorCode::InvalidRequest),
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(partition) => {
                    let lanes = context.lane.lanes();
                    let (current, wanted) = (LeaderEpoch(asked.current_leader_epoch), LeaderEpoch(asked.leader_epoch));
                    lanes
                        .call(lanes.owner(partition), move |lane| {
                            std::future::ready(lane.epoch_end(partition, wanted, current))
                        })
                        .await
                        .map_err(|reject| reject.error_code())
                }
            };
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            partitions.push(match result {
                Ok((epoch, end)) => answer.with_leader_epoch(epoch.0).with_end_offset(end.0),
                Err(error) => answer.with_error_code(error.code()).with_leader_epoch(-1).with_end_offset(-1),
            });
        }
        topics.push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}
