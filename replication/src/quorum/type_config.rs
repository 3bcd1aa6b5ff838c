//! The types openraft is used with.
//!
//! One leader per term (`leader_id_std`), so that a term is a controller epoch. The serde implementations exist because
//! openraft's bounds ask for them; nothing is written or sent through them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::metadata::RecordBatch;

openraft::declare_raft_types!(
    /// Stonelog's metadata quorum.
    pub TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Voter,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

/// Who leads a term.
type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
/// The leader that an entry is of: its term.
pub type CommittedLeaderId = <LeaderId as openraft::vote::RaftLeaderId>::Committed;
/// A log entry's identity.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// A vote.
pub type Vote = openraft::Vote<LeaderId>;
/// A log entry.
pub type Entry = openraft::Entry<CommittedLeaderId, openraft::EntryPayload<Proposal, u64, Voter>>;
/// Who votes.
pub type Membership = openraft::Membership<u64, Voter>;
/// Who votes, and since which entry.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, Voter>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, Voter>;
/// A snapshot as openraft passes it around.
pub type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, Voter, bytes::Bytes>;

/// The facts of one decision, on their way through the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal(pub Arc<RecordBatch>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records on {}", self.0.records.len(), self.0.base_index)
    }
}

impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.encode().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let batch = RecordBatch::decode(&bytes).map_err(serde::de::Error::custom)?;
        Ok(Proposal(Arc::new(batch)))
    }
}

/// What applying an entry came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Its facts are in the image.
    Applied,
    /// It was decided on another image, or by another leader; nothing changed.
    Stale,
    /// It carried no facts.
    Nothing,
}

/// A voter as the membership records it. The directory id tells a voter from the same node with another disk (KIP-853).
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Voter {
    /// The identifier of the directory that holds its log.
    pub directory: [u8; 16],
    /// Where it is reached; empty for a lone voter.
    pub host: String,
    /// Where it is reached; 0 for a lone voter.
    pub port: u16,
}
