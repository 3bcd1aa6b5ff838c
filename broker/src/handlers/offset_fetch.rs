//! OffsetFetch (key 9): how far has a group read?
//!
//! *Behaviour*: -1 without an error where nothing is committed. An offset committed for an earlier topic of the same
//! name does not count. *Versions*: 1–9. Version 1 has an error for each partition only; from 2 on one for the response
//! and null for all topics, from 7 on `require_stable`, from 8 on several groups, from 9 on the member's id and epoch,
//! which mean nothing to a classic group.
//! *Differences from Kafka*: groups and partitions that are named twice are answered once.

use std::collections::HashMap;
use std::sync::Arc;

use stonelog_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
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
    for (group, topics) in by_group(request.groups) {
        groups.push(match fetch(context, &group, topics).await {
            Ok(fetched) => group_answer(group, fetched),
            Err(error) => OffsetFetchResponseGroup::default().with_group_id(group).with_error_code(error.code()),
        });
    }
    OffsetFetchResponse::default().with_groups(groups)
}

/// Each group once, where it was named first, with all that is asked of it: what it has committed may be thousands of
/// times as long as its name.
fn by_group(named: Vec<OffsetFetchRequestGroup>) -> Vec<(WireGroupId, Topics)> {
    let mut places = HashMap::with_capacity(named.len());
    let mut groups: Vec<(WireGroupId, Topics)> = Vec::with_capacity(named.len());
    for group in named {
        let topics: Topics = group
            .topics
            .map(|topics| topics.iter().map(|topic| asked(&topic.name, &topic.partition_indexes)).collect());
        let place = *places.entry(group.group_id.clone()).or_insert(groups.len());
        match (groups.get_mut(place), topics) {
            (None, topics) => groups.push((group.group_id, topics)),
            (Some((_, Some(all))), Some(more)) => all.extend(more),
            (Some((_, all)), _) => *all = None,
        }
    }
    groups
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

#[cfg(test)]
mod tests {
    use stonelog_protocol::StrBytes;
    use stonelog_protocol::messages::offset_fetch_request::OffsetFetchRequestTopics;

    use super::*;

    fn named(group: &'static str, topic: Option<&'static str>) -> OffsetFetchRequestGroup {
        let one = |name| {
            let name = TopicName(StrBytes::from_static_str(name));
            OffsetFetchRequestTopics::default().with_name(name).with_partition_indexes(vec![0])
        };
        OffsetFetchRequestGroup::default()
            .with_group_id(WireGroupId(StrBytes::from_static_str(group)))
            .with_topics(topic.map(|name| vec![one(name)]))
    }

    #[test]
    fn a_group_that_is_named_twice_is_asked_for_once_with_all_its_topics() {
        let asked = [named("a", Some("t")), named("b", Some("t")), named("a", Some("u")), named("c", Some("t"))];
        let all = [named("c", None), named("b", Some("t"))];
        let groups = by_group(asked.into_iter().chain(all).collect());
        let counts: Vec<_> = groups.iter().map(|(_, topics)| topics.as_ref().map(Vec::len)).collect();
        assert_eq!(counts, [Some(2), Some(2), None]);
    }
}
