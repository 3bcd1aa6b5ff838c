//! The messages of a replica stream: how a follower copies one partition of one leader.
//!
//! A follower opens a stream where its log ends, the leader answers and pushes batches, the follower reports how far it
//! has written and fsynced. Every message names the stream and carries all [`Stamps`]; whoever receives one compares
//! them with its own and drops, counted, what does not match (rules 1 and 5). The partition epoch is not among them: it
//! changes with every change of the in-sync set, which ends no stream; it fences those changes instead.
//!
//! ```text
//! version u8 · kind u8 · stream u64 · stamps (72 bytes) · the kind's fields, big-endian
//! ```
//!
//! Nothing follows the fields, but in a push, whose batches reach to the end. Nothing read here sizes an allocation: the
//! batches are a slice of the frame.

use bytes::{Bytes, BytesMut};

use crate::{BrokerEpoch, BrokerId, DirectoryId, LeaderEpoch, Offset, PartitionIndex, TopicPartition, Uuid};

/// The version of these messages.
pub const STREAM_VERSION: u8 = 4;
/// Bytes in front of a message's fields.
pub const STREAM_HEAD_BYTES: usize = 2 + 8 + STAMPS_BYTES;

const STAMPS_BYTES: usize = 16 + 4 + 4 + 4 + 8 + 4 + 8 + 16 + 4 + 4;

/// Which stream: chosen by the follower, and rising through the life of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamId(pub u64);

/// Which history of the follower's log: its directory's start, and the truncations since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamGeneration {
    /// The start of the follower's log directory.
    pub recovery_epoch: u32,
    /// Truncations, resets and creations since.
    pub counter: u32,
}

/// Who says what to whom about which log. Both sides hold one for each stream and accept no message with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamps {
    /// The topic's incarnation and the partition.
    pub partition: TopicPartition,
    /// The epoch in which it is led; any change of it ends the stream.
    pub leader_epoch: LeaderEpoch,
    /// Who leads.
    pub leader: BrokerId,
    /// The leader's incarnation.
    pub leader_broker_epoch: BrokerEpoch,
    /// Who follows.
    pub follower: BrokerId,
    /// The follower's incarnation.
    pub follower_broker_epoch: BrokerEpoch,
    /// The directory the follower's log lies in: a replica is a broker and a directory (rule 12).
    pub follower_directory: DirectoryId,
    /// The follower's log, which a truncation makes another.
    pub generation: StreamGeneration,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMessage {
    /// Which stream.
    pub stream: StreamId,
    /// Between whom.
    pub stamps: Stamps,
    /// What.
    pub body: StreamBody,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamBody {
    /// To the leader: begin at the end of my log.
    Open(OpenStream),
    /// To the leader: so far have I come.
    Report(StreamReport),
    /// To the leader: so many more bytes may come.
    Credit(u32),
    /// To either: the stream is over.
    Close,
    /// To the follower: your log is a beginning of mine; pushes follow, numbered from 0.
    Opened(Opened),
    /// To the follower: our histories part (KIP-595). The stream is over.
    Diverging(Diverging),
    /// To the follower: no. The stream is over.
    Refused(Refusal),
    /// To the follower: the next batches.
    Push(Push),
    /// To the follower: what moved without new batches.
    News(StreamNews),
    /// To the follower: the next push needs so much credit in all. Batches are not split, and where a follower has many
    /// streams each has little credit of its own.
    Wants(u32),
    /// To the leader: send once more what these offsets hold; mine are damaged.
    Repair(Repair),
    /// To the follower: that, or a beginning of it.
    Filled(Filled),
}

/// See [`StreamBody::Open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenStream {
    /// The follower's log end.
    pub fetch_offset: Offset,
    /// The epoch of its last record; [`LeaderEpoch::NONE`] when it has none.
    pub last_fetched_epoch: LeaderEpoch,
    /// How far it has written and fsynced; not above `fetch_offset`.
    pub report: StreamReport,
    /// Bytes that may be pushed before more credit comes.
    pub credit: u32,
    /// The longest batch that the follower takes: its journal holds no longer one.
    pub batch_bytes_max: u32,
}

/// A follower's positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamReport {
    /// End of what it has written; survives its process.
    pub written: Offset,
    /// End of what it has fsynced; survives its power.
    pub durable: Offset,
    /// The newest [`StreamNews::probe`] it had heard when it said so.
    pub probe: u64,
    /// What its log begins at, also after a power cut.
    pub log_start: Offset,
    /// Whether it knows of no damage below its end: only who is whole joins the in-sync set (rule 9).
    pub is_whole: bool,
}

/// Where the leader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamNews {
    /// Its high watermark.
    pub high_watermark: Offset,
    /// Its first offset.
    pub log_start: Offset,
    /// A number that the follower's next reports repeat: a later report proves that it followed then.
    pub probe: u64,
    /// Whether it knows of no damage in its log: a follower that does in its own may have all of it again from here.
    pub is_whole: bool,
}

/// See [`StreamBody::Opened`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where the leader stands.
    pub news: StreamNews,
    /// Whether the follower is, or may come to be by what was proposed already, in the in-sync set or eligible: then it
    /// gives up nothing that it has.
    pub counts: bool,
}

/// Where two histories part: the leader's end of the greatest epoch it knows that is not above the follower's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diverging {
    /// That epoch.
    pub epoch: LeaderEpoch,
    /// Its end in the leader's log.
    pub end: Offset,
}

/// Why a stream is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The receiver does not lead the partition, or knows no such partition.
    NotLeader,
    /// The receiver knows a later leader epoch.
    FencedEpoch(LeaderEpoch),
    /// The receiver knows an earlier leader epoch only: try again.
    UnknownEpoch(LeaderEpoch),
    /// A broker epoch is not the registered one.
    StaleBroker,
    /// The sender is no replica of it.
    NotReplica,
    /// The fetch offset lies outside the leader's log.
    OutOfRange {
        /// The leader's first offset.
        log_start: Offset,
        /// The leader's log end.
        log_end: Offset,
    },
    /// The leader's log directory has failed.
    Offline,
    /// The leader's log is damaged there.
    Damaged,
    /// The follower's log lies in another directory than the one assigned to it.
    OtherDirectory,
}

/// See [`StreamBody::Push`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Counts the stream's pushes, from 0.
    pub number: u64,
    /// Where the first batch begins: the follower's log end.
    pub base: Offset,
    /// Where the leader stands.
    pub news: StreamNews,
    /// Whole batches. A decoded push holds one piece.
    pub batches: Vec<Bytes>,
}

/// See [`StreamBody::Repair`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Counts what this follower has asked for, rising: only the answer to the newest is taken.
    pub number: u64,
    /// The first offset.
    pub from: Offset,
    /// The first that is not wanted.
    pub to: Offset,
    /// Below it the follower's compaction has removed what later records replace; 0 when it never has.
    pub cleaned_end: Offset,
}

/// See [`StreamBody::Filled`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The [`Repair::number`] that this answers.
    pub number: u64,
    /// The first offset that was asked for.
    pub from: Offset,
    /// Up to where this answers; `from`, when the leader has it no more or has damage there itself, or when what it has
    /// does not go with what the follower's compaction has left.
    pub upto: Offset,
    /// [`Repair::cleaned_end`] of the leader's own log.
    pub cleaned_end: Offset,
    /// Whole batches. A decoded message holds one piece, which may be empty: compaction leaves gaps.
    pub batches: Vec<Bytes>,
}

/// Why bytes are not a stream's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamDecodeError {
    /// The bytes end inside a field.
    #[error("a stream message ends early")]
    Truncated,
    /// Bytes are left behind the last field.
    #[error("{0} bytes too many behind a stream message")]
    Trailing(usize),
    /// A later version, or no message at all.
    #[error("stream messages of version {0} are not known to this build")]
    UnknownVersion(u8),
    /// No such kind.
    #[error("stream message kind {0} is not known to this build")]
    UnknownKind(u8),
    /// A value outside what it may be.
    #[error("{0} has an impossible value")]
    Invalid(&'static str),
}

const OPEN: u8 = 1;
const REPORT: u8 = 2;
const CREDIT: u8 = 3;
const CLOSE: u8 = 4;
const OPENED: u8 = 5;
const DIVERGING: u8 = 6;
const REFUSED: u8 = 7;
const PUSH: u8 = 8;
const NEWS: u8 = 9;
const WANTS: u8 = 10;
const REPAIR: u8 = 11;
const FILLED: u8 = 12;

impl StreamMessage {
    /// Bytes of the message, batches included.
    pub fn encoded_len(&self) -> usize {
        let mut head = BytesMut::new();
        self.encode_head(&mut head);
        head.len() + self.batches().iter().map(Bytes::len).sum::<usize>()
    }

    /// Appends everything but the batches of a push, which follow as they are: see [`StreamMessage::batches`].
    pub fn encode_head(&self, out: &mut BytesMut) {
        let mut put = Put(out);
        put.u8(STREAM_VERSION);
        put.u8(self.kind());
        put.u64(self.stream.0);
        put.stamps(&self.stamps);
        match &self.body {
            StreamBody::Open(open) => {
                put.offset(open.fetch_offset);
                put.i32(open.last_fetched_epoch.0);
                put.report(&open.report);
                put.u32(open.credit);
                put.u32(open.batch_bytes_max);
            }
            StreamBody::Report(report) => put.report(report),
            StreamBody::Credit(bytes) | StreamBody::Wants(bytes) => put.u32(*bytes),
            StreamBody::Close => {}
            StreamBody::Opened(opened) => {
                put.news(&opened.news);
                put.u8(u8::from(opened.counts));
            }
            StreamBody::News(news) => put.news(news),
            StreamBody::Diverging(diverging) => {
                put.i32(diverging.epoch.0);
                put.offset(diverging.end);
            }
            StreamBody::Refused(refusal) => put.refusal(refusal),
            StreamBody::Push(push) => {
                put.u64(push.number);
                put.offset(push.base);
                put.news(&push.news);
            }
            StreamBody::Repair(repair) => {
                put.u64(repair.number);
                put.offset(repair.from);
                put.offset(repair.to);
                put.offset(repair.cleaned_end);
            }
            StreamBody::Filled(filled) => {
                put.u64(filled.number);
                put.offset(filled.from);
                put.offset(filled.upto);
                put.offset(filled.cleaned_end);
            }
        }
    }

    /// The batches that follow the head; none unless this is a push.
    pub fn batches(&self) -> &[Bytes] {
        match &self.body {
            StreamBody::Push(push) => &push.batches,
            StreamBody::Filled(filled) => &filled.batches,
            _ => &[],
        }
    }

    /// The whole message in one piece.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_head(&mut out);
        self.batches().iter().for_each(|piece| out.extend_from_slice(piece));
        out.freeze()
    }

    /// Reads one message, which is all of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<StreamMessage, StreamDecodeError> {
        let mut take = Take { bytes: &bytes, at: 0 };
        let version = take.u8()?;
        if version != STREAM_VERSION {
            return Err(StreamDecodeError::UnknownVersion(version));
        }
        let kind = take.u8()?;
        if !(OPEN..=FILLED).contains(&kind) {
            return Err(StreamDecodeError::UnknownKind(kind));
        }
        let stream = StreamId(take.u64()?);
        let stamps = take.stamps()?;
        let body = match kind {
            OPEN => StreamBody::Open(take.open()?),
            REPORT => StreamBody::Report(take.report()?),
            CREDIT => StreamBody::Credit(take.u32()?),
            CLOSE => StreamBody::Close,
            OPENED => {
                let news = take.news()?;
                StreamBody::Opened(Opened { news, counts: take.flag("whether a replica counts")? })
            }
            DIVERGING => {
                let epoch = LeaderEpoch(take.i32()?);
                StreamBody::Diverging(Diverging { epoch, end: take.offset("an epoch's end")? })
            }
            REFUSED => StreamBody::Refused(take.refusal()?),
            PUSH => {
                let (number, base, news) = (take.u64()?, take.offset("a push's base")?, take.news()?);
                let batches = bytes.slice(take.at..);
                if batches.is_empty() {
                    return Err(StreamDecodeError::Truncated);
                }
                let push = Push { number, base, news, batches: vec![batches] };
                return Ok(StreamMessage { stream, stamps, body: StreamBody::Push(push) });
            }
            NEWS => StreamBody::News(take.news()?),
            WANTS => StreamBody::Wants(take.u32()?),
            REPAIR => {
                let (number, (from, to)) = (take.u64()?, take.range()?);
                let cleaned_end = take.offset("a cleaned end")?;
                StreamBody::Repair(Repair { number, from, to, cleaned_end })
            }
            _ => {
                let (number, (from, upto)) = (take.u64()?, take.range()?);
                let cleaned_end = take.offset("a cleaned end")?;
                let filled = Filled { number, from, upto, cleaned_end, batches: vec![bytes.slice(take.at..)] };
                return Ok(StreamMessage { stream, stamps, body: StreamBody::Filled(filled) });
            }
        };
        match bytes.len() - take.at {
            0 => Ok(StreamMessage { stream, stamps, body }),
            left => Err(StreamDecodeError::Trailing(left)),
        }
    }

    fn kind(&self) -> u8 {
        match &self.body {
            StreamBody::Open(_) => OPEN,
            StreamBody::Report(_) => REPORT,
            StreamBody::Credit(_) => CREDIT,
            StreamBody::Close => CLOSE,
            StreamBody::Opened(_) => OPENED,
            StreamBody::Diverging(_) => DIVERGING,
            StreamBody::Refused(_) => REFUSED,
            StreamBody::Push(_) => PUSH,
            StreamBody::News(_) => NEWS,
            StreamBody::Wants(_) => WANTS,
            StreamBody::Repair(_) => REPAIR,
            StreamBody::Filled(_) => FILLED,
        }
    }
}

struct Put<'a>(&'a mut BytesMut);

struct Take<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! numbers {
    ($($name:ident: $type:ty),*) => {
        impl Put<'_> {
            $(fn $name(&mut self, value: $type) {
                self.0.extend_from_slice(&value.to_be_bytes());
            })*
        }

        impl Take<'_> {
            $(fn $name(&mut self) -> Result<$type, StreamDecodeError> {
                Ok(<$type>::from_be_bytes(self.array()?))
            })*
        }
    };
}

numbers!(u8: u8, i32: i32, u32: u32, i64: i64, u64: u64);

impl Put<'_> {
    fn offset(&mut self, offset: Offset) {
        self.i64(offset.0);
    }

    fn stamps(&mut self, stamps: &Stamps) {
        self.0.extend_from_slice(&stamps.partition.topic_id.0);
        self.i32(stamps.partition.partition.0);
        self.i32(stamps.leader_epoch.0);
        self.i32(stamps.leader.0);
        self.i64(stamps.leader_broker_epoch.0);
        self.i32(stamps.follower.0);
        self.i64(stamps.follower_broker_epoch.0);
        self.0.extend_from_slice(&stamps.follower_directory.0);
        self.u32(stamps.generation.recovery_epoch);
        self.u32(stamps.generation.counter);
    }

    fn report(&mut self, report: &StreamReport) {
        self.offset(report.written);
        self.offset(report.durable);
        self.u64(report.probe);
        self.offset(report.log_start);
        self.u8(u8::from(report.is_whole));
    }

    fn news(&mut self, news: &StreamNews) {
        self.offset(news.high_watermark);
        self.offset(news.log_start);
        self.u64(news.probe);
        self.u8(u8::from(news.is_whole));
    }

    fn refusal(&mut self, refusal: &Refusal) {
        match *refusal {
            Refusal::NotLeader => self.u8(0),
            Refusal::FencedEpoch(epoch) => {
                self.u8(1);
                self.i32(epoch.0);
            }
            Refusal::UnknownEpoch(epoch) => {
                self.u8(2);
                self.i32(epoch.0);
            }
            Refusal::StaleBroker => self.u8(3),
            Refusal::NotReplica => self.u8(4),
            Refusal::OutOfRange { log_start, log_end } => {
                self.u8(5);
                self.offset(log_start);
                self.offset(log_end);
            }
            Refusal::Offline => self.u8(6),
            Refusal::Damaged => self.u8(7),
            Refusal::OtherDirectory => self.u8(8),
        }
    }
}

impl Take<'_> {
    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], StreamDecodeError> {
        let end = self.at + LEN;
        let found = self.bytes.get(self.at..end).ok_or(StreamDecodeError::Truncated)?;
        self.at = end;
        Ok(found.try_into().expect("a slice of the length asked for"))
    }

    fn offset(&mut self, what: &'static str) -> Result<Offset, StreamDecodeError> {
        match self.i64()? {
            offset if offset < 0 => Err(StreamDecodeError::Invalid(what)),
            offset => Ok(Offset(offset)),
        }
    }

    fn stamps(&mut self) -> Result<Stamps, StreamDecodeError> {
        let topic_id = Uuid(self.array()?);
        let partition = TopicPartition { topic_id, partition: PartitionIndex(self.i32()?) };
        Ok(Stamps {
            partition,
            leader_epoch: LeaderEpoch(self.i32()?),
            leader: BrokerId(self.i32()?),
            leader_broker_epoch: BrokerEpoch(self.i64()?),
            follower: BrokerId(self.i32()?),
            follower_broker_epoch: BrokerEpoch(self.i64()?),
            follower_directory: Uuid(self.array()?),
            generation: StreamGeneration { recovery_epoch: self.u32()?, counter: self.u32()? },
        })
    }

    fn range(&mut self) -> Result<(Offset, Offset), StreamDecodeError> {
        let (from, to) = (self.offset("a range's beginning")?, self.offset("a range's end")?);
        if to < from {
            return Err(StreamDecodeError::Invalid("a range"));
        }
        Ok((from, to))
    }

    fn open(&mut self) -> Result<OpenStream, StreamDecodeError> {
        let fetch_offset = self.offset("a fetch offset")?;
        let last_fetched_epoch = LeaderEpoch(self.i32()?);
        let report = self.report()?;
        if report.written > fetch_offset {
            return Err(StreamDecodeError::Invalid("a position above the log's end"));
        }
        let (credit, batch_bytes_max) = (self.u32()?, self.u32()?);
        Ok(OpenStream { fetch_offset, last_fetched_epoch, report, credit, batch_bytes_max })
    }

    fn report(&mut self) -> Result<StreamReport, StreamDecodeError> {
        let written = self.offset("a written position")?;
        let durable = self.offset("a durable position")?;
        if durable > written {
            return Err(StreamDecodeError::Invalid("a durable position above the written one"));
        }
        let (probe, log_start) = (self.u64()?, self.offset("a log start")?);
        Ok(StreamReport { written, durable, probe, log_start, is_whole: self.is_whole()? })
    }

    fn news(&mut self) -> Result<StreamNews, StreamDecodeError> {
        let high_watermark = self.offset("a high watermark")?;
        let log_start = self.offset("a log start")?;
        if log_start > high_watermark {
            return Err(StreamDecodeError::Invalid("a log start above the high watermark"));
        }
        Ok(StreamNews { high_watermark, log_start, probe: self.u64()?, is_whole: self.is_whole()? })
    }

    fn is_whole(&mut self) -> Result<bool, StreamDecodeError> {
        self.flag("whether a log is whole")
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, StreamDecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(StreamDecodeError::Invalid(what)),
        }
    }

    fn refusal(&mut self) -> Result<Refusal, StreamDecodeError> {
        Ok(match self.u8()? {
            0 => Refusal::NotLeader,
            1 => Refusal::FencedEpoch(LeaderEpoch(self.i32()?)),
            2 => Refusal::UnknownEpoch(LeaderEpoch(self.i32()?)),
            3 => Refusal::StaleBroker,
            4 => Refusal::NotReplica,
            5 => Refusal::OutOfRange { log_start: self.offset("a log start")?, log_end: self.offset("a log end")? },
            6 => Refusal::Offline,
            7 => Refusal::Damaged,
            8 => Refusal::OtherDirectory,
            _ => return Err(StreamDecodeError::Invalid("a refusal")),
        })
    }
}

#[cfg(test)]
mod tests;
