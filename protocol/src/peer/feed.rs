//! The metadata feed: a node that does not vote pulls committed entries from any voter, or a snapshot when what it needs
//! is gone from the log.
//!
//! Only entries that the voter has applied are given. They are committed and never change, so the puller has nothing to
//! truncate, ever.

use bytes::Bytes;

use super::raft::{CHUNK_BYTES_MAX, ENTRIES_COUNT_MAX, LogId, SNAPSHOT_BYTES_MAX};
use super::wire::{Reader, WireError, Writer};
use crate::BrokerId;

/// The longest that a voter holds a pull for which it has nothing, in milliseconds.
pub const WAIT_MS_MAX: u32 = 10_000;

/// Asks for what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pull {
    /// The last entry that the puller has applied.
    pub applied: Option<LogId>,
    /// A snapshot that has arrived in part: what it covers, and how many bytes are there.
    pub snapshot: Option<(LogId, u64)>,
    /// How long the voter may wait for something new, in milliseconds.
    pub wait_ms: u32,
    /// Whether the puller may be made a member of the quorum: it is a controller.
    pub may_vote: bool,
}

/// Who leads, and in which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leading {
    /// The active controller.
    pub node: BrokerId,
    /// Its term.
    pub term: u64,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Who leads, as far as the voter knows.
    pub leader: Option<Leading>,
    /// The last entry that the voter has applied: how far behind the puller is.
    pub applied: Option<LogId>,
    /// What it gets.
    pub content: Content,
}

/// What a puller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The entries behind the one it has applied, in order; none when there are none.
    Entries(Vec<Bytes>),
    /// A piece of a snapshot, for the entries are gone.
    Snapshot {
        /// The last entry that it covers.
        last: LogId,
        /// Its length in bytes.
        total_bytes: u64,
        /// Where the piece begins.
        position: u64,
        /// The piece.
        bytes: Bytes,
    },
    /// What the puller has applied is no part of this cluster's history, or lies ahead of this voter.
    Ahead,
}

impl Pull {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.option(self.applied, |out, id| id.write(out));
        out.option(self.snapshot, |out, (id, position)| {
            id.write(out);
            out.u64(position);
        });
        out.u32(self.wait_ms);
        out.flag(self.may_vote);
        out.finish()
    }

    /// Reads what [`Pull::encode`] wrote; every byte must belong. The wait is cut to [`WAIT_MS_MAX`].
    pub fn decode(bytes: Bytes) -> Result<Pull, WireError> {
        let mut input = Reader::new(bytes);
        let applied = input.option(LogId::read)?;
        let snapshot = input.option(|input| Ok((LogId::read(input)?, input.u64()?)))?;
        let wait_ms = input.u32()?.min(WAIT_MS_MAX);
        let may_vote = input.flag()?;
        input.end()?;
        Ok(Pull { applied, snapshot, wait_ms, may_vote })
    }
}

impl Pulled {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.option(self.leader, |out, leader| {
            out.node(leader.node);
            out.u64(leader.term);
        });
        out.option(self.applied, |out, id| id.write(out));
        match &self.content {
            Content::Entries(entries) => {
                out.u8(0);
                out.list(entries, |out, entry| out.bytes(entry));
            }
            Content::Snapshot { last, total_bytes, position, bytes } => {
                out.u8(1);
                last.write(&mut out);
                out.u64(*total_bytes);
                out.u64(*position);
                out.bytes(bytes);
            }
            Content::Ahead => out.u8(2),
        }
        out.finish()
    }

    /// Reads what [`Pulled::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<Pulled, WireError> {
        let mut input = Reader::new(bytes);
        let leader = input.option(|input| Ok(Leading { node: input.node()?, term: input.u64()? }))?;
        let applied = input.option(LogId::read)?;
        let content = match input.u8()? {
            0 => Content::Entries(input.list(4, ENTRIES_COUNT_MAX, Reader::bytes)?),
            1 => read_piece(&mut input)?,
            2 => Content::Ahead,
            _ => return Err(WireError::Invalid("content of a pull")),
        };
        input.end()?;
        Ok(Pulled { leader, applied, content })
    }
}

fn read_piece(input: &mut Reader) -> Result<Content, WireError> {
    let last = LogId::read(input)?;
    let (total_bytes, position, bytes) = (input.u64()?, input.u64()?, input.bytes()?);
    if total_bytes > SNAPSHOT_BYTES_MAX || bytes.is_empty() || bytes.len() > CHUNK_BYTES_MAX {
        return Err(WireError::Invalid("length of a snapshot"));
    }
    match position.checked_add(bytes.len() as u64) {
        Some(end) if end <= total_bytes => Ok(Content::Snapshot { last, total_bytes, position, bytes }),
        _ => Err(WireError::Invalid("place in a snapshot")),
    }
}
