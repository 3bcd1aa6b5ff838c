//! The facts of the metadata log, shaped after KRaft's records (`metadata/src/main/resources/common/metadata`).
//!
//! A record says what *is*, decided by the controller that wrote it; applying one never decides. Epochs that follow
//! from a change are not in it: they are computed when it is applied.

use std::sync::Arc;

use stonelog_protocol::{
    BrokerEpoch, BrokerId, ClusterId, DirectoryId, LeaderEpoch, PartitionIndex, ProducerId, Timestamp, TopicId,
    TopicPartition, Uuid,
};

use super::broker::{DirectoryRegistration, Endpoint, ReplicaReport};
use super::config::ConfigResource;
use super::topic::{PartitionRegistration, RecoveryState};

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataRecord {
    /// The cluster begins. The first record of every log, and only the first.
    ClusterInit(ClusterInit),
    /// A broker registered; its epoch is the index of the entry unless `epoch` (in snapshots) says which.
    RegisterBroker(RegisterBroker),
    /// A broker was removed for good.
    UnregisterBroker(UnregisterBroker),
    /// A registered broker was fenced, unfenced, is leaving, or has other directories online.
    BrokerRegistrationChange(BrokerRegistrationChange),
    /// A topic exists.
    Topic(TopicRecord),
    /// A partition exists.
    Partition(PartitionRecord),
    /// A partition changed.
    PartitionChange(PartitionChange),
    /// A topic is gone, with its partitions and its settings.
    RemoveTopic(TopicId),
    /// A setting was made or removed.
    Config(ConfigRecord),
    /// Producer ids below `next` have been handed out.
    ProducerIds(ProducerIdsRecord),
    /// A feature is finalized at a level; 0 removes it.
    FeatureLevel(FeatureLevelRecord),
    /// Somebody accepted that a partition lacks records.
    LossAccepted(LossAccepted),
    /// Nothing.
    NoOp,
}

/// See [`MetadataRecord::ClusterInit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInit {
    /// The cluster's identifier.
    pub cluster_id: ClusterId,
    /// The version of the meaning of records, see [`super::codec::METADATA_VERSION`].
    pub metadata_version: i16,
}

/// See [`MetadataRecord::RegisterBroker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterBroker {
    /// `node.id`.
    pub id: BrokerId,
    /// Drawn at random by every start of the process.
    pub incarnation: Uuid,
    /// Only in snapshots: the epoch the registration was given. In the log it is the entry's index.
    pub epoch: Option<BrokerEpoch>,
    /// Where its listeners are reached.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`.
    pub rack: Option<Arc<str>>,
    /// Whether it is fenced; a new incarnation always is.
    pub fenced: bool,
    /// Whether it is leaving.
    pub in_controlled_shutdown: bool,
    /// Its online directories, each with what recovery proved of it.
    pub directories: Vec<DirectoryRegistration>,
    /// The replicas that differ from their directory.
    pub differing: Vec<ReplicaReport>,
    /// Only in snapshots: [`super::BrokerRegistration::unfenced_with`]. In the log it follows from what was unfenced.
    pub unfenced_with: Vec<(DirectoryId, BrokerEpoch)>,
}

/// See [`MetadataRecord::UnregisterBroker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnregisterBroker {
    /// Which broker.
    pub id: BrokerId,
    /// The registration it ends.
    pub epoch: BrokerEpoch,
}

/// See [`MetadataRecord::BrokerRegistrationChange`]. `None` leaves a field as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistrationChange {
    /// Which broker.
    pub id: BrokerId,
    /// The registration it changes.
    pub epoch: BrokerEpoch,
    /// Fenced or unfenced.
    pub fenced: Option<bool>,
    /// Leaving.
    pub in_controlled_shutdown: Option<bool>,
    /// The directories online from now on.
    pub online_directories: Option<Vec<DirectoryId>>,
}

/// See [`MetadataRecord::Topic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRecord {
    /// Fresh.
    pub id: TopicId,
    /// Unique.
    pub name: Arc<str>,
}

/// See [`MetadataRecord::Partition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRecord {
    /// Its topic.
    pub topic_id: TopicId,
    /// Its index; partitions are recorded in order, without gaps.
    pub index: PartitionIndex,
    /// Everything else; the epochs are 0 in the log and as they were in snapshots.
    pub registration: PartitionRegistration,
}

/// See [`MetadataRecord::PartitionChange`]. `None` leaves a field as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionChange {
    /// Its topic.
    pub topic_id: TopicId,
    /// Its index.
    pub index: PartitionIndex,
    /// The new in-sync set.
    pub isr: Option<Vec<BrokerId>>,
    /// The new leader (`Some(None)`: none). Carrying it raises the leader epoch, even for the same leader.
    pub leader: Option<Option<BrokerId>>,
    /// The new replicas; comes with `directories`.
    pub replicas: Option<Vec<BrokerId>>,
    /// The new directories, in the order of the replicas.
    pub directories: Option<Vec<DirectoryId>>,
    /// Replicas being added.
    pub adding: Option<Vec<BrokerId>>,
    /// Replicas being removed.
    pub removing: Option<Vec<BrokerId>>,
    /// The new eligible set.
    pub elr: Option<Vec<BrokerId>>,
    /// Who led last.
    pub last_known_elr: Option<Vec<BrokerId>>,
    /// Whether the leader still recovers.
    pub recovering: Option<RecoveryState>,
    /// Members of the eligible set whose last start found a torn tail.
    pub cut: Option<Vec<BrokerId>>,
    /// The new [`PartitionRegistration::left_strict`].
    pub left_strict: Option<Option<bool>>,
}

impl PartitionChange {
    /// A change that changes nothing but the partition epoch.
    pub fn of(topic_id: TopicId, index: PartitionIndex) -> PartitionChange {
        PartitionChange {
            topic_id,
            index,
            isr: None,
            leader: None,
            replicas: None,
            directories: None,
            adding: None,
            removing: None,
            elr: None,
            last_known_elr: None,
            recovering: None,
            cut: None,
            left_strict: None,
        }
    }
}

/// See [`MetadataRecord::LossAccepted`]. The election that follows is a change of its own, in the same entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossAccepted {
    /// Which partition.
    pub partition: TopicPartition,
    /// The replica that leads from then on with what it has.
    pub replica: BrokerId,
    /// The replicas that held more, or may have.
    pub instead_of: Vec<BrokerId>,
    /// When, by the controller's clock.
    pub at: Timestamp,
    /// The leader epoch that begins with it. What was known to be committed in an earlier one may be what is lost.
    pub leader_epoch: LeaderEpoch,
}

/// See [`MetadataRecord::Config`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRecord {
    /// Whose setting.
    pub resource: ConfigResource,
    /// Which.
    pub key: String,
    /// Its value, or `None` to remove the override.
    pub value: Option<String>,
}

/// See [`MetadataRecord::ProducerIds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdsRecord {
    /// Who took the block.
    pub broker: BrokerId,
    /// The registration that took it.
    pub broker_epoch: BrokerEpoch,
    /// The first id of the next block.
    pub next: ProducerId,
}

/// See [`MetadataRecord::FeatureLevel`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureLevelRecord {
    /// The feature, such as `metadata.version`.
    pub name: String,
    /// Its finalized level.
    pub level: i16,
}
