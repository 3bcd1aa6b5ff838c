//! Produce (key 0): the front of the produce walk.
//!
//! *Behaviour*: validates each batch in Kafka's order, appends it on the lane that owns its partition, and answers when
//! the partition's progress has passed it. Requests of one connection are appended in their order and may wait
//! together. `acks=0` is answered with nothing; if it fails, the connection closes.
//! *Versions*: 3–13. From 8 on record errors are listed, from 10 on leader hints are given (KIP-951), from 13 on topics
//! are named by id.
//! *Differences from Kafka*: on a strict topic `acks=1` waits as `acks=all` does. Until transactions exist, anything
//! transactional answers TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which clients do not retry.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use stonelog_protocol::StrBytes;
use stonelog_protocol::batch::recompress::recompress;
use stonelog_protocol::batch::validate::{self, BatchReject, BatchRules, validate_produced};
use stonelog_protocol::batch::{BatchHeader, Compression};
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use stonelog_protocol::messages::{BrokerId as WireBrokerId, ProduceRequest, ProduceResponse, TopicName};
use stonelog_protocol::{BrokerId, PartitionIndex, Timestamp, TopicPartition, Uuid};
use stonelog_replication::metadata::MetadataImage;
use stonelog_replication::metadata::topic::TopicImage;
use stonelog_replication::partition::{Acks, Reject};
use stonelog_replication::runtime::lane::{Append, Appended, Lane};
use stonelog_replication::settings::topic::{Compression as WantedCompression, TimestampType, TopicConfig};

use crate::network::connection::{Answer, Started};
use crate::request::{RequestContext, encode};

/// What a compressed batch may open to while it is validated.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;
/// The one client that may write internal topics (`ReplicaManager.appendToLocalLog`).
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// What becomes of one partition.
enum Outcome {
    /// Refused before anything was stored.
    Refused(Refusal),
    /// On its way; the index of its append among those of its lane.
    Sent { owner: usize, index: usize },
}

struct Refusal {
    error: ErrorCode,
    message: Option<String>,
    records: Vec<(i32, String)>,
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Refusal {
        Refusal { error, message: None, records: Vec::new() }
    }
}

impl From<BatchReject> for Refusal {
    fn from(reject: BatchReject) -> Refusal {
        let records = reject.records.iter().map(|record| (record.index, record.reason.to_string())).collect();
        Refusal { error: reject.error, message: Some(reject.reason.to_string()), records }
    }
}

/// A lane's answer for one append.
type Settled = Result<(Appended, Result<(), ErrorCode>), Reject>;

/// One topic of the response in the making.
struct Topic {
    name: TopicName,
    id: Uuid,
    partitions: Vec<(PartitionIndex, Outcome)>,
}

/// Starts a Produce request: when this returns, every batch has been appended or is in its lane's inbox, in order.
pub fn start(context: RequestContext, request: ProduceRequest) -> Started {
    let acks = Acks::from_wire(request.acks);
    let is_transactional = request.transactional_id.is_some();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let image = context.image();
    let now = context.broker.node.clock.wall();
    let mut appends: BTreeMap<usize, Vec<Append>> = BTreeMap::new();
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
            let judged = match (acks, found, &config) {
                (None, _, _) => Err(ErrorCode::InvalidRequiredAcks.into()),
                _ if is_transactional => Err(ErrorCode::TransactionalIdAuthorizationFailed.into()),
                (Some(acks), Ok(topic), Some(config)) => {
                    judge(&context, topic, config, index, partition.records, acks, now)
                }
                (_, Err(error), _) => Err(error.into()),
                (_, Ok(_), None) => unreachable!("a found topic has settings"),
            };
            partitions.push((
                index,
                match judged {
                    Ok(append) => {
                        let owner = context.lane.lanes().owner(append.partition);
                        let appends = appends.entry(owner).or_default();
                        appends.push(append);
                        Outcome::Sent { owner, index: appends.len() - 1 }
                    }
                    Err(refusal) => Outcome::Refused(refusal),
                },
            ));
        }
        topics.push(Topic { name, id: Uuid(*data.topic_id.as_bytes()), partitions });
    }
    let deadline = context.broker.node.clock.mono() + timeout;
    let waits: Vec<_> = appends
        .into_iter()
        .map(|(owner, appends)| {
            (owner, context.lane.lanes().call(owner, move |lane| append_all(lane, appends, deadline)))
        })
        .collect();
    Started::Pipelined(Box::pin(async move {
        let mut settled: BTreeMap<usize, Vec<Settled>> = BTreeMap::new();
        for (owner, wait) in waits {
            settled.insert(owner, wait.await);
        }
        finish(&context, acks, &topics, &settled)
    }))
}

/// Looks at one partition's batch: may it be appended, and as which bytes.
fn judge(
    context: &RequestContext,
    topic: &Arc<TopicImage>,
    config: &Rc<TopicConfig>,
    index: PartitionIndex,
    records: Option<Bytes>,
    acks: Acks,
    now: Timestamp,
) -> Result<Append, Refusal> {
    if topic.partition(index).is_none() {
        return Err(ErrorCode::UnknownTopicOrPartition.into());
    }
    if topic.internal && *context.head.client_id != *ADMIN_CLIENT_ID {
        return Err(ErrorCode::InvalidTopicException.into());
    }
    let records = records.unwrap_or_default();
    let timestamps = match config.timestamp_type {
        TimestampType::CreateTime => validate::TimestampType::CreateTime,
        TimestampType::LogAppendTime => validate::TimestampType::LogAppendTime,
    };
    let produced = validate_produced(&records, context.version(), &rules(config, timestamps), now)?;
    if produced.header.is_transactional() {
        return Err(ErrorCode::TransactionalIdAuthorizationFailed.into());
    }
    let mut batch = match wanted_codec(config) {
        Some((codec, level)) if produced.header.compression() != Some(codec) => {
            let packed = recompress(&records, &produced.header, codec, level, DECOMPRESSED_BYTES_MAX);
            BytesMut::from(Bytes::from(packed.map_err(|_| ErrorCode::CorruptMessage)?))
        }
        _ => own_buffer(records, context.frame_bytes),
    };
    if timestamps == validate::TimestampType::CreateTime {
        produced.stamp(&mut batch, timestamps, now);
    }
    let header = BatchHeader::read(&batch).map_err(|_| ErrorCode::CorruptMessage)?;
    let partition = TopicPartition { topic_id: topic.id, partition: index };
    Ok(Append { partition, batch, header, acks })
}

/// The batch in a buffer of its own. Where it is most of its frame, and alone in it, it stays as it arrived; else it is
/// copied, so that in memory it keeps no more than its own bytes alive.
fn own_buffer(batch: Bytes, frame_bytes: usize) -> BytesMut {
    if batch.len() < frame_bytes / 2 {
        return BytesMut::from(&batch[..]);
    }
    batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}

fn rules(config: &TopicConfig, timestamp_type: validate::TimestampType) -> BatchRules {
    let ms =
        |limit: Option<Duration>| limit.map_or(i64::MAX, |limit| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
    BatchRules {
        message_bytes_max: config.max_message_bytes as usize,
        segment_bytes: config.segment_bytes as usize,
        is_compacted: config.cleanup_policy.compact,
        timestamp_type,
        timestamp_before_ms_max: ms(config.timestamp_before_max),
        timestamp_after_ms_max: ms(config.timestamp_after_max),
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
    }
}

/// The codec that the topic demands, with its level.
fn wanted_codec(config: &TopicConfig) -> Option<(Compression, Option<i32>)> {
    match config.compression {
        WantedCompression::Producer => None,
        WantedCompression::Uncompressed => Some((Compression::None, None)),
        WantedCompression::Gzip => Some((Compression::Gzip, Some(config.gzip_level))),
        WantedCompression::Snappy => Some((Compression::Snappy, None)),
        WantedCompression::Lz4 => Some((Compression::Lz4, Some(config.lz4_level))),
        WantedCompression::Zstd => Some((Compression::Zstd, Some(config.zstd_level))),
    }
}

/// On the owner's lane: appends at once, in order; waits afterwards.
fn append_all(lane: Rc<Lane>, appends: Vec<Append>, deadline: Instant) -> impl Future<Output = Vec<Settled>> {
    let appended: Vec<_> = appends.into_iter().map(|append| lane.append(append)).collect();
    async move {
        let mut settled = Vec::with_capacity(appended.len());
        for appended in appended {
            settled.push(match appended {
                Ok(appended) => {
                    let acknowledged = Rc::clone(&lane).acknowledged(appended.receipt, deadline).await;
                    Ok((appended, acknowledged))
                }
                Err(reject) => Err(reject),
            });
        }
        settled
    }
}

fn finish(
    context: &RequestContext,
    acks: Option<Acks>,
    topics: &[Topic],
    settled: &BTreeMap<usize, Vec<Settled>>,
) -> Answer {
    let mut hinted = Vec::new();
    let mut failed = false;
    let image = context.image();
    let responses = topics
        .iter()
        .map(|topic| {
            let partitions = topic.partitions.iter().map(|(index, outcome)| {
                let response = partition_response(context, &image, topic, *index, outcome, settled, &mut hinted);
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
    settled: &BTreeMap<usize, Vec<Settled>>,
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
        Outcome::Sent { owner, index } => match &settled[owner][*index] {
            Ok((appended, Ok(()))) => {
                response.base_offset = appended.base_offset.0;
                response.log_append_time_ms = appended.log_append_time.0;
                response.log_start_offset = appended.log_start_offset.0;
                return response;
            }
            Ok((_, Err(error))) => *error,
            Err(reject) => reject.error_code(),
        },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_batch_does_not_keep_its_large_frame_alive() {
        let frame = Bytes::from(vec![7; 1 << 20]);
        let mut batch = frame.clone();
        drop(frame);
        drop(batch.split_to((1 << 20) - 100));
        let owned = own_buffer(batch, 1 << 20);
        assert_eq!(owned.len(), 100);
        assert!(owned.capacity() < 1 << 10);
    }

    #[test]
    fn batch_that_is_most_of_its_frame_is_not_copied() {
        let frame = Bytes::from(vec![7; 1 << 20]);
        let at = frame.as_ptr();
        let owned = own_buffer(frame, (1 << 20) + 100);
        assert_eq!(owned.as_ptr(), at);
    }
}
