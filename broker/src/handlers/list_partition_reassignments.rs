//! ListPartitionReassignments (key 46): the reassignments in progress (KIP-455).
//!
//! *Behaviour*: of the topics and partitions asked for, or of all, those that are being moved, with all their replicas,
//! those being added and those being removed. *Versions*: 0.
//! *Differences from Kafka*: answered from this broker's metadata, where Kafka asks the controller: what this broker was
//! told to move shows at once, what another one was told may come moments later.

use std::collections::{BTreeMap, BTreeSet};

use stonelog_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use stonelog_protocol::messages::{
    BrokerId as WireBrokerId, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use stonelog_protocol::{BrokerId, PartitionIndex, StrBytes};
use stonelog_replication::metadata::{MetadataImage, PartitionRegistration, TopicImage};

use crate::request::RequestContext;

/// Answers a ListPartitionReassignments request.
pub fn handle(
    context: &RequestContext,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let wanted = request.topics.map(|topics| {
        let mut wanted: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for topic in topics {
            wanted.entry(topic.name.to_string()).or_default().extend(topic.partition_indexes);
        }
        wanted
    });
    let topics = in_progress(&context.image(), wanted.as_ref());
    ListPartitionReassignmentsResponse::default().with_error_message(None).with_topics(topics)
}

fn in_progress(
    image: &MetadataImage,
    wanted: Option<&BTreeMap<String, BTreeSet<i32>>>,
) -> Vec<OngoingTopicReassignment> {
    let moving = |topic: &TopicImage, wanted: Option<&BTreeSet<i32>>| {
        let partitions: Vec<_> = (0..)
            .zip(&topic.partitions)
            .filter(|(index, _)| wanted.is_none_or(|wanted| wanted.contains(index)))
            .filter(|(_, partition)| partition.is_reassigning())
            .map(|(index, partition)| describe(PartitionIndex(index), partition))
            .collect();
        let name = StrBytes::from_string(topic.name.to_string()).into();
        let topic = OngoingTopicReassignment::default().with_name(name).with_partitions(partitions);
        (!topic.partitions.is_empty()).then_some(topic)
    };
    match wanted {
        None => image.topics().filter_map(|topic| moving(topic, None)).collect(),
        Some(wanted) => {
            let known = wanted.iter().filter_map(|(name, wanted)| Some((image.topic_by_name(name)?, wanted)));
            known.filter_map(|(topic, wanted)| moving(topic, Some(wanted))).collect()
        }
    }
}

fn describe(index: PartitionIndex, partition: &PartitionRegistration) -> OngoingPartitionReassignment {
    let wire = |ids: &[BrokerId]| ids.iter().map(|id| WireBrokerId(id.0)).collect::<Vec<_>>();
    OngoingPartitionReassignment::default()
        .with_partition_index(index.0)
        .with_replicas(wire(&partition.replicas))
        .with_adding_replicas(wire(&partition.adding))
        .with_removing_replicas(wire(&partition.removing))
}
