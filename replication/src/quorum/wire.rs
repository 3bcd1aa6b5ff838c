//! openraft's values as the link between nodes has them, and back.

use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::RaftVote as _;
use stonelog_protocol::BrokerId;
use stonelog_protocol::peer::raft;

use super::type_config::{LogId, Vote};

/// A node's number as openraft has it.
pub(super) fn node(id: BrokerId) -> u64 {
    u64::try_from(id.0).expect("node ids are not negative")
}

/// A node's number as everybody else has it. Memberships hold none that does not fit.
pub(super) fn broker(node: u64) -> BrokerId {
    BrokerId(i32::try_from(node).expect("node ids fit 31 bits"))
}

pub(super) fn vote_out(vote: &Vote) -> raft::Vote {
    let LeaderId { term, voted_for } = vote.leader_id;
    raft::Vote { term, candidate: broker(voted_for), is_committed: vote.committed }
}

pub(super) fn vote_in(vote: raft::Vote) -> Vote {
    Vote::from_leader_id(LeaderId { term: vote.term, voted_for: node(vote.candidate) }, vote.is_committed)
}

pub(super) fn id_out(id: LogId) -> raft::LogId {
    raft::LogId { term: id.leader_id.term, index: id.index }
}

pub(super) fn id_in(id: raft::LogId) -> LogId {
    LogId::new_term_index(id.term, id.index)
}
