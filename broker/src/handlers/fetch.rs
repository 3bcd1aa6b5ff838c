//! Fetch (key 1): batches as they lie in the log, to consumers.
//!
//! *Behaviour*: reads every wanted partition; answers at once when enough bytes are there, a partition fails, or the
//! client does not wait; else waits until a partition publishes progress and looks again, at most `max_wait_ms`
//! (KIP-227 sessions, KIP-74 limits, KIP-516 topic ids, KIP-951 leader hints). From 11 on a follower in step answers as
//! well, up to the high watermark it has heard of, and with `replica.selector.class` set a leader names the in-sync
//! replica in the client's rack, and reads nothing (KIP-392).
//! *Versions*: 4–17. From 13 on topics are named by id; from 12 on a reader's last epoch is checked against ours.
//! *Differences from Kafka*: a request with a replica id is refused: clients cannot replicate (DESIGN §4). A follower out
//! of the in-sync set, or whose leader has not opened its stream, answers NOT_LEADER_OR_FOLLOWER, and to an offset beyond
//! its log OFFSET_NOT_AVAILABLE: neither makes a client reset its position, as OFFSET_OUT_OF_RANGE may.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stonelog_protocol::batch::Batches;
use stonelog_protocol::codec::fetch::{
    CurrentLeader, EpochEnd, FetchPartition, FetchResponse, FetchTopic, NodeEndpoint, encode_fetch_response,
};
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::FetchRequest;
use stonelog_protocol::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use stonelog_replication::metadata::MetadataImage;
use stonelog_replication::partition::{ReadsNear, Reject};
use stonelog_replication::progress::Progress;
use stonelog_replication::runtime::read::{ReadAnswer, ReadDone, ReadRequest, Reader};

use crate::fetch::merge;
use crate::fetch::session::{Begun, Mode, NO_SESSION, PartitionKey, Said, TopicKey, Wanted};
use crate::network::connection::Answer;
use crate::request::RequestContext;

/// First version that names topics by id.
const BY_ID: i16 = 13;

/// First version that names the client's rack, and that a follower answers.
const FROM_FOLLOWERS: i16 = 11;

/// The longest that a request waits for records, whatever it says: what waits looks again at each progress.
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);

/// One wanted partition and what became of it.
struct Entry {
    key: PartitionKey,
    wanted: Wanted,
    /// Where it is, or why it cannot be read.
    place: Result<TopicPartition, ErrorCode>,
    topic: Option<(Arc<str>, TopicId)>,
    answer: Option<ReadAnswer>,
}

/// Answers a Fetch request.
pub async fn handle(context: RequestContext, request: FetchRequest) -> Answer {
    let (version, correlation_id) = (context.version(), context.head.correlation_id);
    let response = respond(&context, request).await;
    match encode_fetch_response(version, correlation_id, response) {
        Ok(pieces) => Answer::Frame(pieces),
        Err(error) => {
            tracing::error!("cannot encode a Fetch response of version {version}: {error}");
            Answer::Close
        }
    }
}

async fn respond(context: &RequestContext, request: FetchRequest) -> FetchResponse {
    let version = context.version();
    if request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0 {
        return failed(ErrorCode::InvalidRequest);
    }
    let (named, forgotten) = read_wanted(version, &request);
    let now = context.broker.node.clock.mono();
    let begun = context.broker.fetch_sessions(request.session_id).begin(
        request.session_id,
        if version >= 7 { request.session_epoch } else { crate::fetch::session::FINAL_EPOCH },
        named,
        &forgotten,
        now,
    );
    let Begun { mode, wanted } = match begun {
        Ok(begun) => begun,
        Err(error) => return failed(error),
    };
    let limits = Limits::of(&request, context.broker.config.fetch.response_bytes_max as usize, now);
    let mut entries: Vec<Entry> =
        wanted.into_iter().map(|(key, wanted)| resolve(&context.image(), key, wanted)).collect();
    let reader = reader(context, &request);
    read_until_enough(context, &reader, &mut entries, &limits).await;
    answer(context, mode, entries)
}

fn reader(context: &RequestContext, request: &FetchRequest) -> Reader {
    if context.version() < FROM_FOLLOWERS {
        return Reader::OfLeader;
    }
    let is_near = context.broker.config.fetch.from_same_rack && !request.rack_id.is_empty();
    let near = is_near
        .then(|| ReadsNear { rack: Arc::from(request.rack_id.as_str()), listener: Arc::from(&*context.listener) });
    Reader::OfAny { near }
}

struct Limits {
    bytes_max: usize,
    bytes_min: usize,
    until: Instant,
}

impl Limits {
    /// What the request asks for, within what the broker answers at most. More than the answer can hold is not waited for
    /// (`KafkaApis.handleFetchRequest`).
    fn of(request: &FetchRequest, response_bytes_max: usize, now: Instant) -> Limits {
        let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(response_bytes_max);
        Limits {
            bytes_max,
            bytes_min: usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max),
            until: now + Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX),
        }
    }
}

fn failed(error: ErrorCode) -> FetchResponse {
    FetchResponse { throttle_ms: 0, error, session_id: NO_SESSION, topics: Vec::new(), node_endpoints: Vec::new() }
}

/// The partitions a request names, and those it wants forgotten.
fn read_wanted(version: i16, request: &FetchRequest) -> (Vec<(PartitionKey, Wanted)>, Vec<PartitionKey>) {
    let topic_key = |name: &str, id: &[u8; 16]| match version {
        BY_ID.. => TopicKey::Id(stonelog_protocol::Uuid(*id)),
        _ => TopicKey::Name(name.into()),
    };
    // Each partition once, where it was named first, as it is wanted last (`FetchRequest.fetchData` is a map).
    let mut places: HashMap<PartitionKey, usize> = HashMap::new();
    let mut named: Vec<(PartitionKey, Wanted)> = Vec::new();
    for topic in &request.topics {
        let key = topic_key(&topic.topic, topic.topic_id.as_bytes());
        for partition in &topic.partitions {
            let key = PartitionKey { topic: key.clone(), partition: PartitionIndex(partition.partition) };
            let wanted = Wanted {
                fetch_offset: Offset(partition.fetch_offset),
                log_start_offset: Offset(partition.log_start_offset),
                max_bytes: partition.partition_max_bytes,
                current_leader_epoch: LeaderEpoch(partition.current_leader_epoch),
                last_fetched_epoch: LeaderEpoch(partition.last_fetched_epoch),
            };
            match places.entry(key.clone()) {
                hash_map::Entry::Occupied(place) => named[*place.get()].1 = wanted,
                hash_map::Entry::Vacant(place) => {
                    place.insert(named.len());
                    named.push((key, wanted));
                }
            }
        }
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let key = topic_key(&topic.topic, topic.topic_id.as_bytes());
        forgotten.extend(
            topic.partitions.iter().map(|index| PartitionKey { topic: key.clone(), partition: PartitionIndex(*index) }),
        );
    }
    (named, forgotten)
}

fn resolve(image: &MetadataImage, key: PartitionKey, wanted: Wanted) -> Entry {
    let topic = match &key.topic {
        TopicKey::Name(name) => image.topic_by_name(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        TopicKey::Id(id) => image.topic_by_id(*id).ok_or(ErrorCode::UnknownTopicId),
    };
    let place = topic.and_then(|topic| match topic.partition(key.partition) {
        Some(_) => Ok(TopicPartition { topic_id: topic.id, partition: key.partition }),
        None => Err(ErrorCode::UnknownTopicOrPartition),
    });
    let topic = topic.ok().map(|topic| (Arc::clone(&topic.name), topic.id));
    Entry { key, wanted, place, topic, answer: None }
}

/// Reads; while that is not enough and there is time, waits for progress and reads again.
async fn read_until_enough(context: &RequestContext, reader: &Reader, entries: &mut [Entry], limits: &Limits) {
    loop {
        read_once(context, reader, entries, limits.bytes_max).await;
        let bytes = merge::keep_within(
            entries
                .iter_mut()
                .filter_map(|entry| entry.answer.as_mut()?.done.as_mut().ok().map(|done| &mut done.batches)),
            limits.bytes_max,
        );
        let is_news = entries.iter().any(|entry| match (&entry.place, &entry.answer) {
            (Err(_), _) | (_, None) => true,
            (Ok(_), Some(answer)) => answer.done.as_ref().map_or(true, has_news),
        });
        let now = context.broker.node.clock.mono();
        if entries.is_empty() || is_news || bytes >= limits.bytes_min || now >= limits.until {
            return;
        }
        let readable: usize = entries.iter().map(|entry| readable(entry, limits.bytes_max)).sum();
        if bytes > 0 && readable >= limits.bytes_min {
            return;
        }
        let progress = wait_for_progress(context, entries);
        if tokio::time::timeout_at(limits.until.into(), progress).await.is_err() && bytes > 0 {
            return;
        }
    }
}

fn has_news(done: &ReadDone) -> bool {
    done.diverging.is_some() || done.preferred.is_some()
}

/// What a partition counts towards `min_bytes`: what was read, or, if more lies below the high watermark, as much as the
/// limits allow (`DelayedFetch.tryComplete`). Whole batches seldom fill a limit to the last byte, and a read ends with
/// its segment.
fn readable(entry: &Entry, bytes_max: usize) -> usize {
    let Some(ReadAnswer { done: Ok(done), progress: Some(progress) }) = &entry.answer else { return 0 };
    let last = done.batches.last().and_then(|run| Batches::new(run).filter_map(Result::ok).last());
    let end = last.map_or(entry.wanted.fetch_offset, |(header, _)| header.next_offset());
    let bytes = done.batches.iter().map(Bytes::len).sum();
    match end < progress.high_watermark {
        true => usize::try_from(entry.wanted.max_bytes).unwrap_or(0).min(bytes_max).max(bytes),
        false => bytes,
    }
}

/// One round over the lanes that own the partitions, all at the same time.
async fn read_once(context: &RequestContext, reader: &Reader, entries: &mut [Entry], bytes_max: usize) {
    let lanes = context.lane.lanes();
    let mut by_lane: BTreeMap<usize, (Vec<usize>, Vec<ReadRequest>)> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let Ok(partition) = entry.place else { continue };
        let (indexes, requests) = by_lane.entry(lanes.owner(partition)).or_default();
        indexes.push(index);
        requests.push(ReadRequest {
            partition,
            fetch_offset: entry.wanted.fetch_offset,
            bytes_max: usize::try_from(entry.wanted.max_bytes).unwrap_or(0),
            current_leader_epoch: entry.wanted.current_leader_epoch,
            last_fetched_epoch: entry.wanted.last_fetched_epoch,
        });
    }
    let reads: Vec<_> = by_lane
        .into_iter()
        .map(|(owner, (indexes, requests))| {
            let reader = reader.clone();
            (indexes, lanes.call(owner, move |lane| lane.read_all(reader, requests, bytes_max)))
        })
        .collect();
    for (indexes, read) in reads {
        for (index, answer) in indexes.into_iter().zip(read.await) {
            entries[index].answer = Some(answer);
        }
    }
}

/// Resolves when any of the partitions has news.
async fn wait_for_progress(context: &RequestContext, entries: &[Entry]) {
    let lanes = context.lane.lanes();
    let mut by_lane: BTreeMap<usize, Vec<Progress>> = BTreeMap::new();
    for progress in entries.iter().filter_map(|entry| entry.answer.as_ref()?.progress) {
        by_lane.entry(lanes.owner(progress.partition)).or_default().push(progress);
    }
    let mut waits: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> = Vec::with_capacity(by_lane.len());
    for (owner, seen) in by_lane {
        waits.push(Box::pin(lanes.call(owner, move |lane| async move { lane.any_changed(&seen).await })));
    }
    std::future::poll_fn(move |task| match waits.iter_mut().any(|wait| wait.as_mut().poll(task).is_ready()) {
        true => std::task::Poll::Ready(()),
        false => std::task::Poll::Pending,
    })
    .await;
}

/// Builds the answer and settles the session.
fn answer(context: &RequestContext, mode: Mode, entries: Vec<Entry>) -> FetchResponse {
    let image = context.image();
    let mut hinted = Vec::new();
    let partitions: Vec<(Entry, FetchPartition)> = entries
        .into_iter()
        .map(|mut entry| {
            let partition = fetch_partition(context, &image, &mut entry, &mut hinted);
            (entry, partition)
        })
        .collect();
    let now = context.broker.node.clock.mono();
    let (session_id, kept) = match mode {
        Mode::Sessionless => (NO_SESSION, vec![true; partitions.len()]),
        Mode::Full => {
            let answered: Vec<_> =
                partitions.iter().map(|(entry, said)| (entry.key.clone(), entry.wanted, summary(said))).collect();
            let id = context.broker.fresh_session_id();
            let id = context.broker.fetch_sessions(id).establish(id, &answered, now);
            (id, vec![true; partitions.len()])
        }
        Mode::Incremental { id } => {
            let answered: Vec<_> = partitions.iter().map(|(entry, said)| (entry.key.clone(), summary(said))).collect();
            (id, context.broker.fetch_sessions(id).filter(id, &answered))
        }
    };
    let mut topics: Vec<FetchTopic> = Vec::new();
    for ((entry, partition), kept) in partitions.into_iter().zip(kept) {
        if !kept {
            continue;
        }
        let (name, id) = name_and_id(&entry);
        match topics.last_mut() {
            Some(last) if last.id == id && last.name == name => last.partitions.push(partition),
            _ => topics.push(FetchTopic { name, id, partitions: vec![partition] }),
        }
    }
    let node_endpoints = if context.version() >= 16 { endpoints(context, &image, hinted) } else { Vec::new() };
    FetchResponse { throttle_ms: 0, error: ErrorCode::None, session_id, topics, node_endpoints }
}

fn name_and_id(entry: &Entry) -> (Arc<str>, TopicId) {
    match (&entry.topic, &entry.key.topic) {
        (Some((name, id)), _) => (Arc::clone(name), *id),
        (None, TopicKey::Name(name)) => (Arc::clone(name), TopicId::ZERO),
        (None, TopicKey::Id(id)) => (Arc::from(""), *id),
    }
}

fn summary(said: &FetchPartition) -> Said {
    Said {
        high_watermark: said.high_watermark,
        log_start_offset: said.log_start_offset,
        has_records: !said.records.is_empty(),
        failed: said.error.is_error(),
        has_news: said.diverging_epoch.is_some() || said.preferred_read_replica.is_some(),
    }
}

fn fetch_partition(
    context: &RequestContext,
    image: &MetadataImage,
    entry: &mut Entry,
    hinted: &mut Vec<BrokerId>,
) -> FetchPartition {
    let index = entry.key.partition;
    let (answer, place) = match (&entry.place, entry.answer.take()) {
        (Ok(place), Some(answer)) => (answer, *place),
        (Ok(_), None) => return FetchPartition::of_error(index, ErrorCode::UnknownServerError),
        (Err(error), _) => return FetchPartition::of_error(index, *error),
    };
    let mut partition = match answer.done {
        Ok(done) => FetchPartition {
            diverging_epoch: done.diverging.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset }),
            preferred_read_replica: done.preferred,
            records: done.batches,
            ..FetchPartition::of_error(index, ErrorCode::None)
        },
        Err(reject) => {
            let mut partition = FetchPartition::of_error(index, error_for(reject, context.version()));
            if matches!(reject, Reject::NotLeader(_) | Reject::FencedEpoch)
                && context.version() >= 12
                && let Some(hint) = leader_hint(image, place)
            {
                hinted.push(hint.leader);
                partition.current_leader = Some(hint);
            }
            partition
        }
    };
    if let Some(progress) = answer.progress
        && !partition.error.is_error()
    {
        partition.high_watermark = progress.high_watermark;
        partition.last_stable_offset = progress.last_stable_offset;
        partition.log_start_offset = progress.log_start_offset;
    }
    partition
}

/// Old clients do not know KAFKA_STORAGE_ERROR (`FetchResponse`, versions up to 5).
fn error_for(reject: Reject, version: i16) -> ErrorCode {
    match reject.error_code() {
        ErrorCode::KafkaStorageError if version <= 5 => ErrorCode::NotLeaderOrFollower,
        code => code,
    }
}

fn leader_hint(image: &MetadataImage, place: TopicPartition) -> Option<CurrentLeader> {
    let registration = image.topic_by_id(place.topic_id)?.partition(place.partition)?;
    Some(CurrentLeader { leader: registration.leader?, leader_epoch: registration.leader_epoch })
}

fn endpoints(context: &RequestContext, image: &MetadataImage, mut brokers: Vec<BrokerId>) -> Vec<NodeEndpoint> {
    brokers.sort_unstable();
    brokers.dedup();
    let listener = Rc::new(Arc::clone(&context.listener));
    brokers
        .into_iter()
        .filter_map(|id| {
            let broker = image.broker(id)?;
            let endpoint = broker.endpoint(&listener)?;
            Some(NodeEndpoint {
                node: id,
                host: Arc::clone(&endpoint.host),
                port: i32::from(endpoint.port),
                rack: broker.rack.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::StrBytes;
    use stonelog_protocol::messages::fetch_request::{FetchPartition as WirePartition, FetchTopic};

    use super::*;

    #[test]
    fn more_than_the_answer_can_hold_is_not_waited_for() {
        #[allow(clippy::disallowed_methods, reason = "a test needs some instant")]
        let now = Instant::now();
        let request = FetchRequest::default().with_min_bytes(1 << 30).with_max_bytes(1 << 20).with_max_wait_ms(500);
        let limits = Limits::of(&request, 55 << 20, now);
        assert_eq!((limits.bytes_min, limits.bytes_max), (1 << 20, 1 << 20));
        assert_eq!(limits.until, now + Duration::from_millis(500));
        let limits = Limits::of(&request.with_max_bytes(i32::MAX), 55 << 20, now);
        assert_eq!((limits.bytes_min, limits.bytes_max), (55 << 20, 55 << 20));
    }
    #[test]
    fn nobody_waits_for_days() {
        #[allow(clippy::disallowed_methods, reason = "a test needs some instant")]
        let now = Instant::now();
        let limits = Limits::of(&FetchRequest::default().with_max_wait_ms(i32::MAX), 55 << 20, now);
        assert_eq!(limits.until, now + WAIT_MAX);
    }

    #[test]
    fn a_partition_that_is_named_twice_is_read_once_as_it_is_wanted_last() {
        let one = |index, offset| WirePartition::default().with_partition(index).with_fetch_offset(offset);
        let topic = |partitions: Vec<WirePartition>| {
            FetchTopic::default().with_topic(StrBytes::from_static_str("t").into()).with_partitions(partitions)
        };
        let topics = vec![topic(vec![one(0, 1), one(1, 2), one(0, 3)]), topic(vec![one(0, 4)])];
        let (named, _) = read_wanted(12, &FetchRequest::default().with_topics(topics));
        let offsets: Vec<_> = named.iter().map(|(key, wanted)| (key.partition.0, wanted.fetch_offset.0)).collect();
        assert_eq!(offsets, [(0, 4), (1, 2)]);
    }
}
