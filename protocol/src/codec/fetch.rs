//! The Fetch response, written by hand so that records leave as they lie.
//!
//! kafka-protocol would copy every batch into its buffer. Here all that is not records goes into one small buffer, and
//! the answer is that buffer's pieces with the record slices in between, for one vectored write:
//!
//! ```text
//! length, header, topic, partition head | records | partition tail, partition head | records | … | tail
//! ```
//!
//! Versions 4 to 17 (18 is for KRaft followers). What a version cannot say is left out: session fields before 7, topic
//! names from 13 on, leader hints and diverging epochs before 12 (KIP-595), endpoints before 16 (KIP-951).
//! The bytes are those of kafka-protocol's encoder at every version; the tests compare them.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::EncodeError;
use crate::api::ApiName;
use crate::frame::LENGTH_BYTES;
use crate::varint;
use crate::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId};

/// A whole Fetch response.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchResponse {
    /// How long the client shall wait before its next request, in milliseconds.
    pub throttle_ms: i32,
    /// The error of the request as a whole: of its session. From version 7 on.
    pub error: ErrorCode,
    /// The fetch session, or 0. From version 7 on.
    pub session_id: i32,
    /// Answers by topic, in the order they were read.
    pub topics: Vec<FetchTopic>,
    /// Where the leaders hinted at by `current_leader` are. From version 16 on.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// The answers of one topic.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchTopic {
    /// The topic's name; written up to version 12, so it may be empty above.
    pub name: Arc<str>,
    /// The topic's id; written from version 13 on.
    pub id: TopicId,
    /// The answers of its partitions.
    pub partitions: Vec<FetchPartition>,
}

/// The answer of one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchPartition {
    /// Which partition.
    pub partition: PartitionIndex,
    /// Its error.
    pub error: ErrorCode,
    /// The end of what consumers may read.
    pub high_watermark: Offset,
    /// The end of what transactional consumers may read.
    pub last_stable_offset: Offset,
    /// The first offset there is. From version 5 on.
    pub log_start_offset: Offset,
    /// Where the reader's history parts from ours. From version 12 on.
    pub diverging_epoch: Option<EpochEnd>,
    /// Who leads instead of us. From version 12 on.
    pub current_leader: Option<CurrentLeader>,
    /// Aborted transactions that overlap the records; `None` unless the reader asked for committed records only.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// The replica to read from instead, if any. From version 11 on.
    pub preferred_read_replica: Option<BrokerId>,
    /// Whole batches in order, in as many slices as they lie in. No slice means no records, never null.
    pub records: Vec<Bytes>,
}

impl FetchPartition {
    /// An answer that says no more than an error.
    pub fn of_error(partition: PartitionIndex, error: ErrorCode) -> FetchPartition {
        FetchPartition {
            partition,
            error,
            high_watermark: Offset::NONE,
            last_stable_offset: Offset::NONE,
            log_start_offset: Offset::NONE,
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: None,
            preferred_read_replica: None,
            records: Vec::new(),
        }
    }

    /// Bytes of all records.
    pub fn records_bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }
}

/// The end of a leader epoch in the leader's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The offset after its last record.
    pub end_offset: Offset,
}

/// A partition's leader as the answering broker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentLeader {
    /// The leader.
    pub leader: BrokerId,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
}

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: ProducerId,
    /// Its first record in this partition.
    pub first_offset: Offset,
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The broker.
    pub node: BrokerId,
    /// Host name or address.
    pub host: Arc<str>,
    /// Port.
    pub port: i32,
    /// Rack, if it has one.
    pub rack: Option<Arc<str>>,
}

/// Encodes a Fetch response of an accepted version, frame length included.
///
/// The answer's pieces are to be written in order, as one frame. Fails only when the frame is above 2 GiB.
pub fn encode_fetch_response(
    version: i16,
    correlation_id: i32,
    response: FetchResponse,
) -> Result<Vec<Bytes>, EncodeError> {
    let api = ApiName::Fetch.api();
    assert!(api.accepts(version), "the version was checked when the request was read");
    let mut writer = Writer { head: BytesMut::with_capacity(256), cuts: Vec::new(), version };
    writer.head.put_i32(0);
    writer.head.put_i32(correlation_id);
    if writer.is_flexible() {
        writer.head.put_u8(0);
    }
    writer.response(response);
    writer.finish()
}

struct Writer {
    /// Everything that is not records.
    head: BytesMut,
    /// Record slices, each with the position in `head` that it comes at. Positions do not fall.
    cuts: Vec<(usize, Bytes)>,
    version: i16,
}

impl Writer {
    fn is_flexible(&self) -> bool {
        self.version >= 12
    }

    fn finish(self) -> Result<Vec<Bytes>, EncodeError> {
        let Writer { mut head, cuts, .. } = self;
        let frame_bytes = head.len() - LENGTH_BYTES + cuts.iter().map(|(_, records)| records.len()).sum::<usize>();
        let length = i32::try_from(frame_bytes).map_err(|_| EncodeError::TooLong(frame_bytes))?;
        head[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        let mut rest = head.freeze();
        let mut pieces = Vec::with_capacity(2 * cuts.len() + 1);
        let mut written = 0;
        for (at, records) in cuts {
            if at > written {
                pieces.push(rest.split_to(at - written));
                written = at;
            }
            pieces.push(records);
        }
        if !rest.is_empty() {
            pieces.push(rest);
        }
        Ok(pieces)
    }

    fn response(&mut self, response: FetchResponse) {
        self.head.put_i32(response.throttle_ms);
        if self.version >= 7 {
            self.head.put_i16(response.error.code());
            self.head.put_i32(response.session_id);
        }
        self.count(response.topics.len());
        for topic in response.topics {
            self.topic(topic);
        }
        if self.is_flexible() {
            self.response_tags(&response.node_endpoints);
        }
    }

    fn topic(&mut self, topic: FetchTopic) {
        if self.version >= 13 {
            self.head.put_slice(&topic.id.0);
        } else {
            self.text(&topic.name);
        }
        self.count(topic.partitions.len());
        for partition in topic.partitions {
            self.partition(partition);
        }
        self.no_tags();
    }

    fn partition(&mut self, partition: FetchPartition) {
        self.head.put_i32(partition.partition.0);
        self.head.put_i16(partition.error.code());
        self.head.put_i64(partition.high_watermark.0);
        self.head.put_i64(partition.last_stable_offset.0);
        if self.version >= 5 {
            self.head.put_i64(partition.log_start_offset.0);
        }
        self.aborted(partition.aborted_transactions.as_deref());
        if self.version >= 11 {
            self.head.put_i32(partition.preferred_read_replica.map_or(-1, |broker| broker.0));
        }
        self.records(partition.records);
        if self.is_flexible() {
            self.partition_tags(partition.diverging_epoch, partition.current_leader);
        }
    }

    fn aborted(&mut self, aborted: Option<&[AbortedTransaction]>) {
        let Some(aborted) = aborted else {
            return if self.is_flexible() { self.head.put_u8(0) } else { self.head.put_i32(-1) };
        };
        self.count(aborted.len());
        for transaction in aborted {
            self.head.put_i64(transaction.producer_id.0);
            self.head.put_i64(transaction.first_offset.0);
            self.no_tags();
        }
    }

    fn records(&mut self, records: Vec<Bytes>) {
        self.count(records.iter().map(Bytes::len).sum());
        let at = self.head.len();
        self.cuts.extend(records.into_iter().filter(|slice| !slice.is_empty()).map(|slice| (at, slice)));
    }

    fn partition_tags(&mut self, diverging: Option<EpochEnd>, leader: Option<CurrentLeader>) {
        self.head.put_u8(u8::from(diverging.is_some()) + u8::from(leader.is_some()));
        if let Some(diverging) = diverging {
            self.head.put_slice(&[0, 13]);
            self.head.put_i32(diverging.epoch.0);
            self.head.put_i64(diverging.end_offset.0);
            self.no_tags();
        }
        if let Some(leader) = leader {
            self.head.put_slice(&[1, 9]);
            self.head.put_i32(leader.leader.0);
            self.head.put_i32(leader.leader_epoch.0);
            self.no_tags();
        }
    }

    fn response_tags(&mut self, endpoints: &[NodeEndpoint]) {
        if self.version < 16 || endpoints.is_empty() {
            return self.head.put_u8(0);
        }
        let mut value =
            Writer { head: BytesMut::with_capacity(64 * endpoints.len()), cuts: Vec::new(), version: self.version };
        value.count(endpoints.len());
        for endpoint in endpoints {
            value.head.put_i32(endpoint.node.0);
            value.text(&endpoint.host);
            value.head.put_i32(endpoint.port);
            match &endpoint.rack {
                Some(rack) => value.text(rack),
                None => value.head.put_u8(0),
            }
            value.no_tags();
        }
        self.head.put_slice(&[1, 0]);
        put_uvarint(&mut self.head, value.head.len());
        self.head.put_slice(&value.head);
    }

    /// The length of records, or the count of an array: both are i32, or compact.
    fn count(&mut self, count: usize) {
        if self.is_flexible() {
            put_uvarint(&mut self.head, count + 1);
        } else {
            // A count above i32 makes the frame above i32, which `finish` refuses.
            self.head.put_i32(count as i32);
        }
    }

    /// `text` is a topic name, host or rack: far below the limit of 32,767 bytes.
    fn text(&mut self, text: &str) {
        if self.is_flexible() {
            put_uvarint(&mut self.head, text.len() + 1);
        } else {
            self.head.put_i16(text.len() as i16);
        }
        self.head.put_slice(text.as_bytes());
    }

    fn no_tags(&mut self) {
        if self.is_flexible() {
            self.head.put_u8(0);
        }
    }
}

fn put_uvarint(out: &mut BytesMut, value: usize) {
    let (bytes, length) = varint::encode_u64(value as u64);
    out.put_slice(&bytes[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode_response_of;
    use crate::messages::fetch_response as theirs;
    use crate::messages::{self, FetchRequest};

    fn partition(index: i32, records: &[&'static [u8]]) -> FetchPartition {
        FetchPartition {
            high_watermark: Offset(100 + i64::from(index)),
            last_stable_offset: Offset(90),
            log_start_offset: Offset(3),
            records: records.iter().map(|slice| Bytes::from_static(slice)).collect(),
            ..FetchPartition::of_error(PartitionIndex(index), ErrorCode::None)
        }
    }

    fn response(topics: Vec<Vec<FetchPartition>>) -> FetchResponse {
        let topics = topics.into_iter().enumerate().map(|(index, partitions)| FetchTopic {
            name: format!("topic-{index}").into(),
            id: crate::Uuid([index as u8 + 1; 16]),
            partitions,
        });
        FetchResponse {
            throttle_ms: 5,
            error: ErrorCode::None,
            session_id: 0,
            topics: topics.collect(),
            node_endpoints: Vec::new(),
        }
    }

    fn oracle(version: i16, ours: &FetchResponse) -> Vec<u8> {
        let mut response = messages::FetchResponse::default()
            .with_throttle_time_ms(ours.throttle_ms)
            .with_error_code(ours.error.code())
            .with_responses(ours.topics.iter().map(|topic| oracle_topic(version, topic)).collect());
        if version >= 7 {
            response = response.with_session_id(ours.session_id);
        }
        if version >= 16 {
            let endpoints = ours.node_endpoints.iter().map(|endpoint| {
                theirs::NodeEndpoint::default()
                    .with_node_id(endpoint.node.0.into())
                    .with_host(endpoint.host.to_string().into())
                    .with_port(endpoint.port)
                    .with_rack(endpoint.rack.as_ref().map(|rack| rack.to_string().into()))
            });
            response = response.with_node_endpoints(endpoints.collect());
        }
        encode_response_of::<FetchRequest>(version, 42, &response).unwrap().to_vec()
    }

    fn oracle_topic(version: i16, topic: &FetchTopic) -> theirs::FetchableTopicResponse {
        let partitions = topic.partitions.iter().map(|partition| oracle_partition(version, partition)).collect();
        let response = theirs::FetchableTopicResponse::default().with_partitions(partitions);
        match version {
            ..=12 => response.with_topic(messages::TopicName(topic.name.to_string().into())),
            _ => response.with_topic_id(topic.id.into()),
        }
    }

    fn oracle_partition(version: i16, ours: &FetchPartition) -> theirs::PartitionData {
        let aborted = ours.aborted_transactions.as_ref().map(|aborted| {
            let aborted = aborted.iter().map(|transaction| {
                theirs::AbortedTransaction::default()
                    .with_producer_id(transaction.producer_id.0.into())
                    .with_first_offset(transaction.first_offset.0)
            });
            aborted.collect()
        });
        let mut partition = theirs::PartitionData::default()
            .with_partition_index(ours.partition.0)
            .with_error_code(ours.error.code())
            .with_high_watermark(ours.high_watermark.0)
            .with_last_stable_offset(ours.last_stable_offset.0)
            .with_log_start_offset(ours.log_start_offset.0)
            .with_aborted_transactions(aborted)
            .with_records(Some(ours.records.concat().into()));
        if version >= 11 {
            let replica = ours.preferred_read_replica.map_or(-1, |broker| broker.0);
            partition = partition.with_preferred_read_replica(replica.into());
        }
        if version < 12 {
            return partition;
        }
        if let Some(diverging) = ours.diverging_epoch {
            partition = partition.with_diverging_epoch(
                theirs::EpochEndOffset::default().with_epoch(diverging.epoch.0).with_end_offset(diverging.end_offset.0),
            );
        }
        if let Some(leader) = ours.current_leader {
            partition = partition.with_current_leader(
                theirs::LeaderIdAndEpoch::default()
                    .with_leader_id(leader.leader.0.into())
                    .with_leader_epoch(leader.leader_epoch.0),
            );
        }
        partition
    }

    fn assert_same_bytes_at_every_version(ours: &FetchResponse) {
        for version in ApiName::Fetch.api().accepted.clone() {
            let pieces = encode_fetch_response(version, 42, ours.clone()).unwrap();
            assert_eq!(pieces.concat(), oracle(version, ours), "version {version}");
        }
    }

    #[test]
    fn empty_answers_are_those_of_the_codec() {
        assert_same_bytes_at_every_version(&response(vec![]));
        let error = FetchResponse { error: ErrorCode::FetchSessionIdNotFound, ..response(vec![]) };
        assert_same_bytes_at_every_version(&error);
        assert_same_bytes_at_every_version(&response(vec![vec![]]));
        assert_same_bytes_at_every_version(&response(vec![vec![partition(0, &[])]]));
    }

    #[test]
    fn one_and_many_partitions_are_those_of_the_codec() {
        assert_same_bytes_at_every_version(&response(vec![vec![partition(0, &[b"abc"])]]));
        let many: Vec<_> = (0..40).map(|index| partition(index, &[b"first ", b"", b"second"])).collect();
        let session = FetchResponse {
            session_id: 77,
            ..response(vec![many.clone(), vec![partition(7, &[]), partition(8, &[&[7; 300]])], many])
        };
        assert_same_bytes_at_every_version(&session);
    }

    #[test]
    fn hints_and_aborted_transactions_are_those_of_the_codec() {
        let aborted = vec![
            AbortedTransaction { producer_id: ProducerId(9), first_offset: Offset(50) },
            AbortedTransaction { producer_id: ProducerId(1), first_offset: Offset(60) },
        ];
        let fenced = FetchPartition {
            current_leader: Some(CurrentLeader { leader: BrokerId(3), leader_epoch: LeaderEpoch(8) }),
            ..FetchPartition::of_error(PartitionIndex(1), ErrorCode::FencedLeaderEpoch)
        };
        let diverging = FetchPartition {
            diverging_epoch: Some(EpochEnd { epoch: LeaderEpoch(4), end_offset: Offset(12) }),
            current_leader: fenced.current_leader,
            aborted_transactions: Some(vec![]),
            preferred_read_replica: Some(BrokerId(2)),
            ..partition(2, &[])
        };
        let committed = FetchPartition { aborted_transactions: Some(aborted), ..partition(3, &[b"x"]) };
        let node_endpoints = vec![
            NodeEndpoint { node: BrokerId(3), host: "three".into(), port: 9093, rack: Some("r".into()) },
            NodeEndpoint { node: BrokerId(4), host: "four".into(), port: 9094, rack: None },
        ];
        assert_same_bytes_at_every_version(&FetchResponse {
            node_endpoints,
            ..response(vec![vec![fenced, diverging, committed]])
        });
    }

    #[test]
    fn records_are_not_copied() {
        let records = Bytes::from(vec![1; 1000]);
        let lying_at = records.as_ptr();
        let mut answer = response(vec![vec![partition(0, &[])]]);
        answer.topics[0].partitions[0].records = vec![records];
        let pieces = encode_fetch_response(12, 1, answer).unwrap();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), lying_at);
    }
}
