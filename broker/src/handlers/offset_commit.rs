//! OffsetCommit (key 8): how far a group has read.
//!
//! *Behaviour*: answered when the offsets are as durable as any acknowledged record. Partitions that do not exist are
//! UNKNOWN_TOPIC_OR_PARTITION; the others are stored with the id of their topic. Commits of one connection are decided
//! in their order and may wait together.
//! *Versions*: 2–9. Up to 4 the client may say how long offsets are kept, from 6 on it says their leader epoch, from 7
//! on it may be a static member, from 9 on GROUP_ID_NOT_FOUND is known.

use std::sync::Arc;

use stonelog_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use stonelog_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use stonelog_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse, TopicName};
use stonelog_protocol::{ErrorCode, LeaderEpoch, Offset, PartitionIndex};
use stonelog_replication::metadata::MetadataImage;

use crate::coordinator::group::message::{CommitPartition, CommitRequest, CommitTopic, PerPartition, Response};
use crate::coordinator::runtime;
use crate::handlers::group_names::{group_id, instance_id, member_id, text};
use crate::handlers::per_partition::{Judged, merge};
use crate::network::connection::Started;
use crate::request::{RequestContext, encode};

/// "As long as the broker keeps them" (`OffsetCommitRequest.DEFAULT_RETENTION_TIME`).
const RETENTION_UNSET: i64 = -1;

/// Starts an OffsetCommit request: when this returns it has been decided or is in the inbox of its group's lane, in
/// order, so that the commits of one connection wait for the disk together.
pub fn start(context: RequestContext, mut request: OffsetCommitRequest) -> Started {
    // The newest, whatever lane has applied it, as OffsetFetch asks: an offset is stored for the topic that has the name now.
    let image = context.broker.metadata.image();
    let (judged, known): (Vec<_>, Vec<_>) =
        std::mem::take(&mut request.topics).into_iter().map(|topic| judge(&context, &image, topic)).unzip();
    let known: Vec<CommitTopic> = known.into_iter().flatten().collect();
    let committed = match known.is_empty() {
        true => None,
        false => Some(domain(context.version(), request, known).map(|request| commit(&context, request))),
    };
    Started::Pipelined(Box::pin(async move {
        let answer = match committed {
            None => PerPartition { error: ErrorCode::None, topics: Vec::new() },
            Some(Ok(committed)) => committed.await.unwrap_or_else(PerPartition::refused),
            Some(Err(error)) => PerPartition::refused(error),
        };
        encode(context.version(), context.head.correlation_id, &response(judged, answer).into())
    }))
}

fn response(judged: Vec<Judged>, answer: PerPartition) -> OffsetCommitResponse {
    let topics = merge(judged, answer).into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, error)| {
            OffsetCommitResponsePartition::default().with_partition_index(index.0).with_error_code(error.code())
        });
        OffsetCommitResponseTopic::default().with_name(TopicName(text(&name))).with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Tells the partitions that exist from the others.
fn judge(
    context: &RequestContext,
    image: &MetadataImage,
    topic: OffsetCommitRequestTopic,
) -> (Judged, Option<CommitTopic>) {
    let name: Arc<str> = Arc::from(&**topic.name);
    let found = image.topic_by_name(&name);
    let mut judged = Judged { topic: Arc::clone(&name), partitions: Vec::with_capacity(topic.partitions.len()) };
    let mut partitions = Vec::new();
    for asked in topic.partitions {
        let partition = PartitionIndex(asked.partition_index);
        if found.is_none_or(|found| found.partition(partition).is_none()) {
            judged.partitions.push((partition, Some(ErrorCode::UnknownTopicOrPartition)));
            continue;
        }
        judged.partitions.push((partition, None));
        let leader_epoch = if context.version() >= 6 { asked.committed_leader_epoch } else { LeaderEpoch::NONE.0 };
        partitions.push(CommitPartition {
            partition,
            offset: Offset(asked.committed_offset),
            leader_epoch: LeaderEpoch(leader_epoch),
            metadata: asked.committed_metadata.map(|metadata| Arc::from(&*metadata)),
        });
    }
    let known =
        found.filter(|_| !partitions.is_empty()).map(|found| CommitTopic { name, topic_id: found.id, partitions });
    (judged, known)
}

fn domain(version: i16, request: OffsetCommitRequest, topics: Vec<CommitTopic>) -> Result<CommitRequest, ErrorCode> {
    let retention_ms = request.retention_time_ms;
    Ok(CommitRequest {
        group: group_id(&request.group_id)?,
        generation: request.generation_id_or_member_epoch,
        member_id: member_id(&request.member_id)?,
        instance_id: instance_id(request.group_instance_id.as_ref())?,
        retention_ms: (version <= 4 && retention_ms != RETENTION_UNSET).then_some(retention_ms),
        knows_group_id_not_found: version >= 9,
        topics,
    })
}

fn commit(
    context: &RequestContext,
    request: CommitRequest,
) -> impl Future<Output = Result<PerPartition, ErrorCode>> + use<> {
    let group = request.group.clone();
    let decide = move |groups: &mut runtime::Groups, ticket, now| groups.decide_commit(request, ticket, now);
    let decided = runtime::commit(context, &group, decide);
    async move {
        match decided.await? {
            Response::Commit(answer) => Ok(answer),
            other => unreachable!("an OffsetCommit is answered as one, not with {other:?}"),
        }
    }
}
