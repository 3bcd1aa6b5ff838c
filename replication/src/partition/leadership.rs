//! What the metadata says of a partition to the broker that leads it.

use std::collections::{BTreeMap, BTreeSet};

use stonelog_protocol::{BrokerEpoch, BrokerId, DirectoryId, LeaderEpoch, PartitionEpoch, TopicPartition};

use crate::metadata::{MetadataImage, PartitionRegistration};

/// What the metadata image says of a partition this broker leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The epoch it leads in.
    pub leader_epoch: LeaderEpoch,
    /// The registration's version.
    pub partition_epoch: PartitionEpoch,
    /// The committed in-sync set, the leader included.
    pub isr: BTreeSet<BrokerId>,
    /// Who has left it and has everything that is committed all the same: eligible, and elected after its members.
    pub elr: BTreeSet<BrokerId>,
    /// `min(min.insync.replicas, replicas)`; replicas being added are not counted.
    pub min_isr: usize,
    /// Whether `flush.messages` is 1.
    pub strict: bool,
    /// The index of the image that says all this.
    pub image_index: u64,
    /// Every registered broker that holds a replica, the leader too.
    pub members: BTreeMap<BrokerId, Member>,
}

/// A broker that holds a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its present registration; what an earlier incarnation says or said counts no more (KIP-903).
    pub broker_epoch: BrokerEpoch,
    /// The directory assigned to its replica: a log in any other is not the replica (rule 12).
    pub directory: DirectoryId,
    /// Unfenced, not leaving, and the replica's directory is online: it may join the in-sync set.
    pub is_active: bool,
    /// A reassignment is adding it: it counts neither for min ISR nor for its default.
    pub is_adding: bool,
    /// It may be elected although it is not in sync.
    pub is_eligible: bool,
}

impl Leadership {
    /// Reads an image. `min_isr` is the effective one of the replicas that are not being added.
    pub fn of(
        image: &MetadataImage,
        partition: TopicPartition,
        registration: &PartitionRegistration,
        min_isr: usize,
        strict: bool,
    ) -> Leadership {
        debug_assert!(image.partition(partition).is_some(), "of this image");
        let member = |broker: &BrokerId| {
            let registered = image.broker(*broker)?;
            let directory = registration.directory_of(*broker)?;
            let member = Member {
                broker_epoch: registered.epoch,
                is_active: registered.is_active() && registered.has_directory(directory),
                is_adding: registration.adding.contains(broker),
                is_eligible: registration.elr.contains(broker),
                directory,
            };
            Some((*broker, member))
        };
        Leadership {
            leader_epoch: registration.leader_epoch,
            partition_epoch: registration.partition_epoch,
            isr: registration.isr.iter().copied().collect(),
            elr: registration.elr.iter().copied().collect(),
            min_isr,
            strict,
            image_index: image.index(),
            members: registration.replicas.iter().filter_map(member).collect(),
        }
    }

    /// Members of the committed in-sync set that count for min ISR.
    pub fn isr_size(&self) -> usize {
        let is_adding = |broker: &&BrokerId| self.members.get(broker).is_some_and(|member| member.is_adding);
        self.isr.iter().filter(|broker| !is_adding(broker)).count()
    }

    /// Whether the committed in-sync set suffices for `acks=all`.
    pub fn has_enough_replicas(&self) -> bool {
        self.isr_size() >= self.min_isr
    }
}
