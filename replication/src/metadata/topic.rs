//! A topic and its partitions as the cluster knows them.

use std::sync::Arc;

use stonelog_protocol::{BrokerId, DirectoryId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId};

/// The topics whose content is the broker's own.
pub const INTERNAL_TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Whether a topic of this name is internal (Kafka's `Topic.isInternal`).
pub fn is_internal(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

/// Whether an uncleanly elected leader has yet taken stock (KIP-704).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RecoveryState {
    /// Nothing to recover.
    #[default]
    Recovered,
    /// Elected uncleanly; its ISR holds it alone until it says otherwise.
    Recovering,
}

/// One partition as the controller registered it.
///
/// `replicas.len() == directories.len()`; `isr` and `elr` are disjoint subsets of `replicas`; `leader` is in `isr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRegistration {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// The directory of each replica, in the order of `replicas`.
    pub directories: Vec<DirectoryId>,
    /// The replicas in sync.
    pub isr: Vec<BrokerId>,
    /// Replicas out of the ISR that still hold everything acknowledged (KIP-966).
    pub elr: Vec<BrokerId>,
    /// Who led when the partition became leaderless; at most one.
    pub last_known_elr: Vec<BrokerId>,
    /// Replicas a reassignment is adding.
    pub adding: Vec<BrokerId>,
    /// Replicas a reassignment is removing.
    pub removing: Vec<BrokerId>,
    /// Who leads.
    pub leader: Option<BrokerId>,
    /// Raised whenever leadership is decided anew, also for the same leader, and by its new incarnation (rule 4).
    pub leader_epoch: LeaderEpoch,
    /// Raised by every change; guards ISR changes.
    pub partition_epoch: PartitionEpoch,
    /// Whether the leader was elected uncleanly and has not said it recovered.
    pub recovering: RecoveryState,
    /// Whether it was strict when it lost its leader, while nobody leads it: then what was acknowledged is promised, whatever
    /// its owner has said since. `None` while it is led, and from releases that did not record it.
    pub left_strict: Option<bool>,
    /// Members of the ELR whose last start found a torn tail (rule 11); within `elr`. Who is in sync again is whole.
    pub cut: Vec<BrokerId>,
}

impl PartitionRegistration {
    /// The directory a broker's replica lives in.
    pub fn directory_of(&self, broker: BrokerId) -> Option<DirectoryId> {
        let place = self.replicas.iter().position(|replica| *replica == broker)?;
        self.directories.get(place).copied()
    }

    /// Whether a reassignment is in progress.
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// The replicas when the reassignment in progress is complete, in their order.
    pub fn target_replicas(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.replicas.iter().copied().filter(|replica| !self.removing.contains(replica))
    }

    /// The replicas as they were before the reassignment in progress, in their order.
    pub fn settled_replicas(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.replicas.iter().copied().filter(|replica| !self.adding.contains(replica))
    }

    /// How many replicas count for the min ISR and its default: not those being added.
    pub fn settled_count(&self) -> usize {
        self.settled_replicas().count()
    }

    /// The replica elected when nothing speaks against it.
    pub fn preferred_leader(&self) -> Option<BrokerId> {
        self.replicas.first().copied()
    }
}

/// One incarnation of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicImage {
    /// Never reused.
    pub id: TopicId,
    /// Unique among the topics of one image.
    pub name: Arc<str>,
    /// Whether it holds the broker's own state.
    pub internal: bool,
    /// By partition index, without gaps.
    pub partitions: Vec<Arc<PartitionRegistration>>,
}

impl TopicImage {
    /// One partition.
    pub fn partition(&self, index: PartitionIndex) -> Option<&Arc<PartitionRegistration>> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }
}
