//! What names one replica's log in the journal and in jobs.

use std::fmt;

use stonelog_protocol::TopicPartition;

/// Which history of a replica's log an entry or a job belongs to.
///
/// `recovery_epoch` is raised by every start of the directory, `counter` by every truncation, reset and re-creation
/// since. Whatever carries an older generation than the log's own is stale and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogGeneration {
    /// The start of the log directory, from 1.
    pub recovery_epoch: u32,
    /// Truncations, resets and creations since that start.
    pub counter: u32,
}

impl fmt::Display for LogGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.recovery_epoch, self.counter)
    }
}

/// A replica's log in one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaKey {
    /// Topic incarnation and partition.
    pub partition: TopicPartition,
    /// The generation of its log.
    pub generation: LogGeneration,
}
