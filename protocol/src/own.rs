//! Requests that Kafka has no word for, on the port of clients: what an operator must say to a cluster and stock requests
//! cannot.
//!
//! There is one: accepting that a partition has lost records (DESIGN §1). Its key is far outside Kafka's numbers, it is
//! never listed by ApiVersions, and no client library sends it; `stonelog partition accept-loss` does. A broker that does
//! not know it closes the connection, as on any unknown key.
//!
//! ```text
//! request:  length i32 | key i16 = 21332 | version i16 = 1 | correlation id i32 | kind u8 | topic u16+text | partition i32
//!           | replica i32 | Accept only: state
//! answer:   length i32 | correlation id i32 | error i16 | message u16+text | then, without an error:
//!           Look:    state | there u8 | if 1: leads u8 | leader epoch i32 | log start i64 | log end i64
//!           Accept:  count u32 | so many brokers i32 | time i64
//! state:    topic id 16 bytes | leader epoch i32 | partition epoch i32
//! ```
//!
//! What is accepted is what was shown: an Accept names the state that a Look told, and is refused when that has changed.
//! Version 0 named none.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::frame::LENGTH_BYTES;
use crate::peer::wire::{Reader, WireError, Writer};
use crate::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex, Timestamp, TopicId};

/// The key of every request of our own: `ST`.
pub const KEY: i16 = 0x5354;
/// The version of what is said here.
const VERSION: i16 = 1;
/// Bytes of key, version and correlation id.
const HEAD_BYTES: usize = 8;
/// The longest topic name, in bytes.
const TOPIC_BYTES_MAX: usize = 249;
/// The longest message of an error, in bytes.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// Codes of [`OwnKind`].
const LOOK: u8 = 0;
const ACCEPT: u8 = 1;

/// The most brokers an answer names.
const REPLICAS_MAX: usize = 1_024;

/// What is asked about one replica of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRequest {
    /// What is wanted.
    pub kind: OwnKind,
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// The broker whose replica is meant.
    pub replica: BrokerId,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnKind {
    /// What the replica holds. Asked of its broker; changes nothing.
    Look,
    /// The replica shall lead with what it has, and what it lacks is accepted as lost, if the partition is still as it was
    /// shown.
    Accept(PartitionShown),
}

/// A partition as somebody was shown it: every change of who leads it, or may, changes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionShown {
    /// The topic's id: a topic made anew under the same name has another.
    pub topic_id: TopicId,
    /// Raised whenever it is led by somebody else, or by nobody.
    pub leader_epoch: LeaderEpoch,
    /// Raised by every change of the partition.
    pub partition_epoch: PartitionEpoch,
}

impl PartitionShown {
    fn write(&self, out: &mut Writer) {
        out.uuid(self.topic_id);
        out.i32(self.leader_epoch.0);
        out.i32(self.partition_epoch.0);
    }

    fn read(body: &mut Reader) -> Result<PartitionShown, WireError> {
        Ok(PartitionShown {
            topic_id: body.uuid()?,
            leader_epoch: LeaderEpoch(body.i32()?),
            partition_epoch: PartitionEpoch(body.i32()?),
        })
    }
}

/// An answer without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnAnswer {
    /// What the replica holds.
    Look {
        /// The partition, as the replica's broker knows it.
        shown: PartitionShown,
        /// `None` when the replica is not there, or its directory is offline.
        held: Option<HeldRecords>,
    },
    /// It leads, and that is on record.
    Accept {
        /// The replicas that held more, or may have.
        instead_of: Vec<BrokerId>,
        /// When, by the controller's clock.
        at: Timestamp,
    },
}

/// What a replica holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRecords {
    /// Whether it leads.
    pub leads: bool,
    /// The newest leader epoch it knows.
    pub leader_epoch: LeaderEpoch,
    /// The first offset it has.
    pub log_start: Offset,
    /// The offset after its last record.
    pub log_end: Offset,
}

/// A refusal: the error and its words.
pub type Refusal = (ErrorCode, String);

/// An answer as it came: the error's number may be one that this build does not know.
pub type Answered = Result<OwnAnswer, (i16, String)>;

/// Whether a frame (without its length) is a request of our own.
pub fn is_own(frame: &[u8]) -> bool {
    frame.first_chunk().is_some_and(|key| i16::from_be_bytes(*key) == KEY)
}

/// Encodes a request: length, head, body.
pub fn encode_request(correlation_id: i32, request: &OwnRequest) -> BytesMut {
    let mut body = Writer::new();
    body.u8(match request.kind {
        OwnKind::Look => LOOK,
        OwnKind::Accept(_) => ACCEPT,
    });
    body.text(&request.topic, TOPIC_BYTES_MAX);
    body.i32(request.partition.0);
    body.i32(request.replica.0);
    if let OwnKind::Accept(shown) = &request.kind {
        shown.write(&mut body);
    }
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    head.put_i16(KEY);
    head.put_i16(VERSION);
    head.put_i32(correlation_id);
    framed(&head, &body.finish())
}

/// Reads a request frame (without its length) into its correlation id and what is asked.
pub fn decode_request(frame: Bytes) -> Result<(i32, OwnRequest), WireError> {
    let mut rest = frame;
    if rest.len() < HEAD_BYTES {
        return Err(WireError::Truncated);
    }
    let (key, version, correlation_id) = (rest.get_i16(), rest.get_i16(), rest.get_i32());
    if (key, version) != (KEY, VERSION) {
        return Err(WireError::Invalid("the version"));
    }
    let mut body = Reader::new(rest);
    let kind = body.u8()?;
    let topic = body.text(TOPIC_BYTES_MAX)?.to_string();
    let (partition, replica) = (PartitionIndex(body.i32()?), BrokerId(body.i32()?));
    let kind = match kind {
        LOOK => OwnKind::Look,
        ACCEPT => OwnKind::Accept(PartitionShown::read(&mut body)?),
        _ => return Err(WireError::Invalid("the kind of request")),
    };
    body.end()?;
    Ok((correlation_id, OwnRequest { kind, topic, partition, replica }))
}

/// Encodes an answer: length, correlation id, body.
pub fn encode_answer(correlation_id: i32, answer: &Result<OwnAnswer, Refusal>) -> BytesMut {
    let mut body = Writer::new();
    match answer {
        Err((error, message)) => {
            body.i16(error.code());
            body.text(message, MESSAGE_BYTES_MAX);
        }
        Ok(answer) => {
            body.i16(ErrorCode::None.code());
            body.text("", 0);
            match answer {
                OwnAnswer::Look { shown, held } => {
                    shown.write(&mut body);
                    body.option(held.as_ref(), |out, held| {
                        out.flag(held.leads);
                        out.i32(held.leader_epoch.0);
                        out.i64(held.log_start.0);
                        out.i64(held.log_end.0);
                    });
                }
                OwnAnswer::Accept { instead_of, at } => {
                    body.list(instead_of, |out, broker| out.i32(broker.0));
                    body.i64(at.0);
                }
            }
        }
    }
    framed(&correlation_id.to_be_bytes(), &body.finish())
}

/// Reads an answer frame (without its length) to a request of that kind, into its correlation id and what it says.
pub fn decode_answer(kind: OwnKind, frame: Bytes) -> Result<(i32, Answered), WireError> {
    let mut body = Reader::new(frame);
    let correlation_id = body.i32()?;
    let error = body.i16()?;
    let message = body.text(MESSAGE_BYTES_MAX)?.to_string();
    let answer = if error != 0 {
        Err((error, message))
    } else if kind == OwnKind::Look {
        let shown = PartitionShown::read(&mut body)?;
        let held = body.option(|body| {
            Ok(HeldRecords {
                leads: body.flag()?,
                leader_epoch: LeaderEpoch(body.i32()?),
                log_start: Offset(body.i64()?),
                log_end: Offset(body.i64()?),
            })
        })?;
        Ok(OwnAnswer::Look { shown, held })
    } else {
        let instead_of = body.list(4, REPLICAS_MAX, |body| Ok(BrokerId(body.i32()?)))?;
        Ok(OwnAnswer::Accept { instead_of, at: Timestamp(body.i64()?) })
    };
    body.end()?;
    Ok((correlation_id, answer))
}

fn framed(head: &[u8], body: &[u8]) -> BytesMut {
    let bytes = head.len() + body.len();
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + bytes);
    out.put_i32(i32::try_from(bytes).expect("requests of our own are short"));
    out.put_slice(head);
    out.put_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Uuid, api};

    fn request(kind: OwnKind) -> OwnRequest {
        OwnRequest { kind, topic: "t".to_owned(), partition: PartitionIndex(3), replica: BrokerId(2) }
    }

    fn answers() -> Vec<(OwnKind, OwnAnswer)> {
        let held = HeldRecords { leads: true, leader_epoch: LeaderEpoch(4), log_start: Offset(5), log_end: Offset(9) };
        let instead_of = vec![BrokerId(1), BrokerId(3)];
        vec![
            (OwnKind::Look, OwnAnswer::Look { shown: shown(), held: None }),
            (OwnKind::Look, OwnAnswer::Look { shown: shown(), held: Some(held) }),
            (OwnKind::Accept(shown()), OwnAnswer::Accept { instead_of, at: Timestamp(7) }),
        ]
    }

    fn shown() -> PartitionShown {
        let (leader_epoch, partition_epoch) = (LeaderEpoch(6), PartitionEpoch(8));
        PartitionShown { topic_id: Uuid([9; 16]), leader_epoch, partition_epoch }
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let bytes = encode_request(1, &request(OwnKind::Look));
        let mut expected = vec![0, 0, 0, 20, 0x53, 0x54, 0, 1, 0, 0, 0, 1, 0, 0, 1, b't', 0, 0, 0, 3, 0, 0, 0, 2];
        assert_eq!(&bytes[..], expected);
        let bytes = encode_request(1, &request(OwnKind::Accept(shown())));
        (expected[3], expected[12]) = (44, 1);
        expected.extend([9; 16]);
        expected.extend([0, 0, 0, 6, 0, 0, 0, 8]);
        assert_eq!(&bytes[..], expected);
    }

    #[test]
    fn messages_read_back_and_no_shorter_or_longer_bytes_do() {
        for kind in [OwnKind::Look, OwnKind::Accept(shown())] {
            let frame = encode_request(9, &request(kind)).freeze().slice(LENGTH_BYTES..);
            assert!(is_own(&frame));
            assert_eq!(decode_request(frame.clone()), Ok((9, request(kind))));
            for length in 0..frame.len() {
                assert!(decode_request(frame.slice(..length)).is_err());
            }
            let longer = Bytes::from([&frame[..], &[0]].concat());
            assert_eq!(decode_request(longer), Err(WireError::Trailing(1)));
        }
        for (kind, answer) in answers() {
            let frame = encode_answer(9, &Ok(answer.clone())).freeze().slice(LENGTH_BYTES..);
            assert_eq!(decode_answer(kind, frame.clone()), Ok((9, Ok(answer))));
            for length in 0..frame.len() {
                assert!(decode_answer(kind, frame.slice(..length)).is_err());
            }
        }
        let refused = Err((ErrorCode::ElectionNotNeeded, "it is led".to_owned()));
        let frame = encode_answer(9, &refused).freeze().slice(LENGTH_BYTES..);
        assert_eq!(decode_answer(OwnKind::Accept(shown()), frame), Ok((9, Err((84, "it is led".to_owned())))));
    }

    #[test]
    fn the_key_is_none_of_kafkas() {
        assert!(api::find(KEY).is_none());
        assert!(kafka_protocol::messages::ApiKey::try_from(KEY).is_err());
        assert!(!is_own(&[0, 3]) && !is_own(&[0x53]));
    }
}
