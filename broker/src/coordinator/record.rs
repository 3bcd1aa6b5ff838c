//! The records of `__consumer_offsets`, in Kafka's own key and value formats.
//!
//! A key is a 16-bit record type and a body; a value is a 16-bit version and a body; a key without a value is a
//! tombstone. Types 0 and 1 are committed offsets, type 2 a classic group's metadata
//! (`GroupCoordinatorRecordHelpers`). Types of other group kinds are not ours: they are skipped and counted, never
//! guessed at, and so are value versions newer than those known here.
//!
//! Decoding is bounded: no length read from the log sizes anything before it is checked against the bytes at hand.

use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::batch::{BatchBuilder, Compression, CompressionError, NewRecord};
use stonelog_protocol::{ErrorCode, PartitionIndex, Timestamp};
use thiserror::Error;

use crate::coordinator::group::names::GroupId;

pub mod group_metadata;
pub mod offset_commit;
mod wire;

pub use group_metadata::{GroupMetadata, StoredMember};
pub use offset_commit::CommittedOffset;

use wire::{Reader, Writer};

const KEY_OFFSET_LEGACY: i16 = 0;
const KEY_OFFSET: i16 = 1;
const KEY_GROUP: i16 = 2;

/// One change of the state that a partition of `__consumer_offsets` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A committed offset is set, or removed when `value` is `None`.
    Offset {
        /// The group that committed.
        group: GroupId,
        /// The topic's name.
        topic: Arc<str>,
        /// The partition within the topic.
        partition: PartitionIndex,
        /// What was committed; `None` removes it.
        value: Option<CommittedOffset>,
    },
    /// A group's generation and members are replaced, or the group is removed when `value` is `None`.
    Group {
        /// The group.
        group: GroupId,
        /// Its metadata; `None` removes it.
        value: Option<GroupMetadata>,
    },
}

/// What the bytes of one record turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A record of ours.
    Known(Record),
    /// A record type this version does not hold: a group of another kind.
    UnknownType(i16),
    /// A value written in a version newer than those known.
    UnknownVersion {
        /// The record type.
        key_type: i16,
        /// The value's version.
        version: i16,
    },
}

/// The bytes are not those of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end before the field does.
    #[error("the record ends within a field")]
    Truncated,
    /// A length is negative, or larger than the bytes at hand.
    #[error("a length in the record does not fit its bytes")]
    BadLength,
    /// A text is not UTF-8.
    #[error("a text in the record is not UTF-8")]
    BadText,
    /// A field that must be present is null.
    #[error("a field of the record that must be present is null")]
    UnexpectedNull,
    /// Bytes are left over after the last field.
    #[error("the record is longer than its fields")]
    TrailingBytes,
}

impl Record {
    /// About how many bytes it takes in a batch, without encoding it.
    pub fn bytes_about(&self) -> usize {
        const FIXED: usize = 64;
        FIXED
            + match self {
                Record::Offset { group, topic, value, .. } => {
                    let metadata = value.as_ref().map_or(0, |value| value.metadata.len());
                    group.as_str().len() + topic.len() + metadata
                }
                Record::Group { group, value } => {
                    let members = value.iter().flat_map(|value| &value.members);
                    let member = |member: &StoredMember| {
                        let names = member.member_id.as_str().len() + member.client_id.len() + member.client_host.len();
                        FIXED + names + member.subscription.len() + member.assignment.len()
                    };
                    group.as_str().len() + members.map(member).sum::<usize>()
                }
            }
    }

    /// The record's key as bytes.
    pub fn encode_key(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            Record::Offset { group, topic, partition, .. } => {
                out.i16(KEY_OFFSET);
                out.text(group.as_str());
                out.text(topic);
                out.i32(partition.0);
            }
            Record::Group { group, .. } => {
                out.i16(KEY_GROUP);
                out.text(group.as_str());
            }
        }
        out.finish()
    }

    /// The record's value as bytes; `None` for a tombstone.
    pub fn encode_value(&self) -> Option<Bytes> {
        match self {
            Record::Offset { value, .. } => value.as_ref().map(CommittedOffset::encode),
            Record::Group { value, .. } => value.as_ref().map(GroupMetadata::encode),
        }
    }

    /// Reads a record from its key and value (`None` is a tombstone).
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Decoded, DecodeError> {
        let mut reader = Reader::new(key);
        let key_type = reader.i16()?;
        match key_type {
            KEY_OFFSET_LEGACY | KEY_OFFSET => {
                let group = GroupId::from_record(reader.text()?);
                let topic = Arc::from(reader.text()?);
                let partition = PartitionIndex(reader.i32()?);
                reader.end()?;
                let value = match value.map(CommittedOffset::decode).transpose()? {
                    Some(Err(version)) => return Ok(Decoded::UnknownVersion { key_type, version }),
                    Some(Ok(value)) => Some(value),
                    None => None,
                };
                Ok(Decoded::Known(Record::Offset { group, topic, partition, value }))
            }
            KEY_GROUP => {
                let group = GroupId::from_record(reader.text()?);
                reader.end()?;
                let value = match value.map(GroupMetadata::decode).transpose()? {
                    Some(Err(version)) => return Ok(Decoded::UnknownVersion { key_type, version }),
                    Some(Ok(value)) => Some(value),
                    None => None,
                };
                Ok(Decoded::Known(Record::Group { group, value }))
            }
            other => Ok(Decoded::UnknownType(other)),
        }
    }
}

/// Records cannot be one batch.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// They are more than one batch may be.
    #[error("records of groups of {bytes} bytes and more, where a batch may have {bytes_max}")]
    TooLarge {
        /// The bytes so far.
        bytes: usize,
        /// The bytes a batch may have.
        bytes_max: usize,
    },
    /// The codec refuses.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

impl EncodeError {
    /// What the log would say.
    pub fn code(&self) -> ErrorCode {
        match self {
            EncodeError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            EncodeError::Compression(_) => ErrorCode::UnknownServerError,
        }
    }
}

/// One batch of these records, in their order, stamped `now`; base offset and leader epoch are the log's to set.
/// `compression` is `offsets.topic.compression.codec`. Nothing more is encoded once they are above `bytes_max`: what
/// somebody asked for decides how many there are.
pub fn encode_batch<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    compression: Compression,
    now: Timestamp,
    bytes_max: usize,
) -> Result<Vec<u8>, EncodeError> {
    let mut batch = BatchBuilder::new().compressed(compression, None);
    for record in records {
        let bytes = batch.bytes() + record.bytes_about();
        if bytes > bytes_max {
            return Err(EncodeError::TooLarge { bytes, bytes_max });
        }
        let (key, value) = (record.encode_key(), record.encode_value());
        batch.push(NewRecord::new(now, Some(&key), value.as_deref()));
    }
    Ok(batch.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::group::names::TEXT_BYTES_MAX;

    fn group(text: &str) -> GroupId {
        GroupId::new(text).unwrap()
    }

    #[test]
    fn offset_key_is_type_one_with_group_topic_and_partition() {
        let record =
            Record::Offset { group: group("g1"), topic: Arc::from("t"), partition: PartitionIndex(7), value: None };
        assert_eq!(record.encode_key().as_ref(), b"\x00\x01\x00\x02g1\x00\x01t\x00\x00\x00\x07");
        assert_eq!(record.encode_value(), None);
        assert_eq!(Record::decode(&record.encode_key(), None), Ok(Decoded::Known(record)));
    }

    #[test]
    fn group_key_is_type_two_with_the_group() {
        let record = Record::Group { group: group("g1"), value: None };
        assert_eq!(record.encode_key().as_ref(), b"\x00\x02\x00\x02g1");
        assert_eq!(Record::decode(&record.encode_key(), None), Ok(Decoded::Known(record)));
    }

    #[test]
    fn legacy_offset_key_is_read_as_an_offset() {
        let key = b"\x00\x00\x00\x02g1\x00\x01t\x00\x00\x00\x07";
        let Ok(Decoded::Known(Record::Offset { topic, partition, value: None, .. })) = Record::decode(key, None) else {
            panic!("a type 0 key is an offset");
        };
        assert_eq!((topic.as_ref(), partition), ("t", PartitionIndex(7)));
    }

    #[test]
    fn other_record_types_and_newer_versions_are_told_apart() {
        assert_eq!(Record::decode(b"\x00\x03whatever", Some(b"x")), Ok(Decoded::UnknownType(3)));
        let newer = Record::decode(b"\x00\x02\x00\x01g", Some(b"\x00\x05rest"));
        assert_eq!(newer, Ok(Decoded::UnknownVersion { key_type: 2, version: 5 }));
        let newer = Record::decode(b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x00", Some(b"\x00\x05rest"));
        assert_eq!(newer, Ok(Decoded::UnknownVersion { key_type: 1, version: 5 }));
    }

    #[test]
    fn records_above_what_a_batch_may_have_are_refused_before_they_are_encoded() {
        let topic: Arc<str> = Arc::from("t".repeat(TEXT_BYTES_MAX));
        let one = Record::Offset { group: group("g"), topic, partition: PartitionIndex(0), value: None };
        // Encoded, they were more than a batch's length can say.
        let records = std::iter::repeat_n(&one, 66_000);
        let refused = encode_batch(records, Compression::None, Timestamp(1), 1 << 20).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::MessageTooLarge);
        let fitting = encode_batch(std::iter::repeat_n(&one, 30), Compression::None, Timestamp(1), 1 << 20).unwrap();
        assert!(fitting.len() <= 1 << 20);
    }

    #[test]
    fn malformed_keys_are_refused() {
        assert_eq!(Record::decode(b"", None), Err(DecodeError::Truncated));
        assert_eq!(Record::decode(b"\x00\x02\x7f\xffg", None), Err(DecodeError::Truncated));
        assert_eq!(Record::decode(b"\x00\x02\xff\xff", None), Err(DecodeError::UnexpectedNull));
        assert_eq!(Record::decode(b"\x00\x02\x00\x01\xff", None), Err(DecodeError::BadText));
        assert_eq!(Record::decode(b"\x00\x02\x00\x01gg", None), Err(DecodeError::TrailingBytes));
    }
}
