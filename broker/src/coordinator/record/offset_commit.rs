//! The value of an offset record: what a group committed for one partition (`OffsetCommitValue`, versions 0 to 4).
//!
//! Layout by version, big-endian:
//!
//! ```text
//! v0   version=0  offset i64                   metadata string   commit_timestamp i64
//! v1   version=1  offset i64                   metadata string   commit_timestamp i64  expire_timestamp i64
//! v2   version=2  offset i64                   metadata string   commit_timestamp i64
//! v3   version=3  offset i64  leader_epoch i32 metadata string   commit_timestamp i64
//! v4   version=4  offset i64  leader_epoch i32 metadata compact  commit_timestamp i64
//!      tags [0: topic_id uuid, 21332: expire_timestamp i64]
//! ```
//!
//! Version 4 is written. Kafka writes version 1 when the client named an expiry itself (OffsetCommit 2–4 with a retention
//! time), for no later one has a place for it; but that one has none for the topic id, and an offset that does not say of
//! which incarnation of its topic it is would be believed of the next one too. So the expiry has a tag of our own, which
//! Kafka's readers step over.

use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::{LeaderEpoch, Offset, Timestamp, TopicId};

use super::DecodeError;
use super::wire::{Reader, Writer};

const VERSION: i16 = 4;
const TAG_TOPIC_ID: u32 = 0;
/// `ST`, far above what Kafka will number. Tags are written in rising order.
const TAG_EXPIRY: u32 = 21_332;

/// An offset a group committed for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset the group wants to read.
    pub offset: Offset,
    /// The leader epoch of the last record read, or [`LeaderEpoch::NONE`] (KIP-320).
    pub leader_epoch: LeaderEpoch,
    /// The client's own text.
    pub metadata: Arc<str>,
    /// When it was committed.
    pub commit_timestamp: Timestamp,
    /// When it expires, if the client said so itself.
    pub expire_timestamp: Option<Timestamp>,
    /// The topic's incarnation, or [`TopicId::ZERO`] where the record's version has no place for it.
    pub topic_id: TopicId,
}

impl CommittedOffset {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.i16(VERSION);
        out.i64(self.offset.0);
        out.i32(self.leader_epoch.0);
        out.compact_text(&self.metadata);
        out.i64(self.commit_timestamp.0);
        out.uvarint(u32::from(!self.topic_id.is_zero()) + u32::from(self.expire_timestamp.is_some()));
        if !self.topic_id.is_zero() {
            out.uvarint(TAG_TOPIC_ID);
            out.uvarint(16);
            out.raw(&self.topic_id.0);
        }
        if let Some(expire_timestamp) = self.expire_timestamp {
            out.uvarint(TAG_EXPIRY);
            out.uvarint(8);
            out.i64(expire_timestamp.0);
        }
        out.finish()
    }

    /// Reads a value; the inner error is the version, when it is not one of those known.
    pub(super) fn decode(bytes: &[u8]) -> Result<Result<CommittedOffset, i16>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=VERSION).contains(&version) {
            return Ok(Err(version));
        }
        let offset = Offset(reader.i64()?);
        let leader_epoch = if version >= 3 { LeaderEpoch(reader.i32()?) } else { LeaderEpoch::NONE };
        let metadata = Arc::from(if version >= 4 { reader.compact_text()? } else { reader.text()? });
        let commit_timestamp = Timestamp(reader.i64()?);
        let mut expire_timestamp = match version {
            1 => Some(Timestamp(reader.i64()?)).filter(|stamp| *stamp != Timestamp::NONE),
            _ => None,
        };
        let mut topic_id = TopicId::ZERO;
        if version >= 4 {
            reader.tags(|tag, field| {
                match tag {
                    TAG_TOPIC_ID => topic_id = stonelog_protocol::Uuid(field.uuid()?),
                    TAG_EXPIRY => expire_timestamp = Some(Timestamp(field.i64()?)),
                    _ => {}
                }
                Ok(())
            })?;
        }
        reader.end()?;
        Ok(Ok(CommittedOffset { offset, leader_epoch, metadata, commit_timestamp, expire_timestamp, topic_id }))
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::Uuid;

    use super::*;

    fn committed() -> CommittedOffset {
        CommittedOffset {
            offset: Offset(258),
            leader_epoch: LeaderEpoch(3),
            metadata: Arc::from("m"),
            commit_timestamp: Timestamp(5),
            expire_timestamp: None,
            topic_id: Uuid([9; 16]),
        }
    }

    #[test]
    fn version_four_carries_epoch_and_topic_id() {
        let mut expected = vec![0, 4];
        expected.extend([0, 0, 0, 0, 0, 0, 1, 2]); // offset 258
        expected.extend([0, 0, 0, 3]); // leader epoch 3
        expected.extend([2, b'm']); // compact text of one byte
        expected.extend([0, 0, 0, 0, 0, 0, 0, 5]); // commit timestamp 5
        expected.extend([1, 0, 16]); // one tag, number 0, 16 bytes
        expected.extend([9; 16]);
        assert_eq!(committed().encode().as_ref(), expected);
        assert_eq!(CommittedOffset::decode(&expected), Ok(Ok(committed())));
    }

    #[test]
    fn version_four_without_topic_id_has_no_tag() {
        let value = CommittedOffset { topic_id: TopicId::ZERO, metadata: Arc::from(""), ..committed() };
        let bytes = value.encode();
        assert_eq!(&bytes[14..], [1, 0, 0, 0, 0, 0, 0, 0, 5, 0]);
        assert_eq!(CommittedOffset::decode(&bytes), Ok(Ok(value)));
    }

    #[test]
    fn explicit_expiry_has_a_tag_beside_the_topic_id_and_is_read_of_version_one() {
        let value = CommittedOffset { expire_timestamp: Some(Timestamp(6)), ..committed() };
        let mut expected = committed().encode().to_vec();
        let tags = expected.len() - 19;
        assert_eq!(expected[tags..tags + 3], [1, 0, 16]);
        expected[tags] = 2;
        expected.extend([0xd4, 0xa6, 1, 8]); // tag 21332, 8 bytes
        expected.extend([0, 0, 0, 0, 0, 0, 0, 6]);
        assert_eq!(value.encode().as_ref(), expected);
        assert_eq!(CommittedOffset::decode(&expected), Ok(Ok(value)));
        let mut of_kafka = vec![0, 1];
        of_kafka.extend([0, 0, 0, 0, 0, 0, 1, 2]);
        of_kafka.extend([0, 1, b'm']);
        of_kafka.extend([0, 0, 0, 0, 0, 0, 0, 5]);
        of_kafka.extend([0, 0, 0, 0, 0, 0, 0, 6]);
        let expected = CommittedOffset {
            expire_timestamp: Some(Timestamp(6)),
            leader_epoch: LeaderEpoch::NONE,
            topic_id: TopicId::ZERO,
            ..committed()
        };
        assert_eq!(CommittedOffset::decode(&of_kafka), Ok(Ok(expected)));
    }

    #[test]
    fn older_versions_are_read() {
        let plain = CommittedOffset { leader_epoch: LeaderEpoch::NONE, topic_id: TopicId::ZERO, ..committed() };
        let tail = [0, 0, 0, 0, 0, 0, 1, 2, 0, 1, b'm', 0, 0, 0, 0, 0, 0, 0, 5];
        for version in [0, 2] {
            let bytes = [&[0, version][..], &tail].concat();
            assert_eq!(CommittedOffset::decode(&bytes), Ok(Ok(plain.clone())), "version {version}");
        }
        let three = [&[0, 3][..], &tail[..8], &[0, 0, 0, 3], &tail[8..]].concat();
        let with_epoch = CommittedOffset { leader_epoch: LeaderEpoch(3), ..plain.clone() };
        assert_eq!(CommittedOffset::decode(&three), Ok(Ok(with_epoch)));
        let never = [&[0, 1][..], &tail, &[0xff; 8]].concat();
        assert_eq!(CommittedOffset::decode(&never), Ok(Ok(plain)));
    }

    #[test]
    fn unknown_tags_are_stepped_over_and_cut_values_refused() {
        let mut bytes = CommittedOffset { topic_id: TopicId::ZERO, ..committed() }.encode().to_vec();
        bytes.pop();
        bytes.extend([1, 9, 3, 1, 2, 3]);
        let Ok(Ok(read)) = CommittedOffset::decode(&bytes) else { panic!("an unknown tag is legal") };
        assert_eq!(read.offset, Offset(258));
        for cut in 0..bytes.len() {
            assert!(CommittedOffset::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
