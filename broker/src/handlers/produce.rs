//! Produce (key 0): the front of the produce walk.
//!
//! *Behaviour*: validates each batch in Kafka's order, appends it on the lane that owns its partition, and answers when
//! the partition's progress has passed it. Requests of one connection are appended in their order and may wait
//! together; while a large compressed batch is validated by a job, or a directory they go to has no room before its
//! segments have caught up with the journal, those behind it wait. `acks=0` is answered with
//! nothing; if it fails, the connection closes.
//! *Versions*: 3–13. From 8 on record errors are listed, from 10 on leader hints are given (KIP-951), from 13 on topics
//! are named by id.
//! *Differences from Kafka*: on a strict topic `acks=1` waits as `acks=all` does. Until transactions exist, anything
//! transactional answers TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which clients do not retry.

mod prepare;

use std::sync::Arc;
use std::time::{Duration, Instant};

use stonelog_protocol::StrBytes;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use stonelog_protocol::messages::{BrokerId as WireBrokerId, ProduceRequest, ProduceResponse, TopicName};
use stonelog_protocol::{BrokerId, PartitionIndex, TopicPartition, Uuid};
use stonelog_replication::metadata::MetadataImage;
use stonelog_replication::metadata::topic::TopicImage;
use stonelog_replication::partition::{Acks, Reject};
use stonelog_replication::runtime::acks::Settled;
use stonelog_replication::runtime::lane::{Append, Appended};
use tokio::sync::oneshot;

use crate::network::connection::{Answer, Started};
use crate::request::{RequestContext, encode};
use prepare::{Batches, Preparation, Prepared, Refusal};

/// The one client that may write internal topics (`ReplicaManager.appendToLocalLog`).
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// What becomes of one partition.
enum Outcome {
    /// Refused before anything was stored.
    Refused(Refusal),
    /// May be appended.
    Ready(TopicPartition, Prepared),
    /// Is being prepared by a job.
    Large(TopicPartition),
    /// On its way.
    Sent(oneshot::Receiver<Settled>),
    /// Acknowledged, or not.
    Settled(Result<Appended, Unsettled>),
}

/// An append, and who hears what becomes of it.
type Telling = (Append, oneshot::Sender<Settled>);

/// Why an append is not acknowledged.
enum Unsettled {
    /// Nothing was stored.
    Rejected(Reject),
    /// It may have been.
    Failed(ErrorCode),
}

/// One topic of the response in the making.
struct Topic {
    name: TopicName,
    id: Uuid,
    partitions: Vec<(PartitionIndex, Outcome)>,
}

/// Starts a Produce request: when this returns, every batch has been appended or is in its lane's inbox, in order. If
/// some of them are a job's work, the next request waits until that is so.
pub fn start(context: RequestContext, request: ProduceRequest) -> Started {
    let acks = Acks::from_wire(request.acks);
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let mut large = Vec::new();
    let mut topics = judge_all(&context, acks, request, &mut large);
    let partitions = to_append(&topics);
    if large.is_empty() && context.lane.has_room_for(&partitions) {
        return append(context, acks, timeout, topics);
    }
    Started::Preparing(Box::pin(async move {
        // Before anything is opened: what waits is as small as it came, and paid for.
        context.lane.room_for(&partitions).await;
        if !large.is_empty() && prepare_large(&context, large, &mut topics).await.is_none() {
            // The broker is stopping.
            return Started::Alone(Box::pin(std::future::ready(Answer::Close)));
        }
        context.lane.room_for(&partitions).await;
        append(context, acks, timeout, topics)
    }))
}

/// Has the validators prepare what is too much for a lane, a part at a time: others have their turn between two. `None`
/// when they have ended.
async fn prepare_large(context: &RequestContext, large: Vec<Preparation>, topics: &mut [Topic]) -> Option<()> {
    let mut batches = Batches::new(large);
    let mut prepared = loop {
        // Whatever one client's bytes do, they end no more than that client's connection.
        let part = move || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| batches.run_some()));
        match context.broker.validators.run_wanted(part).await.ok()? {
            Ok(Ok(all)) => break all.into_iter(),
            Ok(Err(rest)) => batches = rest,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    };
    for (_, outcome) in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if let Outcome::Large(partition) = *outcome {
            let prepared = prepared.next().expect("each has been prepared");
            *outcome = prepared.map_or_else(Outcome::Refused, |prepared| Outcome::Ready(partition, prepared));
        }
    }
    Some(())
}

/// The partitions that something is to be appended to, as far as is known.
fn to_append(topics: &[Topic]) -> Vec<TopicPartition> {
    let outcomes = topics.iter().flat_map(|topic| &topic.partitions).map(|(_, outcome)| outcome);
    outcomes
        .filter_map(|outcome| match outcome {
            Outcome::Ready(partition, _) | Outcome::Large(partition) => Some(*partition),
            Outcome::Refused(_) | Outcome::Sent(_) | Outcome::Settled(_) => None,
        })
        .collect()
}

/// Looks at every partition of the request; what is too much work for a lane goes to `large`.
fn judge_all(
    context: &RequestContext,
    acks: Option<Acks>,
    request: ProduceRequest,
    large: &mut Vec<Preparation>,
) -> Vec<Topic> {
    let is_transactional = request.transactional_id.is_some();
    let image = context.image();
    let now = context.broker.node.clock.wall();
    let mut lane_bytes = prepare::LANE_BYTES_MAX;
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for mut data in request.topic_data {
        // A copy, so that the name does not keep the frame alive and the batch can be the frame's only owner.
        let name = TopicName(StrBytes::from_string(std::mem::take(&mut data.name).to_string()));
        let found = if context.version() >= 13 {
            image.topic_by_id(Uuid(*data.topic_id.as_bytes())).ok_or(ErrorCode::UnknownTopicId)
        } else {
            image.topic_by_name(&name).ok_or(ErrorCode::UnknownTopicOrPartition)
        };
        let config = found.ok().map(|topic| context.lane.topic_config(topic));
        let mut partitions = Vec::with_capacity(data.partition_data.len());
        for partition in data.partition_data.drain(..) {
            let index = PartitionIndex(partition.index);
            let outcome = match (acks, found, &config) {
                (None, _, _) => Outcome::Refused(ErrorCode::InvalidRequiredAcks.into()),
                _ if is_transactional => Outcome::Refused(ErrorCode::TransactionalIdAuthorizationFailed.into()),
                (_, Err(error), _) => Outcome::Refused(error.into()),
                (_, Ok(topic), Some(config)) => {
                    let records = partition.records.unwrap_or_default();
                    let preparation = Preparation::new(records, context.version(), context.frame_bytes, config, now);
                    judge(context, topic, index, preparation, &mut lane_bytes, large)
                }
                (_, Ok(_), None) => unreachable!("a found topic has settings"),
            };
            partitions.push((index, outcome));
        }
        topics.push(Topic { name, id: Uuid(*data.topic_id.as_bytes()), partitions });
    }
    topics
}

/// Looks at one partition's batch: may it be appended, and as which bytes.
fn judge(
    context: &RequestContext,
    topic: &Arc<TopicImage>,
    index: PartitionIndex,
    preparation: Preparation,
    lane_bytes: &mut usize,
    large: &mut Vec<Preparation>,
) -> Outcome {
    if topic.partition(index).is_none() {
        return Outcome::Refused(ErrorCode::UnknownTopicOrPartition.into());
    }
    if topic.internal && *context.head.client_id != *ADMIN_CLIENT_ID {
        return Outcome::Refused(ErrorCode::InvalidTopicException.into());
    }
    let partition = TopicPartition { topic_id: topic.id, partition: index };
    match preparation.run_if_small(lane_bytes) {
        Ok(Ok(prepared)) => Outcome::Ready(partition, prepared),
        Ok(Err(refusal)) => Outcome::Refused(refusal),
        Err(preparation) => {
            large.push(preparation);
            Outcome::Large(partition)
        }
    }
}

/// Appends what is ready, each batch on its partition's lane; the answer follows when all are acknowledged.
fn append(context: RequestContext, acks: Option<Acks>, timeout: Duration, mut topics: Vec<Topic>) -> Started {
    let deadline = context.broker.node.clock.mono() + timeout;
    let lanes = context.lane.lanes();
    let mut elsewhere: Vec<(usize, Vec<Telling>)> = Vec::new();
    for (_, outcome) in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        let Outcome::Ready(partition, _) = *outcome else { continue };
        let Some(acks) = acks else { continue };
        let (told, settled) = oneshot::channel();
        let Outcome::Ready(_, Prepared { batch, header }) = std::mem::replace(outcome, Outcome::Sent(settled)) else {
            unreachable!("looked at above")
        };
        let append = Append { partition, batch, header, acks };
        let owner = lanes.owner(partition);
        if owner == context.lane.index() {
            context.lane.append_telling(append, told);
            continue;
        }
        match elsewhere.iter_mut().find(|(lane, _)| *lane == owner) {
            Some((_, appends)) => appends.push((append, told)),
            None => elsewhere.push((owner, vec![(append, told)])),
        }
    }
    for (owner, appends) in elsewhere {
        // At once, in order.
        lanes.send(owner, move |lane| appends.into_iter().for_each(|(append, told)| lane.append_telling(append, told)));
    }
    Started::Pipelined(Box::pin(async move {
        for (_, outcome) in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            if let Outcome::Sent(settled) = outcome {
                *outcome = Outcome::Settled(settle(settled, deadline).await);
            }
        }
        finish(&context, acks, &topics)
    }))
}

/// What becomes of an append, at the latest at the deadline.
async fn settle(settled: &mut oneshot::Receiver<Settled>, deadline: Instant) -> Result<Appended, Unsettled> {
    match tokio::time::timeout_at(deadline.into(), settled).await {
        Ok(Ok(Ok((appended, Ok(()))))) => Ok(appended),
        Ok(Ok(Ok((_, Err(error))))) => Err(Unsettled::Failed(error)),
        Ok(Ok(Err(reject))) => Err(Unsettled::Rejected(reject)),
        // Its lane has ended: the broker is stopping.
        Ok(Err(_)) => std::future::pending().await,
        Err(_) => Err(Unsettled::Failed(ErrorCode::RequestTimedOut)),
    }
}

fn finish(context: &RequestContext, acks: Option<Acks>, topics: &[Topic]) -> Answer {
    let mut hinted = Vec::new();
    let mut failed = false;
    let image = context.image();
    let responses = topics
        .iter()
        .map(|topic| {
            let partitions = topic.partitions.iter().map(|(index, outcome)| {
                let response = partition_response(context, &image, topic, *index, outcome, &mut hinted);
                failed |= response.error_code != 0;
                response
            });
            let partitions = partitions.collect();
            TopicProduceResponse::default()
                .with_name(if context.version() >= 13 { TopicName::default() } else { topic.name.clone() })
                .with_topic_id(uuid::Uuid::from_bytes(topic.id.0))
                .with_partition_responses(partitions)
        })
        .collect();
    if acks == Some(Acks::None) {
        return if failed { Answer::Close } else { Answer::Nothing };
    }
    let mut response = ProduceResponse::default().with_responses(responses);
    if context.version() >= 10 {
        response.node_endpoints = endpoints(context, &image, hinted);
    }
    encode(context.version(), context.head.correlation_id, &response.into())
}

fn partition_response(
    context: &RequestContext,
    image: &MetadataImage,
    topic: &Topic,
    index: PartitionIndex,
    outcome: &Outcome,
    hinted: &mut Vec<BrokerId>,
) -> PartitionProduceResponse {
    let mut response = PartitionProduceResponse::default().with_index(index.0).with_base_offset(-1);
    let error = match outcome {
        Outcome::Refused(refusal) => {
            if context.version() >= 8 {
                response.record_errors = refusal
                    .records
                    .iter()
                    .map(|(index, message)| {
                        BatchIndexAndErrorMessage::default()
                            .with_batch_index(*index)
                            .with_batch_index_error_message(Some(message.clone().into()))
                    })
                    .collect();
                response.error_message = refusal.message.clone().map(Into::into);
            }
            refusal.error
        }
        Outcome::Settled(settled) => match settled {
            Ok(appended) => {
                response.base_offset = appended.base_offset.0;
                response.log_append_time_ms = appended.log_append_time.0;
                response.log_start_offset = appended.log_start_offset.0;
                return response;
            }
            Err(Unsettled::Failed(error)) => *error,
            Err(Unsettled::Rejected(reject)) => {
                response.error_message =
                    reject.message().filter(|_| context.version() >= 8).map(StrBytes::from_static_str);
                reject.error_code()
            }
        },
        Outcome::Ready(..) | Outcome::Large(_) | Outcome::Sent(_) => unreachable!("settled before it is answered"),
    };
    response.error_code = error.code();
    if context.version() >= 10
        && error == ErrorCode::NotLeaderOrFollower
        && let Some(found) = image.topic_by_id(topic.id).or_else(|| image.topic_by_name(&topic.name))
        && let Some(registration) = found.partition(index)
        && let Some(leader) = registration.leader
    {
        hinted.push(leader);
        response.current_leader = LeaderIdAndEpoch::default()
            .with_leader_id(WireBrokerId(leader.0))
            .with_leader_epoch(registration.leader_epoch.0);
    }
    response
}

fn endpoints(context: &RequestContext, image: &MetadataImage, mut brokers: Vec<BrokerId>) -> Vec<NodeEndpoint> {
    brokers.sort_unstable();
    brokers.dedup();
    brokers
        .into_iter()
        .filter_map(|id| {
            let broker = image.broker(id)?;
            let endpoint = broker.endpoint(&context.listener)?;
            Some(
                NodeEndpoint::default()
                    .with_node_id(WireBrokerId(id.0))
                    .with_host(endpoint.host.to_string().into())
                    .with_port(i32::from(endpoint.port))
                    .with_rack(broker.rack.as_ref().map(|rack| rack.to_string().into())),
            )
        })
        .collect()
}
