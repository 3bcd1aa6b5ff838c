//! The quorum's messages: append, vote, pre-vote, snapshots in chunks, handing over leadership.
//!
//! Terms and indexes only: what an entry says is bytes here. Who sent a message is known from the proof; a vote names
//! its candidate all the same, for it is forwarded in answers.

use bytes::Bytes;

use super::wire::{Reader, WireError, Writer};
use crate::BrokerId;

/// Encoded entries in one append, in bytes. A single entry is shorter; the sender sees to the sum.
pub const ENTRIES_BYTES_MAX: usize = 8 << 20;
/// Entries in one append.
pub const ENTRIES_COUNT_MAX: usize = 4096;
/// Bytes of a snapshot in one chunk.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The longest snapshot that is taken from a peer, in bytes. A million partitions are about 70 MB.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// A term, who is voted for in it, and whether a majority did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The term: the controller epoch.
    pub term: u64,
    /// The candidate.
    pub candidate: BrokerId,
    /// Whether it is known to lead.
    pub is_committed: bool,
}

/// An entry's place and the term it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term of the leader that made it.
    pub term: u64,
    /// Its index; from 0, without holes.
    pub index: u64,
}

/// A leader's entries, or none as a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The leader's vote.
    pub vote: Vote,
    /// The entry before the first one here.
    pub previous: Option<LogId>,
    /// Up to where the leader knows entries to be committed.
    pub committed: Option<LogId>,
    /// The entries, in order, as the metadata journal has them.
    pub entries: Vec<Bytes>,
}

/// What became of an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendAnswer {
    /// All entries are durable.
    Success,
    /// Entries up to this one are durable.
    Partial(Option<LogId>),
    /// There is another entry, or none, at `previous`.
    Conflict,
    /// The sender leads no longer.
    HigherVote(Vote),
}

/// A candidate asks for a vote, or for what would be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteRequest {
    /// What is asked for.
    pub vote: Vote,
    /// The candidate's last entry.
    pub last: Option<LogId>,
    /// The leader itself asked for this election.
    pub is_transfer: bool,
}

/// The answer to a [`VoteRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteAnswer {
    /// The voter's vote now.
    pub vote: Vote,
    /// Whether it is given to the candidate.
    pub is_granted: bool,
    /// The voter's last entry.
    pub last: Option<LogId>,
}

/// A piece of a snapshot. Pieces follow each other on one connection, from 0 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The leader's vote.
    pub vote: Vote,
    /// The last entry that the snapshot covers.
    pub last: Option<LogId>,
    /// The whole snapshot's length in bytes.
    pub total_bytes: u64,
    /// Where this piece begins.
    pub position: u64,
    /// The piece; never empty.
    pub bytes: Bytes,
}

/// The answer to a [`SnapshotChunk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotAnswer {
    /// The next piece begins here.
    Next(u64),
    /// The snapshot is installed and durable, or was refused for this higher vote.
    Done(Vote),
}

/// The leader asks a voter to stand for election at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The leader's vote.
    pub from: Vote,
    /// Who shall lead.
    pub to: BrokerId,
    /// What it needs to have.
    pub last: Option<LogId>,
}

/// The answer to a [`Transfer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferAnswer {
    /// It will.
    Accepted,
    /// Its vote is another one by now.
    VoteChanged {
        /// By the request.
        expected: Vote,
        /// Its own.
        actual: Vote,
    },
    /// It does not have all entries durable.
    Behind {
        /// By the request.
        expected: Option<LogId>,
        /// Its own.
        actual: Option<LogId>,
    },
}

impl Vote {
    pub(super) fn write(self, out: &mut Writer) {
        out.u64(self.term);
        out.node(self.candidate);
        out.flag(self.is_committed);
    }

    pub(super) fn read(input: &mut Reader) -> Result<Vote, WireError> {
        Ok(Vote { term: input.u64()?, candidate: input.node()?, is_committed: input.flag()? })
    }
}

impl LogId {
    pub(super) fn write(self, out: &mut Writer) {
        out.u64(self.term);
        out.u64(self.index);
    }

    pub(super) fn read(input: &mut Reader) -> Result<LogId, WireError> {
        Ok(LogId { term: input.u64()?, index: input.u64()? })
    }
}

fn write_last(out: &mut Writer, last: Option<LogId>) {
    out.option(last, |out, id| id.write(out));
}

fn read_last(input: &mut Reader) -> Result<Option<LogId>, WireError> {
    input.option(LogId::read)
}

impl Append {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        self.vote.write(&mut out);
        write_last(&mut out, self.previous);
        write_last(&mut out, self.committed);
        out.list(&self.entries, |out, entry| out.bytes(entry));
        out.finish()
    }

    /// Reads what [`Append::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<Append, WireError> {
        let mut input = Reader::new(bytes);
        let append = Append {
            vote: Vote::read(&mut input)?,
            previous: read_last(&mut input)?,
            committed: read_last(&mut input)?,
            entries: input.list(4, ENTRIES_COUNT_MAX, Reader::bytes)?,
        };
        input.end()?;
        Ok(append)
    }
}

impl AppendAnswer {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            AppendAnswer::Success => out.u8(0),
            AppendAnswer::Partial(last) => {
                out.u8(1);
                write_last(&mut out, *last);
            }
            AppendAnswer::Conflict => out.u8(2),
            AppendAnswer::HigherVote(vote) => {
                out.u8(3);
                vote.write(&mut out);
            }
        }
        out.finish()
    }

    /// Reads what [`AppendAnswer::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<AppendAnswer, WireError> {
        let mut input = Reader::new(bytes);
        let answer = match input.u8()? {
            0 => AppendAnswer::Success,
            1 => AppendAnswer::Partial(read_last(&mut input)?),
            2 => AppendAnswer::Conflict,
            3 => AppendAnswer::HigherVote(Vote::read(&mut input)?),
            _ => return Err(WireError::Invalid("append answer")),
        };
        input.end()?;
        Ok(answer)
    }
}

impl VoteRequest {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        self.vote.write(&mut out);
        write_last(&mut out, self.last);
        out.flag(self.is_transfer);
        out.finish()
    }

    /// Reads what [`VoteRequest::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<VoteRequest, WireError> {
        let mut input = Reader::new(bytes);
        let vote = Vote::read(&mut input)?;
        let request = VoteRequest { vote, last: read_last(&mut input)?, is_transfer: input.flag()? };
        input.end()?;
        Ok(request)
    }
}

impl VoteAnswer {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        self.vote.write(&mut out);
        out.flag(self.is_granted);
        write_last(&mut out, self.last);
        out.finish()
    }

    /// Reads what [`VoteAnswer::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<VoteAnswer, WireError> {
        let mut input = Reader::new(bytes);
        let vote = Vote::read(&mut input)?;
        let answer = VoteAnswer { vote, is_granted: input.flag()?, last: read_last(&mut input)? };
        input.end()?;
        Ok(answer)
    }
}

impl SnapshotChunk {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        self.vote.write(&mut out);
        write_last(&mut out, self.last);
        out.u64(self.total_bytes);
        out.u64(self.position);
        out.bytes(&self.bytes);
        out.finish()
    }

    /// Reads what [`SnapshotChunk::encode`] wrote; every byte must belong, and the piece lie within the whole.
    pub fn decode(bytes: Bytes) -> Result<SnapshotChunk, WireError> {
        let mut input = Reader::new(bytes);
        let chunk = SnapshotChunk {
            vote: Vote::read(&mut input)?,
            last: read_last(&mut input)?,
            total_bytes: input.u64()?,
            position: input.u64()?,
            bytes: input.bytes()?,
        };
        input.end()?;
        if chunk.total_bytes > SNAPSHOT_BYTES_MAX || chunk.bytes.is_empty() || chunk.bytes.len() > CHUNK_BYTES_MAX {
            return Err(WireError::Invalid("length of a snapshot"));
        }
        match chunk.position.checked_add(chunk.bytes.len() as u64) {
            Some(end) if end <= chunk.total_bytes => Ok(chunk),
            _ => Err(WireError::Invalid("place in a snapshot")),
        }
    }

    /// Whether the snapshot ends with this piece.
    pub fn is_last(&self) -> bool {
        self.position + self.bytes.len() as u64 == self.total_bytes
    }
}

impl SnapshotAnswer {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            SnapshotAnswer::Next(position) => {
                out.u8(0);
                out.u64(*position);
            }
            SnapshotAnswer::Done(vote) => {
                out.u8(1);
                vote.write(&mut out);
            }
        }
        out.finish()
    }

    /// Reads what [`SnapshotAnswer::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<SnapshotAnswer, WireError> {
        let mut input = Reader::new(bytes);
        let answer = match input.u8()? {
            0 => SnapshotAnswer::Next(input.u64()?),
            1 => SnapshotAnswer::Done(Vote::read(&mut input)?),
            _ => return Err(WireError::Invalid("snapshot answer")),
        };
        input.end()?;
        Ok(answer)
    }
}

impl Transfer {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        self.from.write(&mut out);
        out.node(self.to);
        write_last(&mut out, self.last);
        out.finish()
    }

    /// Reads what [`Transfer::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<Transfer, WireError> {
        let mut input = Reader::new(bytes);
        let from = Vote::read(&mut input)?;
        let transfer = Transfer { from, to: input.node()?, last: read_last(&mut input)? };
        input.end()?;
        Ok(transfer)
    }
}

impl TransferAnswer {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            TransferAnswer::Accepted => out.u8(0),
            TransferAnswer::VoteChanged { expected, actual } => {
                out.u8(1);
                expected.write(&mut out);
                actual.write(&mut out);
            }
            TransferAnswer::Behind { expected, actual } => {
                out.u8(2);
                write_last(&mut out, *expected);
                write_last(&mut out, *actual);
            }
        }
        out.finish()
    }

    /// Reads what [`TransferAnswer::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<TransferAnswer, WireError> {
        let mut input = Reader::new(bytes);
        let answer = match input.u8()? {
            0 => TransferAnswer::Accepted,
            1 => TransferAnswer::VoteChanged { expected: Vote::read(&mut input)?, actual: Vote::read(&mut input)? },
            2 => TransferAnswer::Behind { expected: read_last(&mut input)?, actual: read_last(&mut input)? },
            _ => return Err(WireError::Invalid("transfer answer")),
        };
        input.end()?;
        Ok(answer)
    }
}
