//! What a partition tells those who wait on it: a value, published once per drained batch of events.
//!
//! Acknowledgements and long polls compare a [`Progress`] with what they wait for; nothing calls back upward.

use stonelog_protocol::{LeaderEpoch, Offset, TopicPartition};
use stonelog_storage::LogGeneration;

/// One partition's state as seen by whoever waits on it.
///
/// `log_start_offset <= last_stable_offset <= high_watermark <= log_end_offset` and
/// `durable <= written <= log_end_offset`; on a strict topic also `high_watermark <= durable` (on the leader).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which log this is.
    pub partition: TopicPartition,
    /// Which history of it; a receipt of another generation is stale.
    pub generation: LogGeneration,
    /// What the replica is doing.
    pub role: Role,
    /// The newest leader epoch this replica knows.
    pub leader_epoch: LeaderEpoch,
    /// First offset that may be read; rises by retention and DeleteRecords.
    pub log_start_offset: Offset,
    /// End of what the journal has written (survives the process).
    pub written: Offset,
    /// End of what has been fsynced here (survives the power).
    pub durable: Offset,
    /// End of the log, including what is not yet written.
    pub log_end_offset: Offset,
    /// End of what is on every replica that counts; consumers read below it. Never goes back.
    pub high_watermark: Offset,
    /// End of what has no open transaction; equals the high watermark until transactions exist.
    pub last_stable_offset: Offset,
    /// Members of the committed in-sync set.
    pub isr_size: usize,
    /// The effective min ISR: `min(min.insync.replicas, replicas)`.
    pub min_isr: usize,
    /// Whether the topic is strict (`flush.messages=1`).
    pub strict: bool,
    /// Whether consumers may read here although it does not lead (KIP-392).
    pub serves_as_follower: bool,
}

impl Progress {
    /// Whether an offset lies beyond what this replica can know to be out of range: its leader may have it.
    pub fn is_beyond(&self, offset: Offset) -> bool {
        self.role == Role::Follower && offset >= self.log_start_offset
    }
}

/// What a replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It accepts appends and serves reads.
    Leader,
    /// It copies a leader, or waits for one.
    Follower,
    /// Its log directory has failed; nothing is served and nothing becomes durable any more.
    Offline,
    /// It has been removed from this broker.
    Removed,
}
