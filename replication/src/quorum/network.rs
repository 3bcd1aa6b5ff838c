//! openraft's messages to another voter, over a [`PeerLink`].
//!
//! Three links to each voter, so that neither entries nor a snapshot hold up the signs of life. Every exchange ends
//! within its time: whatever openraft allows, but for entries, whose answer waits for the other node's fsync.
//! An error is never a grant: a pre-vote that did not arrive is not answered by this file.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use stonelog_protocol::Uuid;
use stonelog_protocol::peer::frame::{Frame, Kind};
use stonelog_protocol::peer::proof::Purpose;
use stonelog_protocol::peer::raft;

use super::codec::fitting_entries;
use super::link::{LinkError, PeerDialer, PeerLink, Target};
use super::type_config::{Snapshot, TypeConfig, Vote, Voter};
use super::wire::{broker, id_in, id_out, vote_in, vote_out};

/// How long to leave a voter alone that could not be reached; the link has a longer patience of its own.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Makes clients of other voters.
#[derive(Clone)]
pub struct Peers<D> {
    dialer: D,
    own: u64,
    entries_within: Duration,
}

impl<D: PeerDialer> Peers<D> {
    /// Clients for the node `own`. An append with entries may take `entries_within`: a heartbeat's time is too short for a
    /// slow disk, and there are other links for signs of life.
    pub fn new(dialer: D, own: u64, entries_within: Duration) -> Peers<D> {
        Peers { dialer, own, entries_within }
    }
}

impl<D: PeerDialer> RaftNetworkFactory<TypeConfig> for Peers<D> {
    type Network = Peer<D::Link>;

    async fn new_client(&mut self, target: u64, voter: &Voter) -> Peer<D::Link> {
        let target = Target {
            node: broker(target),
            directory: Some(Uuid(voter.directory)),
            host: voter.host.clone(),
            port: voter.port,
        };
        let link = self.dialer.link(target.clone(), Purpose::Quorum);
        Peer { own: self.own, target: target.node.0 as u64, entries_within: self.entries_within, link }
    }
}

/// A client of one other voter.
pub struct Peer<L> {
    own: u64,
    target: u64,
    entries_within: Duration,
    link: L,
}

impl<L: PeerLink> Peer<L> {
    async fn ask<T>(
        &mut self,
        request: (Kind, Bytes),
        answer: Kind,
        decode: impl FnOnce(Bytes) -> Result<T, stonelog_protocol::peer::wire::WireError>,
        within: Duration,
    ) -> Result<T, LinkError> {
        let Frame { kind, body, .. } = self.link.exchange(request.0, request.1, within).await?;
        if kind != answer {
            return Err(LinkError::Malformed(format!("{kind:?} instead of {answer:?}")));
        }
        decode(body).map_err(|error| LinkError::Malformed(error.to_string()))
    }

    /// Everything but a timeout counts as unreachable, which makes openraft wait a moment before it tries again.
    fn failed(&self, error: LinkError, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        match error {
            LinkError::TimedOut => Timeout { action, id: self.own, target: self.target, timeout }.into(),
            other => Unreachable::new(&other).into(),
        }
    }

    async fn ask_vote(
        &mut self,
        kind: Kind,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = raft::VoteRequest {
            vote: vote_out(&rpc.vote),
            last: rpc.last_log_id.map(id_out),
            is_transfer: rpc.leadership_transfer,
        };
        let within = option.soft_ttl();
        let answer = self.ask((kind, request.encode()), Kind::VoteAnswer, raft::VoteAnswer::decode, within).await;
        let answer = answer.map_err(|error| self.failed(error, RPCTypes::Vote, within))?;
        Ok(VoteResponse {
            vote: vote_in(answer.vote),
            vote_granted: answer.is_granted,
            last_log_id: answer.last.map(id_in),
        })
    }

    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        within: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        let bytes = snapshot.snapshot;
        let mut position = 0;
        while position < bytes.len() {
            let end = bytes.len().min(position + raft::CHUNK_BYTES_MAX);
            let chunk = raft::SnapshotChunk {
                vote: vote_out(&vote),
                last: snapshot.meta.last_log_id.map(id_out),
                total_bytes: bytes.len() as u64,
                position: position as u64,
                bytes: bytes.slice(position..end),
            };
            let request = (Kind::Snapshot, chunk.encode());
            let answer = self.ask(request, Kind::SnapshotAnswer, raft::SnapshotAnswer::decode, within).await;
            match answer {
                Ok(raft::SnapshotAnswer::Done(vote)) => return Ok(SnapshotResponse::new(vote_in(vote))),
                Ok(raft::SnapshotAnswer::Next(next)) if next == end as u64 => position = end,
                Ok(raft::SnapshotAnswer::Next(next)) => {
                    let error = LinkError::Malformed(format!("it wants byte {next} of a snapshot after {end}"));
                    return Err(self.failed(error, RPCTypes::InstallSnapshot, within));
                }
                Err(error) => return Err(self.failed(error, RPCTypes::InstallSnapshot, within)),
            }
        }
        let error = LinkError::Malformed("it has taken a whole snapshot and wants more".to_owned());
        Err(self.failed(error, RPCTypes::InstallSnapshot, within))
    }
}

impl<L: PeerLink> RaftNetworkV2<TypeConfig> for Peer<L> {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let entries = fitting_entries(&rpc.entries);
        let last_sent = entries.len().checked_sub(1).map(|last| rpc.entries[last].log_id);
        let is_whole = entries.len() == rpc.entries.len();
        let within = if entries.is_empty() { option.soft_ttl() } else { self.entries_within.max(option.soft_ttl()) };
        let request = raft::Append {
            vote: vote_out(&rpc.vote),
            previous: rpc.prev_log_id.map(id_out),
            committed: rpc.leader_commit.map(id_out),
            entries,
        };
        let request = (Kind::Append, request.encode());
        let answer = self.ask(request, Kind::AppendAnswer, raft::AppendAnswer::decode, within).await;
        Ok(match answer.map_err(|error| self.failed(error, RPCTypes::AppendEntries, within))? {
            raft::AppendAnswer::Success if is_whole => AppendEntriesResponse::Success,
            raft::AppendAnswer::Success => AppendEntriesResponse::PartialSuccess(last_sent),
            raft::AppendAnswer::Partial(last) => AppendEntriesResponse::PartialSuccess(last.map(id_in)),
            raft::AppendAnswer::Conflict => AppendEntriesResponse::Conflict,
            raft::AppendAnswer::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_in(vote)),
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(Kind::Vote, rpc, option).await
    }

    /// The default would grant, which only the peer may do.
    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(Kind::PreVote, rpc, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            sent = self.send_snapshot(vote, snapshot, option.soft_ttl()) => sent.map_err(StreamingError::from),
            closed = cancel => Err(closed.into()),
        }
    }

    /// The default would fail, and the next leader would wait for the lease.
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = raft::Transfer {
            from: vote_out(req.from_leader()),
            to: broker(*req.to_node_id()),
            last: req.last_log_id().copied().map(id_out),
        };
        let within = option.soft_ttl();
        let request = (Kind::Transfer, request.encode());
        let answer = self.ask(request, Kind::TransferAnswer, raft::TransferAnswer::decode, within).await;
        Ok(match answer.map_err(|error| self.failed(error, RPCTypes::TransferLeader, within))? {
            raft::TransferAnswer::Accepted => Ok(()),
            raft::TransferAnswer::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged { expected: vote_in(expected), actual: vote_in(actual) })
            }
            raft::TransferAnswer::Behind { expected, actual } => {
                Err(TransferLeaderError::LogNotFlushed { expected: expected.map(id_in), actual: actual.map(id_in) })
            }
        })
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(AGAIN_AFTER)))
    }
}
