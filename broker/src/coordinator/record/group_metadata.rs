//! The value of a group record: a classic group's generation and members (`GroupMetadataValue`, versions 0 to 4).
//!
//! ```text
//! v3   version=3  protocol_type string  generation i32  protocol string?  leader string?  state_timestamp i64
//!      members: count i32, each
//!        member_id string  instance_id string?  client_id string  client_host string
//!        rebalance_timeout_ms i32  session_timeout_ms i32  subscription bytes  assignment bytes
//! ```
//!
//! Older versions lack the instance id (before 3), the state timestamp (before 2) and the rebalance timeout (before 1);
//! version 4 is flexible. Version 3 is written, as Kafka does, so that every tool can read it.

use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::Timestamp;

use super::DecodeError;
use super::wire::{Reader, Writer};
use crate::coordinator::group::names::{InstanceId, MemberId};

const VERSION: i16 = 3;
const VERSION_FLEXIBLE: i16 = 4;
/// The fewest bytes one member takes in any version: in the flexible one, four texts, two timeouts, two byte strings
/// and a count of tags.
const MEMBER_BYTES_MIN: usize = 15;

/// What the log holds of a classic group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// `consumer`, `connect`, …; empty for a group that never had a member.
    pub protocol_type: Arc<str>,
    /// Raised by one with every completed rebalance.
    pub generation: i32,
    /// The protocol (assignor) the members agreed on; `None` without members.
    pub protocol: Option<Arc<str>>,
    /// The member that computes the assignment; `None` without members.
    pub leader: Option<MemberId>,
    /// When the group entered its state; `None` in records older than version 2.
    pub state_timestamp: Option<Timestamp>,
    /// The members; empty when the group is Empty.
    pub members: Vec<StoredMember>,
}

/// What the log holds of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMember {
    /// The id the coordinator gave it.
    pub member_id: MemberId,
    /// A static member's own name (KIP-345).
    pub instance_id: Option<InstanceId>,
    /// The client's `client.id`.
    pub client_id: Arc<str>,
    /// Where it connected from.
    pub client_host: Arc<str>,
    /// How long it may take to rejoin, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent, in milliseconds.
    pub session_timeout_ms: i32,
    /// Its metadata for the chosen protocol.
    pub subscription: Bytes,
    /// What the leader assigned to it.
    pub assignment: Bytes,
}

impl GroupMetadata {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.i16(VERSION);
        out.text(&self.protocol_type);
        out.i32(self.generation);
        out.nullable_text(self.protocol.as_deref());
        out.nullable_text(self.leader.as_ref().map(MemberId::as_str));
        out.i64(self.state_timestamp.unwrap_or(Timestamp::NONE).0);
        out.i32(i32::try_from(self.members.len()).expect("members are limited"));
        for member in &self.members {
            out.text(member.member_id.as_str());
            out.nullable_text(member.instance_id.as_ref().map(InstanceId::as_str));
            out.text(&member.client_id);
            out.text(&member.client_host);
            out.i32(member.rebalance_timeout_ms);
            out.i32(member.session_timeout_ms);
            out.blob(&member.subscription);
            out.blob(&member.assignment);
        }
        out.finish()
    }

    /// Reads a value; the inner error is the version, when it is not one of those known.
    pub(super) fn decode(bytes: &[u8]) -> Result<Result<GroupMetadata, i16>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=VERSION_FLEXIBLE).contains(&version) {
            return Ok(Err(version));
        }
        let flexible = version >= VERSION_FLEXIBLE;
        let protocol_type = Arc::from(text(&mut reader, flexible)?);
        let generation = reader.i32()?;
        let protocol = nullable_text(&mut reader, flexible)?.map(Arc::from);
        let leader = nullable_text(&mut reader, flexible)?.map(MemberId::from_record);
        let state_timestamp = match version {
            2.. => Some(Timestamp(reader.i64()?)).filter(|stamp| *stamp != Timestamp::NONE),
            _ => None,
        };
        let count = match flexible {
            true => reader.compact_array_count(MEMBER_BYTES_MIN)?,
            false => reader.array_count(MEMBER_BYTES_MIN)?,
        };
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(StoredMember::decode(&mut reader, version)?);
        }
        if flexible {
            reader.tags(|_, _| Ok(()))?;
        }
        reader.end()?;
        Ok(Ok(GroupMetadata { protocol_type, generation, protocol, leader, state_timestamp, members }))
    }
}

impl StoredMember {
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<StoredMember, DecodeError> {
        let flexible = version >= VERSION_FLEXIBLE;
        let member_id = MemberId::from_record(text(reader, flexible)?);
        let instance_id = match version {
            3.. => nullable_text(reader, flexible)?.map(InstanceId::from_record),
            _ => None,
        };
        let client_id = Arc::from(text(reader, flexible)?);
        let client_host = Arc::from(text(reader, flexible)?);
        let rebalance_timeout_ms = if version >= 1 { reader.i32()? } else { -1 };
        let session_timeout_ms = reader.i32()?;
        let subscription = Bytes::copy_from_slice(blob(reader, flexible)?);
        let assignment = Bytes::copy_from_slice(blob(reader, flexible)?);
        if flexible {
            reader.tags(|_, _| Ok(()))?;
        }
        Ok(StoredMember {
            member_id,
            instance_id,
            client_id,
            client_host,
            // JoinGroup 0 knew one timeout only.
            rebalance_timeout_ms: if rebalance_timeout_ms == -1 { session_timeout_ms } else { rebalance_timeout_ms },
            session_timeout_ms,
            subscription,
            assignment,
        })
    }
}

fn text<'a>(reader: &mut Reader<'a>, flexible: bool) -> Result<&'a str, DecodeError> {
    if flexible { reader.compact_text() } else { reader.text() }
}

fn nullable_text<'a>(reader: &mut Reader<'a>, flexible: bool) -> Result<Option<&'a str>, DecodeError> {
    if flexible { reader.nullable_compact_text() } else { reader.nullable_text() }
}

fn blob<'a>(reader: &mut Reader<'a>, flexible: bool) -> Result<&'a [u8], DecodeError> {
    if flexible { reader.compact_blob() } else { reader.blob() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> GroupMetadata {
        GroupMetadata {
            protocol_type: Arc::from("consumer"),
            generation: 2,
            protocol: Some(Arc::from("range")),
            leader: Some(MemberId::from_record("a-1")),
            state_timestamp: Some(Timestamp(7)),
            members: vec![StoredMember {
                member_id: MemberId::from_record("a-1"),
                instance_id: Some(InstanceId::from_record("i")),
                client_id: Arc::from("c"),
                client_host: Arc::from("/h"),
                rebalance_timeout_ms: 300_000,
                session_timeout_ms: 10_000,
                subscription: Bytes::from_static(b"S"),
                assignment: Bytes::from_static(b"AA"),
            }],
        }
    }

    #[test]
    fn version_three_is_written_to_the_byte() {
        let mut expected: Vec<u8> = vec![0, 3];
        expected.extend(b"\x00\x08consumer");
        expected.extend([0, 0, 0, 2]);
        expected.extend(b"\x00\x05range");
        expected.extend(b"\x00\x03a-1");
        expected.extend([0, 0, 0, 0, 0, 0, 0, 7]);
        expected.extend([0, 0, 0, 1]);
        expected.extend(b"\x00\x03a-1\x00\x01i\x00\x01c\x00\x02/h");
        expected.extend([0x00, 0x04, 0x93, 0xe0]); // 300,000
        expected.extend([0x00, 0x00, 0x27, 0x10]); // 10,000
        expected.extend(b"\x00\x00\x00\x01S\x00\x00\x00\x02AA");
        assert_eq!(metadata().encode().as_ref(), expected);
        assert_eq!(GroupMetadata::decode(&expected), Ok(Ok(metadata())));
        for cut in 0..expected.len() {
            assert!(GroupMetadata::decode(&expected[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn empty_group_has_null_protocol_and_leader() {
        let value = GroupMetadata {
            protocol_type: Arc::from(""),
            generation: 0,
            protocol: None,
            leader: None,
            state_timestamp: None,
            members: Vec::new(),
        };
        let mut expected: Vec<u8> = vec![0, 3, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        expected.extend([0xff; 8]);
        expected.extend([0; 4]);
        assert_eq!(value.encode().as_ref(), expected);
        assert_eq!(GroupMetadata::decode(&expected), Ok(Ok(value)));
    }

    #[test]
    fn version_zero_takes_the_session_timeout_for_both() {
        let mut bytes: Vec<u8> = vec![0, 0];
        bytes.extend(b"\x00\x08consumer\x00\x00\x00\x02\x00\x05range\x00\x03a-1\x00\x00\x00\x01");
        bytes.extend(b"\x00\x03a-1\x00\x01c\x00\x02/h\x00\x00\x27\x10\x00\x00\x00\x01S\x00\x00\x00\x02AA");
        let Ok(Ok(read)) = GroupMetadata::decode(&bytes) else { panic!("version 0 is known") };
        assert_eq!(read.state_timestamp, None);
        let mut member = metadata().members.remove(0);
        member.instance_id = None;
        member.rebalance_timeout_ms = 10_000;
        assert_eq!(read.members, [member]);
    }

    #[test]
    fn flexible_version_four_is_read() {
        let mut bytes: Vec<u8> = vec![0, 4];
        bytes.extend(b"\x09consumer\x00\x00\x00\x02\x06range\x04a-1\x00\x00\x00\x00\x00\x00\x00\x07\x02");
        bytes.extend(b"\x04a-1\x02i\x02c\x03/h\x00\x04\x93\xe0\x00\x00\x27\x10\x02S\x03AA\x00");
        bytes.push(0);
        assert_eq!(GroupMetadata::decode(&bytes), Ok(Ok(metadata())));
    }

    #[test]
    fn a_member_count_larger_than_the_bytes_is_refused() {
        let mut bytes = metadata().encode().to_vec();
        let at = 2 + 10 + 4 + 7 + 5 + 8;
        bytes[at..at + 4].copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(GroupMetadata::decode(&bytes), Err(DecodeError::BadLength));
    }
}
