//! ListOffsets (key 2): the offset at the start, at the end, or at a time.
//!
//! *Behaviour*: -1 the end (high watermark, or last stable offset for read_committed), -2 the start, -3 the record with
//! the largest timestamp, -4 the local start (the same as -2 without tiering), -5 the tiered end (none); a time finds
//! the first record at or after it, none is offset -1 without an error.
//! *Versions*: 1–10. -3 from 7, -4 from 8, -5 from 9; below that UNSUPPORTED_VERSION per partition. Leader epochs are
//! checked and told from 4 on.
//! *Differences from Kafka*: a request with a replica id is refused: clients cannot replicate (DESIGN §4).

use std::collections::HashMap;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::list_offsets_request::ListOffsetsPartition;
use stonelog_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use stonelog_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};
use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicPartition};
use stonelog_replication::metadata::topic::TopicImage;
use stonelog_replication::runtime::find_offset::OffsetQuery;

use crate::request::RequestContext;

/// Answers a ListOffsets request.
pub async fn handle(context: &RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let image = context.image();
    // By the number of a topic's first place: its name may be long, and is looked at once.
    let mut first: HashMap<TopicName, usize> = HashMap::new();
    let places: Vec<usize> =
        (0..).zip(&request.topics).map(|(place, topic)| *first.entry(topic.name.clone()).or_insert(place)).collect();
    let mut asked: HashMap<(usize, i32), u32> = HashMap::new();
    for (place, topic) in places.iter().zip(&request.topics) {
        for partition in &topic.partitions {
            *asked.entry((*place, partition.partition_index)).or_default() += 1;
        }
    }
    let mut topics = Vec::with_capacity(request.topics.len());
    for (place, topic) in places.into_iter().zip(request.topics) {
        let found = image.topic_by_name(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let result = if request.replica_id.0 >= 0 || asked[&(place, index)] > 1 {
                Err(ErrorCode::InvalidRequest)
            } else {
                look_up(context, found.map(|found| &**found), &partition, request.isolation_level == 1).await
            };
            partitions.push(answer(context.version(), index, result));
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn look_up(
    context: &RequestContext,
    topic: Option<&TopicImage>,
    asked: &ListOffsetsPartition,
    committed_only: bool,
) -> Result<(Offset, Timestamp, LeaderEpoch), ErrorCode> {
    let index = PartitionIndex(asked.partition_index);
    let topic = topic.filter(|topic| topic.partition(index).is_some()).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let query = match (asked.timestamp, context.version()) {
        (-1, _) => OffsetQuery::Latest,
        (-2, _) | (-4, 8..) => OffsetQuery::Earliest,
        (-3, 7..) => OffsetQuery::MaxTimestamp,
        // Nothing is tiered.
        (-5, 9..) => return Ok((Offset::NONE, Timestamp::NONE, LeaderEpoch::NONE)),
        (time @ 0.., _) => OffsetQuery::AtOrAfter(Timestamp(time)),
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    let current_leader_epoch =
        if context.version() >= 4 { LeaderEpoch(asked.current_leader_epoch) } else { LeaderEpoch::NONE };
    let partition = TopicPartition { topic_id: topic.id, partition: index };
    let lanes = context.lane.lanes();
    let answer = lanes
        .call(lanes.owner(partition), move |lane| {
            lane.find_offset(partition, query, current_leader_epoch, committed_only)
        })
        .await;
    match answer {
        Ok(found) => Ok(found),
        Err(reject) => match reject.error_code() {
            ErrorCode::OffsetNotAvailable if context.version() < 5 => Err(ErrorCode::LeaderNotAvailable),
            error => Err(error),
        },
    }
}

fn answer(
    version: i16,
    index: i32,
    result: Result<(Offset, Timestamp, LeaderEpoch), ErrorCode>,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match result {
        Ok((offset, timestamp, epoch)) => {
            let response = response.with_offset(offset.0).with_timestamp(timestamp.0);
            if version >= 4 { response.with_leader_epoch(epoch.0) } else { response }
        }
        Err(error) => response.with_error_code(error.code()).with_offset(-1).with_timestamp(-1),
    }
}
