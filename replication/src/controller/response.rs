//! What the controller answers, after the facts are committed and applied.

use stonelog_protocol::{
    BrokerEpoch, BrokerId, DirectoryId, LeaderEpoch, PartitionEpoch, PartitionIndex, ProducerId, TopicId,
    TopicPartition,
};

use super::Reject;
use crate::metadata::ConfigResource;
use crate::metadata::ConfigValues;
use crate::metadata::record::LossAccepted;
use crate::metadata::topic::RecoveryState;
use crate::quorum::standing::QuorumFacts;
use crate::quorum::wishes::VoterProgress;

/// Any answer; the variant is that of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerResponse {
    /// The broker is registered.
    RegisterBroker(RegisteredBroker),
    /// The heartbeat was heard.
    Heartbeat(HeartbeatState),
    /// The broker is forgotten.
    UnregisterBroker,
    /// Per topic, in the order asked.
    CreateTopics(Vec<TopicResult>),
    /// Per topic, in the order asked.
    DeleteTopics(Vec<DeletedTopic>),
    /// Per topic, in the order asked.
    CreatePartitions(Vec<PartitionsResult>),
    /// Per resource, in the order asked.
    IncrementalAlterConfigs(Vec<ConfigResult>),
    /// Per resource, in the order asked.
    AlterConfigs(Vec<ConfigResult>),
    /// The block.
    AllocateProducerIds(ProducerIdBlock),
    /// Per partition, in the order asked.
    AlterPartition(Vec<IsrResult>),
    /// Per partition, in the order asked; elections that were not needed are left out when all were asked for.
    ElectLeaders(Vec<ElectionResult>),
    /// Whether the broker is fenced; if not, some of its in-sync sets are left: ask again.
    FenceBroker {
        /// See above.
        is_fenced: bool,
    },
    /// What was done.
    BalanceLeaders(Balanced),
    /// What was accepted.
    AcceptLoss(LossAccepted),
    /// Per partition, in the order asked.
    AlterReassignments(Vec<ReassignmentResult>),
    /// Per replica, in the order asked.
    AssignReplicas(Vec<AssignedReplica>),
    /// The topics that are getting more replicas.
    RaiseInternalTopics(Vec<String>),
    /// The quorum.
    DescribeQuorum(QuorumFacts),
    /// The image is as new as the controller's was.
    ReadBarrier,
    /// Those that are not known to have applied the image, in the order asked.
    WhoIsBehind(Vec<BrokerId>),
    /// How far the change has come.
    ChangeVoters(VoterProgress),
}

impl ControllerResponse {
    /// Whether it names the index of its entry: until that is written, what it says, and the image it was decided on
    /// afterwards, hold a guess.
    pub(crate) fn names_its_entry(&self) -> bool {
        matches!(self, ControllerResponse::RegisterBroker(registered) if registered.is_new)
    }

    /// The answer once its entry has an index: a fresh registration's epoch is that index.
    pub(crate) fn settled_at(self, index: u64) -> ControllerResponse {
        match self {
            ControllerResponse::RegisterBroker(registered) if registered.is_new => {
                let epoch = BrokerEpoch(i64::try_from(index).expect("a log has fewer than 2^63 entries"));
                ControllerResponse::RegisterBroker(RegisteredBroker { epoch, ..registered })
            }
            other => other,
        }
    }
}

/// See [`ControllerResponse::RegisterBroker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredBroker {
    /// What the broker acts under from now on.
    pub epoch: BrokerEpoch,
    /// Whether this incarnation was not registered before.
    pub is_new: bool,
    /// Relaxed partitions it goes on leading although it may lack records.
    pub may_lack_records: Vec<TopicPartition>,
    /// Strict partitions that are offline because their only replica may lack records.
    pub offline: Vec<TopicPartition>,
    /// The directories it registered with, in that order.
    pub directories: Vec<RegisteredDirectory>,
}

/// What the controller knows of a directory that registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisteredDirectory {
    /// Which.
    pub id: DirectoryId,
    /// The epoch of the last incarnation that was unfenced with it online; `None` if none was.
    pub unfenced_epoch: Option<BrokerEpoch>,
    /// The directory was not there for that incarnation: an old copy has been put back, and every replica in it may lack
    /// records.
    pub is_old_copy: bool,
}

/// See [`ControllerResponse::BalanceLeaders`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balanced {
    /// Partitions that have a leader again.
    pub elected: usize,
    /// Partitions that went back to their preferred leader.
    pub moved: usize,
    /// Whether some were left for the next time, which should be soon.
    pub has_more: bool,
}

/// See [`ControllerResponse::Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatState {
    /// Whether it has applied its own registration.
    pub is_caught_up: bool,
    /// Whether it is fenced, after this.
    pub is_fenced: bool,
    /// Whether it may stop now.
    pub should_shut_down: bool,
}

/// One topic of a CreateTopics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicResult {
    /// As it was asked.
    pub name: String,
    /// What was made, or why nothing was.
    pub result: Result<CreatedTopic, Reject>,
}

/// A topic that was (or, validating only, would be) made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id.
    pub id: TopicId,
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas of each.
    pub replication_factor: i16,
    /// Its overrides.
    pub configs: ConfigValues,
    /// What the owner should know about its settings.
    pub warnings: Vec<String>,
}

/// One topic of a DeleteTopics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name, where known.
    pub name: Option<String>,
    /// Its id, where known.
    pub id: Option<TopicId>,
    /// Whether it is gone.
    pub result: Result<(), Reject>,
}

/// One topic of a CreatePartitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionsResult {
    /// The topic.
    pub topic: String,
    /// Whether the partitions are there.
    pub result: Result<(), Reject>,
}

/// One resource of an IncrementalAlterConfigs or AlterConfigs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigResult {
    /// The resource.
    pub resource: ConfigResource,
    /// What the owner should know about the new settings, or why they were refused.
    pub result: Result<Vec<String>, Reject>,
}

/// Producer ids that nobody else has or will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first.
    pub first: ProducerId,
    /// How many.
    pub len: i32,
}

/// One partition of an AlterPartition, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrResult {
    /// Which.
    pub partition: TopicPartition,
    /// Its registration, or why it did not change.
    pub result: Result<PartitionState, Reject>,
}

/// What a leader must know of its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// Who leads.
    pub leader: Option<BrokerId>,
    /// In which epoch.
    pub leader_epoch: LeaderEpoch,
    /// The in-sync set.
    pub isr: Vec<BrokerId>,
    /// What the next change is based on.
    pub partition_epoch: PartitionEpoch,
    /// Whether the leader still recovers.
    pub recovering: RecoveryState,
}

/// One partition of an ElectLeaders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionResult {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Whether the wished leader leads.
    pub result: Result<(), Reject>,
}

/// One partition of an AlterPartitionReassignments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReassignmentResult {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// What the owner should know about the settings with that many replicas, or why nothing changes.
    pub result: Result<Vec<String>, Reject>,
}

/// One replica of an AssignReplicasToDirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedReplica {
    /// Which.
    pub partition: TopicPartition,
    /// Where it was to lie.
    pub directory: DirectoryId,
    /// Whether it does.
    pub result: Result<(), Reject>,
}
