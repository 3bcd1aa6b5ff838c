//! Whom a replica follows, as the metadata says it: what every message of its stream is stamped with (rules 1 and 5).

use stonelog_protocol::peer::stream::{Stamps, StreamGeneration};
use stonelog_protocol::{BrokerEpoch, BrokerId, DirectoryId, LeaderEpoch, TopicPartition};
use stonelog_storage::LogGeneration;

/// Whom a replica follows, by the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// Which partition.
    pub partition: TopicPartition,
    /// The epoch it is led in.
    pub leader_epoch: LeaderEpoch,
    /// Who leads.
    pub leader: BrokerId,
    /// The leader's registration.
    pub leader_broker_epoch: BrokerEpoch,
    /// This broker.
    pub me: BrokerId,
    /// This broker's registration.
    pub my_broker_epoch: BrokerEpoch,
    /// The directory its log lies in.
    pub my_directory: DirectoryId,
}

impl Following {
    /// The stamps of a stream into this log.
    pub fn stamps(&self, generation: LogGeneration) -> Stamps {
        Stamps {
            partition: self.partition,
            leader_epoch: self.leader_epoch,
            leader: self.leader,
            leader_broker_epoch: self.leader_broker_epoch,
            follower: self.me,
            follower_broker_epoch: self.my_broker_epoch,
            follower_directory: self.my_directory,
            generation: StreamGeneration { recovery_epoch: generation.recovery_epoch, counter: generation.counter },
        }
    }
}
