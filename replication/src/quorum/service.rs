//! What a voter answers to another: openraft's messages come in here.
//!
//! A message is looked at before openraft sees it: it must come from the node it speaks of, and its entries must follow
//! each other. openraft takes a break of these for a bug and ends the process; here it is the peer's, and ends the
//! connection.

use bytes::{Bytes, BytesMut};
use openraft::Raft;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use stonelog_protocol::BrokerId;
use stonelog_protocol::peer::frame::{Frame, Kind};
use stonelog_protocol::peer::raft;
use stonelog_protocol::peer::wire::WireError;

use super::codec::decode_entry;
use super::link::{PeerSession, Served, Serving};
use super::snapshot_store::decode_snapshot;
use super::state_machine::StateMachine;
use super::type_config::{Entry, Snapshot, TypeConfig};
use super::wire::{id_in, id_out, node, vote_in, vote_out};

/// One other voter's connection.
pub(super) struct QuorumSession {
    raft: Raft<TypeConfig, StateMachine>,
    own: BrokerId,
    /// Who has proved to be at the other end.
    peer: BrokerId,
    /// A snapshot that has arrived in part.
    snapshot: Option<Partial>,
}

struct Partial {
    last: Option<raft::LogId>,
    total_bytes: u64,
    bytes: BytesMut,
}

/// Why there is no answer.
enum Refusal {
    /// The message is no such message, or not one that this peer may send.
    Bad(String),
    /// openraft has ended, or could not serve it.
    Failed(String),
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Refusal {
        Refusal::Bad(error.to_string())
    }
}

/// What the sender of a message is in it.
#[derive(Clone, Copy)]
enum Speaks {
    AsLeader,
    AsCandidate,
}

fn bad(why: &str) -> Refusal {
    Refusal::Bad(why.to_owned())
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(error.to_string())
}

impl PeerSession for QuorumSession {
    fn serve(&mut self, request: Frame) -> Serving<'_> {
        Box::pin(async move {
            match self.answer(request).await {
                Ok((kind, body)) => Served::Answer(kind, body),
                Err(Refusal::Failed(why)) => Served::Failed(why),
                Err(Refusal::Bad(why)) => Served::Close(why),
            }
        })
    }
}

impl QuorumSession {
    pub(super) fn new(raft: Raft<TypeConfig, StateMachine>, own: BrokerId, peer: BrokerId) -> QuorumSession {
        QuorumSession { raft, own, peer, snapshot: None }
    }

    async fn answer(&mut self, request: Frame) -> Result<(Kind, Bytes), Refusal> {
        match request.kind {
            Kind::Append => self.append(raft::Append::decode(request.body)?).await,
            Kind::Vote | Kind::PreVote => self.vote(request.kind, raft::VoteRequest::decode(request.body)?).await,
            Kind::Snapshot => self.snapshot(raft::SnapshotChunk::decode(request.body)?).await,
            Kind::Transfer => self.transfer(raft::Transfer::decode(request.body)?).await,
            other => Err(Refusal::Bad(format!("a {other:?} frame on a connection between voters"))),
        }
    }

    /// Nobody speaks for another, a leader speaks as one that was elected, and a candidate as one that was not.
    ///
    /// Who the membership names is not asked: a voter whose own log ends before a change of members must still hear the
    /// leader that the change made, and vote for it. openraft compares the logs.
    fn check_from(&self, vote: raft::Vote, speaks: Speaks) -> Result<(), Refusal> {
        if vote.candidate != self.peer {
            return Err(Refusal::Bad(format!("node {} speaks for node {}", self.peer, vote.candidate)));
        }
        match (speaks, vote.is_committed) {
            (Speaks::AsLeader, true) | (Speaks::AsCandidate, false) => Ok(()),
            (Speaks::AsLeader, false) => Err(bad("a leader that was not elected")),
            (Speaks::AsCandidate, true) => Err(bad("a candidate that leads already")),
        }
    }

    async fn append(&mut self, append: raft::Append) -> Result<(Kind, Bytes), Refusal> {
        self.check_from(append.vote, Speaks::AsLeader)?;
        let entries = entries_in(&append)?;
        let request = AppendEntriesRequest {
            vote: vote_in(append.vote),
            prev_log_id: append.previous.map(id_in),
            entries,
            leader_commit: append.committed.map(id_in),
        };
        let answer = match self.raft.append_entries(request).await.map_err(failed)? {
            AppendEntriesResponse::Success => raft::AppendAnswer::Success,
            AppendEntriesResponse::PartialSuccess(last) => raft::AppendAnswer::Partial(last.map(id_out)),
            AppendEntriesResponse::Conflict => raft::AppendAnswer::Conflict,
            AppendEntriesResponse::HigherVote(vote) => raft::AppendAnswer::HigherVote(vote_out(&vote)),
        };
        Ok((Kind::AppendAnswer, answer.encode()))
    }

    async fn vote(&mut self, kind: Kind, request: raft::VoteRequest) -> Result<(Kind, Bytes), Refusal> {
        self.check_from(request.vote, Speaks::AsCandidate)?;
        let rpc = VoteRequest {
            vote: vote_in(request.vote),
            last_log_id: request.last.map(id_in),
            leadership_transfer: request.is_transfer,
        };
        let answer = if kind == Kind::PreVote { self.raft.pre_vote(rpc).await } else { self.raft.vote(rpc).await };
        let VoteResponse { vote, vote_granted, last_log_id } = answer.map_err(failed)?;
        let answer =
            raft::VoteAnswer { vote: vote_out(&vote), is_granted: vote_granted, last: last_log_id.map(id_out) };
        Ok((Kind::VoteAnswer, answer.encode()))
    }

    async fn snapshot(&mut self, chunk: raft::SnapshotChunk) -> Result<(Kind, Bytes), Refusal> {
        self.check_from(chunk.vote, Speaks::AsLeader)?;
        let mut partial = match self.snapshot.take() {
            _ if chunk.position == 0 => {
                Partial { last: chunk.last, total_bytes: chunk.total_bytes, bytes: BytesMut::new() }
            }
            Some(partial) if partial.last == chunk.last && partial.total_bytes == chunk.total_bytes => partial,
            _ => return Err(bad("a piece of a snapshot that has not begun")),
        };
        if partial.bytes.len() as u64 != chunk.position {
            return Err(bad("a piece of a snapshot out of order"));
        }
        // As long as what has arrived; the announced length sizes nothing.
        partial.bytes.extend_from_slice(&chunk.bytes);
        if !chunk.is_last() {
            let next = partial.bytes.len() as u64;
            self.snapshot = Some(partial);
            return Ok((Kind::SnapshotAnswer, raft::SnapshotAnswer::Next(next).encode()));
        }
        let bytes = partial.bytes.freeze();
        let (meta, _) = decode_snapshot(&bytes).map_err(|error| Refusal::Bad(error.to_string()))?;
        if meta.last_log_id.map(id_out) != chunk.last {
            return Err(bad("a snapshot that covers something else than it says"));
        }
        if chunk.last.is_some_and(|last| last.term > chunk.vote.term) {
            return Err(bad("a snapshot from a later term than its sender's"));
        }
        let installed = self.raft.install_full_snapshot(vote_in(chunk.vote), Snapshot { meta, snapshot: bytes });
        let response = installed.await.map_err(failed)?;
        Ok((Kind::SnapshotAnswer, raft::SnapshotAnswer::Done(vote_out(&response.vote)).encode()))
    }

    async fn transfer(&mut self, transfer: raft::Transfer) -> Result<(Kind, Bytes), Refusal> {
        self.check_from(transfer.from, Speaks::AsLeader)?;
        if transfer.to != self.own {
            return Err(bad("a transfer to another node"));
        }
        let request = TransferLeaderRequest::new(vote_in(transfer.from), node(transfer.to), transfer.last.map(id_in));
        let answer = match self.raft.handle_transfer_leader(request).await.map_err(failed)? {
            Ok(()) => raft::TransferAnswer::Accepted,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                raft::TransferAnswer::VoteChanged { expected: vote_out(&expected), actual: vote_out(&actual) }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                raft::TransferAnswer::Behind { expected: expected.map(id_out), actual: actual.map(id_out) }
            }
        };
        Ok((Kind::TransferAnswer, answer.encode()))
    }
}

/// The entries of an append, if they follow each other and the one before, in terms up to the leader's.
fn entries_in(append: &raft::Append) -> Result<Vec<Entry>, Refusal> {
    let mut entries: Vec<Entry> = Vec::with_capacity(append.entries.len());
    let mut before = append.previous;
    for bytes in &append.entries {
        let entry = decode_entry(bytes).map_err(|error| Refusal::Bad(error.to_string()))?;
        let id = id_out(entry.log_id);
        let follows = match before {
            Some(before) => before.index.checked_add(1) == Some(id.index) && before.term <= id.term,
            None => id.index == 0,
        };
        if !follows || id.term > append.vote.term {
            return Err(bad("entries that do not follow each other"));
        }
        before = Some(id);
        entries.push(entry);
    }
    Ok(entries)
}
