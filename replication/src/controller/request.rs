//! What the controller is asked. Brokers ask as themselves; what clients ask arrives already authorized.

use std::sync::Arc;

use stonelog_protocol::own::PartitionShown;
use stonelog_protocol::{
    BrokerEpoch, BrokerId, ClusterId, DirectoryId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId,
    TopicPartition, Uuid,
};

use crate::metadata::broker::ReplicaReport;
use crate::metadata::topic::RecoveryState;
use crate::metadata::{ConfigResource, Endpoint, Verdict};
use crate::quorum::wishes::VoterWish;
use stonelog_storage::log_dir::RecordedEpochs;

/// Any request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerRequest {
    /// A started broker makes itself known.
    RegisterBroker(RegisterBrokerRequest),
    /// A registered broker is alive and says what it wants.
    Heartbeat(BrokerHeartbeat),
    /// A broker is to be forgotten.
    UnregisterBroker(UnregisterBrokerRequest),
    /// CreateTopics.
    CreateTopics(CreateTopics),
    /// DeleteTopics.
    DeleteTopics(DeleteTopics),
    /// CreatePartitions.
    CreatePartitions(CreatePartitions),
    /// IncrementalAlterConfigs.
    IncrementalAlterConfigs(IncrementalAlterConfigs),
    /// AlterConfigs.
    AlterConfigs(AlterConfigs),
    /// A block of producer ids for a broker.
    AllocateProducerIds(AllocateProducerIds),
    /// A leader's changes of in-sync sets.
    AlterPartition(AlterPartition),
    /// ElectLeaders.
    ElectLeaders(ElectLeaders),
    /// The session of a broker has ended. Asked by the controller itself.
    FenceBroker(FenceBroker),
    /// It is time to look for partitions without a leader, and for preferred leaders that do not lead. Asked by the
    /// controller itself.
    BalanceLeaders,
    /// Somebody accepts that a partition lacks records.
    AcceptLoss(AcceptLoss),
    /// AlterPartitionReassignments.
    AlterReassignments(AlterReassignments),
    /// AssignReplicasToDirs.
    AssignReplicas(AssignReplicas),
    /// A broker is up: internal topics with one replica may get three. Asked by the controller itself.
    RaiseInternalTopics,
    /// DescribeQuorum: what the active controller's member of the quorum knows of the others.
    DescribeQuorum,
    /// Nothing is asked. Whoever is answered has applied everything that was committed before it asked.
    ReadBarrier,
    /// Which brokers have not applied an image yet.
    WhoIsBehind(WhoIsBehind),
    /// AddRaftVoter and RemoveRaftVoter, step by step.
    ChangeVoters(ChangeVoters),
}

/// A change of the quorum's members, asked for again until it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeVoters {
    /// What is wanted.
    pub wish: VoterWish,
    /// It was not asked for before: what is so already is refused.
    pub is_first: bool,
}

impl ControllerRequest {
    /// How many fresh topic ids deciding this may take.
    pub fn topic_ids_needed(&self) -> usize {
        match self {
            ControllerRequest::CreateTopics(request) => request.topics.len(),
            _ => 0,
        }
    }
}

/// See [`ControllerRequest::RegisterBroker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterBrokerRequest {
    /// `node.id`.
    pub id: BrokerId,
    /// The cluster it believes to be part of.
    pub cluster_id: ClusterId,
    /// Drawn by this start of the process; the same in every try to register.
    pub incarnation: Uuid,
    /// Where its listeners are reached.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`.
    pub rack: Option<Arc<str>>,
    /// Its online directories, each with what recovery proved of it.
    pub directories: Vec<ReportedDirectory>,
    /// The replicas that differ from their directory.
    pub differing: Vec<ReplicaReport>,
    /// The registration of this broker that the sender has seen in its image, and replaces; `None` when it has seen
    /// none. A compare-and-set: a request that was under way while a later incarnation registered changes nothing.
    pub replaces: Option<BrokerEpoch>,
}

/// A log directory as its broker found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedDirectory {
    /// The directory's identifier (`meta.properties`).
    pub id: DirectoryId,
    /// What recovery proved of it, as far as the directory itself can tell.
    pub verdict: Verdict,
    /// The broker epochs recorded in it: whether it is the one the controller knows (rule 11).
    pub recorded: RecordedEpochs,
}

/// See [`ControllerRequest::Heartbeat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerHeartbeat {
    /// `node.id`.
    pub id: BrokerId,
    /// The registration it acts under.
    pub epoch: BrokerEpoch,
    /// The index of the image it has applied.
    pub metadata_index: u64,
    /// It is not ready to serve.
    pub want_fence: bool,
    /// It wants to stop.
    pub want_shutdown: bool,
    /// Its online directories, if they changed since it last said so.
    pub online_directories: Option<Vec<DirectoryId>>,
}

/// See [`ControllerRequest::WhoIsBehind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhoIsBehind {
    /// The index of the image.
    pub index: u64,
    /// The brokers asked about; those that are fenced, or not registered, are behind nothing.
    pub brokers: Vec<BrokerId>,
}

/// See [`ControllerRequest::UnregisterBroker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnregisterBrokerRequest {
    /// Which broker.
    pub id: BrokerId,
}

/// See [`ControllerRequest::FenceBroker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceBroker {
    /// Which broker.
    pub id: BrokerId,
    /// The registration whose session has ended.
    pub epoch: BrokerEpoch,
}

/// See [`ControllerRequest::AcceptLoss`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptLoss {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// The replica that shall lead with what it has.
    pub replica: BrokerId,
    /// The partition as it was shown to whoever accepts.
    pub shown: PartitionShown,
}

/// See [`ControllerRequest::CreateTopics`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopics {
    /// The topics.
    pub topics: Vec<NewTopic>,
    /// Decide and answer, and write nothing.
    pub validate_only: bool,
}

impl CreateTopics {
    /// Whether it leaves a replication factor to the controller, which may wait for brokers then.
    pub fn leaves_the_factor_open(&self) -> bool {
        self.topics.iter().any(|topic| topic.replication_factor == -1 && topic.assignments.is_empty())
    }
}

/// One topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 for the default, or with `assignments`.
    pub partitions: i32,
    /// How many replicas each; -1 for the default, or with `assignments`.
    pub replication_factor: i16,
    /// The replicas of every partition, if the client chose them.
    pub assignments: Vec<(PartitionIndex, Vec<BrokerId>)>,
    /// Settings; a key without a value is refused.
    pub configs: Vec<(String, Option<String>)>,
}

/// See [`ControllerRequest::DeleteTopics`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteTopics {
    /// The topics, answered in this order.
    pub topics: Vec<TopicReference>,
}

/// How a topic is named in a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicReference {
    /// By name.
    Name(String),
    /// By id.
    Id(TopicId),
}

/// See [`ControllerRequest::CreatePartitions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatePartitions {
    /// The topics.
    pub topics: Vec<NewPartitions>,
    /// Decide and answer, and write nothing.
    pub validate_only: bool,
}

/// Partitions to add to one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartitions {
    /// The topic.
    pub topic: String,
    /// How many partitions it shall have in the end.
    pub count: i32,
    /// The replicas of each added partition, if the client chose them.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// See [`ControllerRequest::IncrementalAlterConfigs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncrementalAlterConfigs {
    /// The resources, answered in this order.
    pub resources: Vec<(ConfigResource, Vec<ConfigEdit>)>,
    /// Decide and answer, and write nothing.
    pub validate_only: bool,
}

/// One change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEdit {
    /// Which.
    pub key: String,
    /// What to do.
    pub operation: ConfigOperation,
    /// The operand; none is needed to delete.
    pub value: Option<String>,
}

/// `AlterConfigOp.OpType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigOperation {
    /// Give it this value.
    Set,
    /// Remove the override.
    Delete,
    /// Add elements to the list.
    Append,
    /// Remove elements from the list.
    Subtract,
}

impl ConfigOperation {
    /// Reads the number used on the wire.
    pub fn from_code(code: i8) -> Option<ConfigOperation> {
        Some(match code {
            0 => ConfigOperation::Set,
            1 => ConfigOperation::Delete,
            2 => ConfigOperation::Append,
            3 => ConfigOperation::Subtract,
            _ => return None,
        })
    }
}

/// See [`ControllerRequest::AlterConfigs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterConfigs {
    /// The resources, answered in this order.
    pub resources: Vec<ReplaceConfigs>,
    /// Decide and answer, and write nothing.
    pub validate_only: bool,
}

/// All the overrides a resource shall have from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplaceConfigs {
    /// Whose.
    pub resource: ConfigResource,
    /// The settings; those not named lose their override.
    pub configs: Vec<(String, Option<String>)>,
}

/// See [`ControllerRequest::AllocateProducerIds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocateProducerIds {
    /// Who asks.
    pub broker: BrokerId,
    /// The registration it acts under.
    pub broker_epoch: BrokerEpoch,
}

/// See [`ControllerRequest::AlterPartition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPartition {
    /// The leader that asks.
    pub broker: BrokerId,
    /// The registration it acts under.
    pub broker_epoch: BrokerEpoch,
    /// The changes, answered in this order.
    pub partitions: Vec<PartitionIsr>,
}

/// One partition's wished in-sync set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionIsr {
    /// Which partition.
    pub partition: TopicPartition,
    /// The leader epoch it is led in.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch the change is based on.
    pub partition_epoch: PartitionEpoch,
    /// The wished set, the leader included.
    pub isr: Vec<InSyncReplica>,
    /// Followers, all outside the wished set, that have holes below their end: they keep no place in the ELR (rule 9).
    pub damaged: Vec<BrokerId>,
    /// Whether the leader has recovered.
    pub recovering: RecoveryState,
    /// The leader should not go on leading: its journal completes nothing, or its own log has holes. Another member of
    /// the wished set leads, if one can; then the leader leaves the set.
    pub hand_over: bool,
}

/// One member of a wished in-sync set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InSyncReplica {
    /// Which broker.
    pub broker: BrokerId,
    /// The registration it fetched under (KIP-903); `None` for a member that the leader has not heard in this epoch.
    pub epoch: Option<BrokerEpoch>,
    /// The directory its log lies in, by its stream; by the leader's image for a member it has not heard.
    pub directory: DirectoryId,
    /// Whether its log has no hole below its end and nothing in it is doubtful: what makes a replica that registered as
    /// damaged or lost a member again (rule 9).
    pub is_whole: bool,
}

/// See [`ControllerRequest::ElectLeaders`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectLeaders {
    /// Which election.
    pub election: ElectionType,
    /// The partitions by topic name, or all.
    pub partitions: Option<Vec<(String, PartitionIndex)>>,
}

/// See [`ControllerRequest::AlterReassignments`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterReassignments {
    /// The partitions, answered in this order.
    pub partitions: Vec<NewReplicas>,
    /// Whether there may be more or fewer replicas than before (KIP-860).
    pub allow_replication_factor_change: bool,
}

/// Where a partition shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReplicas {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Its replicas, the preferred leader first; `None` gives up the reassignment in progress.
    pub replicas: Option<Vec<BrokerId>>,
}

/// See [`ControllerRequest::AssignReplicas`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignReplicas {
    /// Whose replicas.
    pub broker: BrokerId,
    /// The registration it acts under.
    pub broker_epoch: BrokerEpoch,
    /// The replicas, each with the directory it shall lie in.
    pub replicas: Vec<(TopicPartition, DirectoryId)>,
}

/// `ElectionType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionType {
    /// The first replica, if it is in sync.
    Preferred,
    /// Any replica, even one that lacks records.
    Unclean,
}
