//! OffsetForLeaderEpoch (key 23): where a leader epoch ended, so that a reader can see whether its history is ours.
//!
//! *Behaviour*: the end of the greatest epoch at or below the one asked for; -1 and -1 when none is known (KIP-101,
//! KIP-320). *Versions*: 2–4. *Differences from Kafka*: a request with a replica id is refused.

use std::collections::BTreeMap;
use std::rc::Rc;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use stonelog_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicPartition};
use stonelog_replication::runtime::lane::Lane;

use crate::request::RequestContext;

/// Partitions that a lane is asked about in one turn.
const AT_ONCE: usize = 1_024;

/// A partition here, and what is asked about it.
#[derive(Clone, Copy)]
struct Asked {
    /// Its place in the request.
    place: usize,
    partition: TopicPartition,
    wanted: LeaderEpoch,
    current: LeaderEpoch,
}

/// Answers an OffsetForLeaderEpoch request.
pub async fn handle(context: &RequestContext, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let (image, lanes) = (context.image(), context.lane.lanes());
    let mut ends: Vec<Result<(LeaderEpoch, Offset), ErrorCode>> = Vec::new();
    let mut by_lane: BTreeMap<usize, Vec<Asked>> = BTreeMap::new();
    for topic in &request.topics {
        let found = image.topic_by_name(&topic.topic);
        for asked in &topic.partitions {
            let index = PartitionIndex(asked.partition);
            let topic = found.filter(|topic| topic.partition(index).is_some());
            ends.push(match topic {
                // Clients are -1 (or -2, a debugging consumer); brokers have other ways here.
                _ if request.replica_id.0 >= 0 => Err(ErrorCode::InvalidRequest),
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(topic) => {
                    let partition = TopicPartition { topic_id: topic.id, partition: index };
                    by_lane.entry(lanes.owner(partition)).or_default().push(Asked {
                        place: ends.len(),
                        partition,
                        wanted: LeaderEpoch(asked.leader_epoch),
                        current: LeaderEpoch(asked.current_leader_epoch),
                    });
                    Err(ErrorCode::UnknownServerError)
                }
            });
        }
    }
    for (owner, asked) in by_lane {
        for some in asked.chunks(AT_ONCE) {
            let wanted = some.to_vec();
            let look = move |lane: Rc<Lane>| {
                let one = |asked: Asked| lane.epoch_end(asked.partition, asked.wanted, asked.current);
                std::future::ready(wanted.into_iter().map(one).collect::<Vec<_>>())
            };
            for (asked, end) in some.iter().zip(lanes.call(owner, look).await) {
                ends[asked.place] = end.map_err(|reject| reject.error_code());
            }
        }
    }
    let mut ends = ends.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(&mut ends).map(|(asked, end)| {
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            match end {
                Ok((epoch, end)) => answer.with_leader_epoch(epoch.0).with_end_offset(end.0),
                Err(error) => answer.with_error_code(error.code()).with_leader_epoch(-1).with_end_offset(-1),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
