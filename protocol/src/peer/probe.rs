//! Finding out whether there is a cluster: what a node without one asks every listed voter, and what it is told.
//!
//! Who may form a cluster, and when, is decided elsewhere; see `quorum/bootstrap.rs` in `replication`.

use std::sync::Arc;

use bytes::Bytes;

use super::wire::{HOST_BYTES_MAX, Reader, WireError, Writer};
use crate::{BrokerId, ClusterId, DirectoryId};

/// The longest list of voters that is read. Clusters have five at most; a change of all of them names ten.
pub const VOTERS_MAX: usize = 32;

/// A voter as configuration lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListedVoter {
    /// `node.id`.
    pub node: BrokerId,
    /// Where its controller listener is reached.
    pub host: Arc<str>,
    /// Its port.
    pub port: u16,
}

/// What a member of the quorum is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// It votes.
    Votes,
    /// It follows, to vote once it has caught up: nothing that it promises counts yet.
    ToBe,
    /// It votes for as long as a change lasts that takes it out.
    Leaves,
}

/// A member of the quorum as the membership records it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Who, and where.
    pub voter: ListedVoter,
    /// With which directory.
    pub directory: DirectoryId,
    /// As what.
    pub part: Part,
}

/// Asks a node what it knows of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The asking node's list, sorted by node.
    pub voters: Vec<ListedVoter>,
}

/// What a node knows of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// It knows of none: its metadata log is empty.
    Empty {
        /// Its own list, sorted by node.
        voters: Vec<ListedVoter>,
        /// The directory it would vote with. Durable: it says the same after a restart.
        directory: DirectoryId,
        /// The cluster its directories were formatted for, if they were.
        formatted: Option<ClusterId>,
    },
    /// It belongs to a cluster.
    Member {
        /// Which.
        cluster: ClusterId,
        /// Who votes or is to, as far as it knows.
        members: Vec<Member>,
        /// Who leads, as far as it knows.
        leader: Option<BrokerId>,
    },
}

impl ListedVoter {
    const BYTES_MIN: usize = 8;

    fn write(&self, out: &mut Writer) {
        out.node(self.node);
        out.text(&self.host, HOST_BYTES_MAX);
        out.u16(self.port);
    }

    fn read(input: &mut Reader) -> Result<ListedVoter, WireError> {
        Ok(ListedVoter { node: input.node()?, host: input.text(HOST_BYTES_MAX)?, port: input.u16()? })
    }
}

impl Part {
    const ALL: [Part; 3] = [Part::Votes, Part::ToBe, Part::Leaves];

    fn read(input: &mut Reader) -> Result<Part, WireError> {
        Part::ALL.get(usize::from(input.u8()?)).copied().ok_or(WireError::Invalid("part"))
    }
}

impl Member {
    const BYTES_MIN: usize = ListedVoter::BYTES_MIN + 17;

    fn write(&self, out: &mut Writer) {
        self.voter.write(out);
        out.uuid(self.directory);
        out.u8(self.part as u8);
    }

    fn read(input: &mut Reader) -> Result<Member, WireError> {
        Ok(Member { voter: ListedVoter::read(input)?, directory: input.uuid()?, part: Part::read(input)? })
    }
}

fn write_voters(out: &mut Writer, voters: &[ListedVoter]) {
    out.list(voters, |out, voter| voter.write(out));
}

fn read_voters(input: &mut Reader) -> Result<Vec<ListedVoter>, WireError> {
    input.list(ListedVoter::BYTES_MIN, VOTERS_MAX, ListedVoter::read)
}

impl Probe {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        write_voters(&mut out, &self.voters);
        out.finish()
    }

    /// Reads what [`Probe::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<Probe, WireError> {
        let mut input = Reader::new(bytes);
        let probe = Probe { voters: read_voters(&mut input)? };
        input.end()?;
        Ok(probe)
    }
}

impl ProbeAnswer {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            ProbeAnswer::Empty { voters, directory, formatted } => {
                out.u8(0);
                write_voters(&mut out, voters);
                out.uuid(*directory);
                out.option(formatted.as_ref(), |out, cluster| out.cluster(cluster));
            }
            ProbeAnswer::Member { cluster, members, leader } => {
                out.u8(1);
                out.cluster(cluster);
                out.list(members, |out, member| member.write(out));
                out.option(*leader, Writer::node);
            }
        }
        out.finish()
    }

    /// Reads what [`ProbeAnswer::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<ProbeAnswer, WireError> {
        let mut input = Reader::new(bytes);
        let answer = match input.u8()? {
            0 => ProbeAnswer::Empty {
                voters: read_voters(&mut input)?,
                directory: input.uuid()?,
                formatted: input.option(Reader::cluster)?,
            },
            1 => ProbeAnswer::Member {
                cluster: input.cluster()?,
                members: input.list(Member::BYTES_MIN, VOTERS_MAX, Member::read)?,
                leader: input.option(Reader::node)?,
            },
            _ => return Err(WireError::Invalid("probe answer")),
        };
        input.end()?;
        Ok(answer)
    }
}
