//! OffsetFetch (key 9): how far has a group read?
//!
//! *Behaviour*: -1 without an error where nothing is committed. An offset committed for an earlier topic of the same
//! name does not count. *Versions*: 1–9. Version 1 has an error for each partition only; from 2 on one for the response
//! and null for all topics, from 7 on `require_stable`, from 8 on several groups, from 9 on the member's id and epoch,
//! which mean nothing to a classic group.

use std::collections::HashSet;
use std::sync::Arc;

use stonelog_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use stonelog_protocol::messages::{GroupId as WireGroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use stonelog_protocol::{ErrorCode, LeaderEpoch, Offset, PartitionIndex};

use crate::coordinator::group::message::{FetchRequest, FetchedOffset, FetchedTopic};
use crate::coordinator::runtime;
use crate::handlers::group_names::{group_id, text};
use crate::request::RequestContext;

/// Topics by name with their partitions; `None` for everything.
type Topics = Option<Vec<(Arc<str>, Vec<PartitionIndex>)>>;

/// Answers an OffsetFetch request.
pub async fn handle(context: &RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if context.version() < 8 {
        let topics = request.topics.map(|topics| {
            let one = |topic: stonelog_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic| {
                asked(&topic.name, &topic.partition_indexes)
            };
            topics.into_iter().map(one).collect()
        });
        return one_group(context, &request.group_id, topics).await;
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    // Everything of a group is answered once: it may be thousands of times as long as the group's name.
    let mut seen = HashSet::new();
    for group in request.groups {
        if group.topics.is_none() && !seen.insert(group.group_id.clone()) {
            continue;
        }
        let topics = group
            .topics
            .map(|topics| topics.iter().map(|topic| asked(&topic.name, &topic.partition_indexes)).collect());
        groups.push(match fetch(context, &group.group_id, topics).await {
            Ok(fetched) => group_answer(group.group_id, fetched),
            Err(error) => {
                OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_error_code(error.code())
            }
        });
    }
    OffsetFetchResponse::default().with_groups(groups)
}

fn asked(topic: &TopicName, partitions: &[i32]) -> (Arc<str>, Vec<PartitionIndex>) {
    (Arc::from(&***topic), partitions.iter().copied().map(PartitionIndex).collect())
}

async fn fetch(context: &RequestContext, group: &str, topics: Topics) -> Result<Vec<FetchedTopic>, ErrorCode> {
    let group = group_id(group)?;
    let request = FetchRequest { group: group.clone(), topics };
    let metadata = context.broker.metadata.clone();
    let read = move |groups: &mut runtime::Groups, _| {
        // The newest metadata, whatever lane has applied it: it knows every topic that offsets were committed for.
        let image = metadata.image();
        groups.fetch_offsets(&request, |name| image.topic_by_name(name).map(|topic| topic.id))
    };
    runtime::read_confirmed(context, &group, read).await
}

/// Versions below 8.
async fn one_group(context: &RequestContext, group: &WireGroupId, topics: Topics) -> OffsetFetchResponse {
    // Only version 1 says an error for each partition it was asked for.
    let echo = if context.version() < 2 { topics.clone().unwrap_or_default() } else { Vec::new() };
    let response = OffsetFetchResponse::default();
    let (fetched, error) = match fetch(context, group, topics).await {
        Ok(fetched) => (fetched, ErrorCode::None),
        Err(error) => (echo.into_iter().map(unknown).collect(), error),
    };
    let topics = fetched.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|fetched| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(fetched.partition.0)
                .with_committed_offset(fetched.offset.0)
                .with_committed_leader_epoch(fetched.leader_epoch.0)
                .with_metadata(Some(text(&fetched.metadata)))
                .with_error_code(error.code())
        });
        OffsetFetchResponseTopic::default()
            .with_name(TopicName(text(&topic.name)))
            .with_partitions(partitions.collect())
    });
    response.with_topics(topics.collect()).with_error_code(error.code())
}

fn unknown((name, partitions): (Arc<str>, Vec<PartitionIndex>)) -> FetchedTopic {
    let none = |partition| FetchedOffset {
        partition,
        offset: Offset::NONE,
        leader_epoch: LeaderEpoch::NONE,
        metadata: Arc::from(""),
    };
    FetchedTopic { name, partitions: partitions.into_iter().map(none).collect() }
}

fn group_answer(group: WireGroupId, fetched: Vec<FetchedTopic>) -> OffsetFetchResponseGroup {
    let topics = fetched.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|fetched| {
            OffsetFetchResponsePartitions::default()
                .with_partition_index(fetched.partition.0)
                .with_committed_offset(fetched.offset.0)
                .with_committed_leader_epoch(fetched.leader_epoch.0)
                .with_metadata(Some(text(&fetched.metadata)))
        });
        OffsetFetchResponseTopics::default()
            .with_name(TopicName(text(&topic.name)))
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponseGroup::default().with_group_id(group).with_topics(topics.collect())
}
