//! The bytes of votes, log ids, entries and memberships: in the journal, in snapshots, between voters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::RaftVote as _;
use stonelog_protocol::peer::raft::{ENTRIES_BYTES_MAX, ENTRIES_COUNT_MAX};

use super::type_config::{Entry, LogId, Membership, Proposal, StoredMembership, Vote, Voter};
use crate::metadata::RecordBatch;
use crate::metadata::codec::{DecodeError, Reader, Writer};

/// The version of every layout in this file.
const FORMAT: u8 = 1;

/// One record of the metadata journal.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalRecord {
    /// The vote from here on.
    Vote(Vote),
    /// An entry; it takes the place of an earlier one at its index.
    Entry(Entry),
    /// Entries after this one are gone; all, with `None`.
    TruncateAfter(Option<LogId>),
    /// Entries up to this one are covered by a durable snapshot and gone.
    Purged(LogId),
    /// Entries up to this one were known to be committed. Written with the next flush, not before.
    Committed(Option<LogId>),
}

impl JournalRecord {
    /// Kind, version, body.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.u8(match self {
            JournalRecord::Vote(_) => 1,
            JournalRecord::Entry(_) => 2,
            JournalRecord::TruncateAfter(_) => 3,
            JournalRecord::Purged(_) => 4,
            JournalRecord::Committed(_) => 5,
        });
        out.u8(FORMAT);
        match self {
            JournalRecord::Vote(vote) => write_vote(&mut out, vote),
            JournalRecord::Entry(entry) => write_entry(&mut out, entry),
            JournalRecord::TruncateAfter(id) | JournalRecord::Committed(id) => out.option(id.as_ref(), write_log_id),
            JournalRecord::Purged(id) => write_log_id(&mut out, id),
        }
        out.finish().into()
    }

    /// Reads what [`JournalRecord::encode`] wrote; every byte must belong.
    pub fn decode(bytes: &[u8]) -> Result<JournalRecord, DecodeError> {
        let mut input = Reader::new(bytes);
        let kind = input.u8()?;
        let version = input.u8()?;
        if version != FORMAT {
            return Err(DecodeError::UnknownVersion { what: "metadata journal record", version });
        }
        let record = match kind {
            1 => JournalRecord::Vote(read_vote(&mut input)?),
            2 => JournalRecord::Entry(read_entry(&mut input)?),
            3 => JournalRecord::TruncateAfter(input.option(read_log_id)?),
            4 => JournalRecord::Purged(read_log_id(&mut input)?),
            5 => JournalRecord::Committed(input.option(read_log_id)?),
            other => return Err(DecodeError::UnknownRecord(other)),
        };
        input.end()?;
        Ok(record)
    }
}

fn write_vote(out: &mut Writer, vote: &Vote) {
    out.u64(vote.leader_id.term);
    out.u64(vote.leader_id.voted_for);
    out.flag(vote.committed);
}

fn read_vote(input: &mut Reader<'_>) -> Result<Vote, DecodeError> {
    let leader_id = LeaderId { term: input.u64()?, voted_for: read_node(input)? };
    Ok(Vote::from_leader_id(leader_id, input.flag()?))
}

/// Term and index.
pub fn write_log_id(out: &mut Writer, id: &LogId) {
    out.u64(id.leader_id.term);
    out.u64(id.index);
}

/// Reads what [`write_log_id`] wrote.
pub fn read_log_id(input: &mut Reader<'_>) -> Result<LogId, DecodeError> {
    Ok(LogId::new_term_index(input.u64()?, input.u64()?))
}

/// An entry as it is sent to another node: what a journal record of it holds.
pub(super) fn encode_entry(entry: &Entry) -> Bytes {
    let mut out = Writer::new();
    write_entry(&mut out, entry);
    out.finish().into()
}

/// As many encoded entries as one message to another node holds, at least one if there is one.
pub(super) fn fitting_entries(entries: &[Entry]) -> Vec<Bytes> {
    let mut fitting = Vec::new();
    let mut len = 0;
    for entry in entries.iter().take(ENTRIES_COUNT_MAX) {
        let entry = encode_entry(entry);
        len += entry.len();
        if len > ENTRIES_BYTES_MAX && !fitting.is_empty() {
            break;
        }
        fitting.push(entry);
    }
    fitting
}

/// Reads what [`encode_entry`] wrote; every byte must belong.
pub(super) fn decode_entry(bytes: &[u8]) -> Result<Entry, DecodeError> {
    let mut input = Reader::new(bytes);
    let entry = read_entry(&mut input)?;
    input.end()?;
    Ok(entry)
}

fn write_entry(out: &mut Writer, entry: &Entry) {
    write_log_id(out, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.u8(0),
        EntryPayload::Normal(proposal) => {
            out.u8(1);
            out.bytes(&proposal.0.encode());
        }
        EntryPayload::Membership(membership) => {
            out.u8(2);
            write_membership(out, membership);
        }
    }
}

fn read_entry(input: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    let log_id = read_log_id(input)?;
    let payload = match input.u8()? {
        0 => EntryPayload::Blank,
        1 => EntryPayload::Normal(Proposal(Arc::new(RecordBatch::decode(input.bytes()?)?))),
        2 => EntryPayload::Membership(read_membership(input)?),
        _ => return Err(DecodeError::Invalid("entry payload")),
    };
    Ok(Entry::new(log_id, payload))
}

/// A node's number: everybody but openraft has 31 bits for it.
fn read_node(input: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let id = input.u64()?;
    i32::try_from(id).map(|_| id).map_err(|_| DecodeError::Invalid("node id"))
}

fn write_membership(out: &mut Writer, membership: &Membership) {
    out.list(membership.get_joint_config(), |out, voters| {
        out.list(&Vec::from_iter(voters.iter().copied()), |out, id| out.u64(*id));
    });
    let nodes: Vec<_> = membership.nodes().collect();
    out.list(&nodes, |out, (id, voter)| {
        out.u64(**id);
        out.raw(&voter.directory);
        out.text(&voter.host);
        out.u16(voter.port);
    });
}

fn read_membership(input: &mut Reader<'_>) -> Result<Membership, DecodeError> {
    let configs = input.list(4, |input| {
        let voters = input.list(8, read_node)?;
        Ok(BTreeSet::from_iter(voters))
    })?;
    let nodes = input.list(30, |input| {
        let id = read_node(input)?;
        let directory = input.take(16)?.try_into().expect("take returned the length asked for");
        Ok((id, Voter { directory, host: input.text()?.to_owned(), port: input.u16()? }))
    })?;
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, BTreeMap::from_iter(nodes)).map_err(|_| DecodeError::Invalid("membership"))
}

/// The entry that made it, if any, and the membership.
pub fn write_stored_membership(out: &mut Writer, stored: &StoredMembership) {
    out.option(stored.log_id().as_ref(), write_log_id);
    write_membership(out, stored.membership());
}

/// Reads what [`write_stored_membership`] wrote.
pub fn read_stored_membership(input: &mut Reader<'_>) -> Result<StoredMembership, DecodeError> {
    let log_id = input.option(read_log_id)?;
    Ok(StoredMembership::new(log_id, read_membership(input)?))
}
