//! OffsetDelete (key 47): an administrator removes committed offsets of a group (KIP-496).
//!
//! *Behaviour*: an error of the group is the response's; partitions are answered one by one, those that do not exist
//! with UNKNOWN_TOPIC_OR_PARTITION. *Versions*: 0.

use std::sync::Arc;

use stonelog_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic;
use stonelog_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use stonelog_protocol::messages::{OffsetDeleteRequest as WireRequest, OffsetDeleteResponse, TopicName};
use stonelog_protocol::{ErrorCode, PartitionIndex};
use stonelog_replication::metadata::MetadataImage;

use crate::coordinator::group::message::{OffsetDeleteRequest, PerPartition, Response};
use crate::coordinator::runtime;
use crate::handlers::group_names::{named_group_id, text};
use crate::handlers::per_partition::{Judged, merge};
use crate::request::RequestContext;

type Asked = (Arc<str>, Vec<PartitionIndex>);

/// Answers an OffsetDelete request.
pub async fn handle(context: &RequestContext, request: WireRequest) -> OffsetDeleteResponse {
    let image = context.image();
    let (judged, known): (Vec<_>, Vec<_>) = request.topics.into_iter().map(|topic| judge(&image, topic)).unzip();
    let known: Vec<Asked> = known.into_iter().filter(|(_, partitions)| !partitions.is_empty()).collect();
    let answer = if known.is_empty() {
        PerPartition { error: ErrorCode::None, topics: Vec::new() }
    } else {
        delete(context, &request.group_id, known).await.unwrap_or_else(PerPartition::refused)
    };
    if answer.error.is_error() {
        return OffsetDeleteResponse::default().with_error_code(answer.error.code());
    }
    let topics = merge(judged, answer).into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, error)| {
            OffsetDeleteResponsePartition::default().with_partition_index(index.0).with_error_code(error.code())
        });
        OffsetDeleteResponseTopic::default().with_name(TopicName(text(&name))).with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

/// Tells the partitions that exist from the others.
fn judge(image: &MetadataImage, topic: OffsetDeleteRequestTopic) -> (Judged, Asked) {
    let name: Arc<str> = Arc::from(&**topic.name);
    let found = image.topic_by_name(&name);
    let mut judged = Judged { topic: Arc::clone(&name), partitions: Vec::with_capacity(topic.partitions.len()) };
    let mut known = Vec::new();
    for asked in topic.partitions {
        let partition = PartitionIndex(asked.partition_index);
        let exists = found.is_some_and(|found| found.partition(partition).is_some());
        judged.partitions.push((partition, (!exists).then_some(ErrorCode::UnknownTopicOrPartition)));
        if exists {
            known.push(partition);
        }
    }
    (judged, (name, known))
}

async fn delete(context: &RequestContext, group: &str, topics: Vec<Asked>) -> Result<PerPartition, ErrorCode> {
    let request = OffsetDeleteRequest { group: named_group_id(group)?, topics };
    let group = request.group.clone();
    let decide = move |groups: &mut runtime::Groups, ticket, _| groups.decide_offset_delete(request, ticket);
    match runtime::decide(context, &group, decide).await? {
        Response::OffsetDelete(answer) => Ok(answer),
        other => unreachable!("an OffsetDelete is answered as one, not with {other:?}"),
    }
}
