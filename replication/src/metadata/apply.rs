//! The only writer of images: what a record makes of one.
//!
//! Deterministic, without decisions: every node applies the same entries and ends with the same image. Epochs are
//! computed here. A record that does not fit the image is our own bug or a damaged log; the node must stop, for its
//! image would differ from its peers'.
//!
//! Invariants kept: leader in ISR or none; ISR within the replicas; ISR and ELR disjoint; directories as many as
//! replicas; leader epoch never grows without the partition epoch; producer ids and broker epochs only grow.

use std::collections::HashSet;
use std::sync::Arc;

use stonelog_protocol::{
    BrokerEpoch, BrokerId, DirectoryId, LeaderEpoch, PartitionEpoch, PartitionIndex, ProducerId, TopicId,
    TopicPartition,
};

use super::batch::RecordBatch;
use super::broker::{BrokerRegistration, DirectoryRegistration, Verdict};
use super::codec::METADATA_VERSION;
use super::config::ConfigResource;
use super::image::MetadataImage;
use super::record::{
    BrokerRegistrationChange, ClusterInit, LossAccepted, MetadataRecord, PartitionChange, PartitionRecord,
    ProducerIdsRecord, RegisterBroker, TopicRecord, UnregisterBroker,
};
use super::topic::{PartitionRegistration, TopicImage, is_internal};

/// Why a record does not fit the image it is applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A second beginning.
    #[error("the cluster began already")]
    ClusterBegan,
    /// Written by a later version.
    #[error("metadata version {0} is not known to this build")]
    UnknownMetadataVersion(i16),
    /// A topic's name or id is taken.
    #[error("topic {0} exists already")]
    TopicExists(Arc<str>),
    /// No such topic.
    #[error("no topic {0}")]
    UnknownTopic(TopicId),
    /// No such partition.
    #[error("no partition {1} in topic {0}")]
    UnknownPartition(TopicId, PartitionIndex),
    /// A partition out of order, or recorded twice.
    #[error("partition {1} of topic {0} is not the next one")]
    PartitionOutOfOrder(TopicId, PartitionIndex),
    /// A partition that breaks an invariant.
    #[error("partition {1} of topic {0}: {2}")]
    PartitionInvariant(TopicId, PartitionIndex, &'static str),
    /// No such broker, or of another epoch.
    #[error("broker {0} is not registered with epoch {1}")]
    UnknownBroker(BrokerId, BrokerEpoch),
    /// An epoch that did not grow.
    #[error("the epoch of broker {0} did not grow")]
    BrokerEpochNotGrowing(BrokerId),
    /// A block of producer ids that was handed out before.
    #[error("the next producer id went from {0} to {1}")]
    ProducerIdsNotGrowing(ProducerId, ProducerId),
}

impl MetadataImage {
    /// Whether a batch was decided on this very image. If not, applying it is a no-op by agreement of all nodes.
    pub fn is_base_of(&self, batch: &RecordBatch) -> bool {
        batch.base_index == self.index
    }

    /// The image after a batch at `index` of the log. The caller has asked [`MetadataImage::is_base_of`].
    pub fn apply(&self, index: u64, batch: &RecordBatch) -> Result<MetadataImage, ApplyError> {
        assert!(self.is_base_of(batch), "a batch decided on {} is applied to {}", batch.base_index, self.index);
        assert!(index > self.index, "index {index} is not after {}", self.index);
        let mut next = self.clone();
        for record in &batch.records {
            next.apply_record(index, record)?;
        }
        next.index = index;
        Ok(next)
    }

    /// Applies one record of the entry at `index`. The image's own index does not move: see [`MetadataImage::apply`].
    pub fn apply_record(&mut self, index: u64, record: &MetadataRecord) -> Result<(), ApplyError> {
        match record {
            MetadataRecord::ClusterInit(init) => self.apply_cluster_init(init),
            MetadataRecord::RegisterBroker(broker) => self.apply_register_broker(index, broker),
            MetadataRecord::UnregisterBroker(broker) => self.apply_unregister_broker(*broker),
            MetadataRecord::BrokerRegistrationChange(change) => self.apply_broker_change(change),
            MetadataRecord::Topic(topic) => self.apply_topic(topic),
            MetadataRecord::Partition(partition) => self.apply_partition(partition),
            MetadataRecord::PartitionChange(change) => self.apply_partition_change(change),
            MetadataRecord::RemoveTopic(id) => self.apply_remove_topic(*id),
            MetadataRecord::Config(config) => {
                Arc::make_mut(&mut self.configs).set(&config.resource, &config.key, config.value.as_deref());
                Ok(())
            }
            MetadataRecord::ProducerIds(ids) => self.apply_producer_ids(*ids),
            MetadataRecord::FeatureLevel(feature) => {
                let features = Arc::make_mut(&mut self.features);
                if feature.level == 0 {
                    features.remove(&feature.name);
                } else {
                    features.insert(feature.name.clone(), feature.level);
                }
                Ok(())
            }
            MetadataRecord::LossAccepted(loss) => self.apply_loss_accepted(loss),
            MetadataRecord::NoOp => Ok(()),
        }
    }

    fn apply_cluster_init(&mut self, init: &ClusterInit) -> Result<(), ApplyError> {
        if self.cluster_id.is_some() {
            return Err(ApplyError::ClusterBegan);
        }
        if init.metadata_version > METADATA_VERSION {
            return Err(ApplyError::UnknownMetadataVersion(init.metadata_version));
        }
        self.cluster_id = Some(init.cluster_id.clone());
        Ok(())
    }

    /// Registers a broker. A new incarnation is a new leader, also where its process led before: rule 4.
    fn apply_register_broker(&mut self, index: u64, record: &RegisterBroker) -> Result<(), ApplyError> {
        let old = self.brokers.get(&record.id);
        let is_new_incarnation = old.is_none_or(|old| old.incarnation != record.incarnation);
        let epoch = match (record.epoch, old) {
            (Some(epoch), _) => epoch,
            (None, Some(old)) if !is_new_incarnation => old.epoch,
            (None, _) => BrokerEpoch(i64::try_from(index).expect("a log has fewer than 2^63 entries")),
        };
        if is_new_incarnation && old.is_some_and(|old| old.epoch >= epoch) {
            return Err(ApplyError::BrokerEpochNotGrowing(record.id));
        }
        let from_snapshot = record.epoch.is_some();
        let mut registration = BrokerRegistration {
            id: record.id,
            incarnation: record.incarnation,
            epoch,
            endpoints: record.endpoints.clone(),
            rack: record.rack.clone(),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            directories: record.directories.clone(),
            differing: {
                let mut differing = record.differing.clone();
                differing.sort_by_key(|report| report.partition);
                differing.into()
            },
            unfenced_with: match old {
                Some(old) if !from_snapshot => self.still_unfenced_with(old, &record.directories),
                _ => record.unfenced_with.as_slice().into(),
            },
        };
        if !registration.fenced && !from_snapshot {
            registration.note_unfenced();
        }
        Arc::make_mut(&mut self.brokers).insert(record.id, Arc::new(registration));
        if is_new_incarnation && !from_snapshot && !off!(LeaderLifetime) {
            self.bump_epochs_led_by(record.id);
        }
        Ok(())
    }

    /// With what its directories were unfenced: those online now, and those that still have a replica.
    fn still_unfenced_with(
        &self,
        old: &BrokerRegistration,
        online: &[DirectoryRegistration],
    ) -> Arc<[(DirectoryId, BrokerEpoch)]> {
        let is_online = |id: &DirectoryId| online.iter().any(|directory| directory.id == *id);
        if old.unfenced_with.iter().all(|(id, _)| is_online(id)) {
            return old.unfenced_with.clone();
        }
        let in_use: HashSet<DirectoryId> =
            self.partitions().filter_map(|(_, _, partition)| partition.directory_of(old.id)).collect();
        old.unfenced_with.iter().filter(|(id, _)| is_online(id) || in_use.contains(id)).copied().collect()
    }

    fn bump_epochs_led_by(&mut self, broker: BrokerId) {
        let led: Vec<(Arc<str>, usize)> = self
            .partitions_with_member(broker)
            .filter(|(_, _, partition)| partition.leader == Some(broker))
            .map(|(topic, index, _)| (topic.name.clone(), place_of(index).expect("a partition's index is a place")))
            .collect();
        if led.is_empty() {
            return;
        }
        let topics = Arc::make_mut(&mut self.topics);
        for (topic, place) in led {
            let topic = Arc::make_mut(topics.get_mut(&topic).expect("found a moment ago"));
            let partition = Arc::make_mut(&mut topic.partitions[place]);
            partition.leader_epoch = next_leader_epoch(partition.leader_epoch);
            partition.partition_epoch = next_partition_epoch(partition.partition_epoch);
        }
    }

    fn apply_unregister_broker(&mut self, record: UnregisterBroker) -> Result<(), ApplyError> {
        self.registered(record.id, record.epoch)?;
        Arc::make_mut(&mut self.brokers).remove(&record.id);
        Ok(())
    }

    fn apply_broker_change(&mut self, change: &BrokerRegistrationChange) -> Result<(), ApplyError> {
        let mut registration = BrokerRegistration::clone(self.registered(change.id, change.epoch)?);
        if let Some(fenced) = change.fenced {
            registration.fenced = fenced;
        }
        if let Some(leaving) = change.in_controlled_shutdown {
            registration.in_controlled_shutdown = leaving;
        }
        if let Some(online) = &change.online_directories {
            // A directory that comes back without a registration has proved nothing.
            let verdict = |id| {
                registration
                    .directories
                    .iter()
                    .find(|known| known.id == id)
                    .map_or(Verdict::Lost, |known| known.verdict)
            };
            registration.directories =
                online.iter().map(|id| DirectoryRegistration { id: *id, verdict: verdict(*id) }).collect();
        }
        if !registration.fenced {
            registration.note_unfenced();
        }
        Arc::make_mut(&mut self.brokers).insert(change.id, Arc::new(registration));
        Ok(())
    }

    fn registered(&self, id: BrokerId, epoch: BrokerEpoch) -> Result<&Arc<BrokerRegistration>, ApplyError> {
        self.brokers.get(&id).filter(|known| known.epoch == epoch).ok_or(ApplyError::UnknownBroker(id, epoch))
    }

    fn apply_topic(&mut self, topic: &TopicRecord) -> Result<(), ApplyError> {
        if self.topics.contains_key(&topic.name) || self.names.contains_key(&topic.id) {
            return Err(ApplyError::TopicExists(topic.name.clone()));
        }
        let image = TopicImage {
            id: topic.id,
            name: topic.name.clone(),
            internal: is_internal(&topic.name),
            partitions: Vec::new(),
        };
        Arc::make_mut(&mut self.names).insert(topic.id, topic.name.clone());
        Arc::make_mut(&mut self.topics).insert(topic.name.clone(), Arc::new(image));
        Ok(())
    }

    fn apply_partition(&mut self, record: &PartitionRecord) -> Result<(), ApplyError> {
        check(record.topic_id, record.index, &record.registration)?;
        let topic = self.topic_mut(record.topic_id)?;
        if usize::try_from(record.index.0) != Ok(topic.partitions.len()) {
            return Err(ApplyError::PartitionOutOfOrder(record.topic_id, record.index));
        }
        topic.partitions.push(Arc::new(record.registration.clone()));
        let key = TopicPartition { topic_id: record.topic_id, partition: record.index };
        Arc::make_mut(&mut self.indexes).on_partition(key, None, Some(&record.registration));
        Ok(())
    }

    fn apply_partition_change(&mut self, change: &PartitionChange) -> Result<(), ApplyError> {
        let (topic_id, index) = (change.topic_id, change.index);
        let unknown = ApplyError::UnknownPartition(topic_id, index);
        let Some(place) = place_of(index) else { return Err(unknown) };
        let Some(slot) = self.topic_mut(topic_id)?.partitions.get_mut(place) else { return Err(unknown) };
        let next = changed(slot, change);
        check(topic_id, index, &next)?;
        let next = Arc::new(next);
        let old = std::mem::replace(slot, Arc::clone(&next));
        let key = TopicPartition { topic_id, partition: index };
        Arc::make_mut(&mut self.indexes).on_partition(key, Some(&old), Some(&next));
        Ok(())
    }

    fn apply_remove_topic(&mut self, id: TopicId) -> Result<(), ApplyError> {
        let name = Arc::make_mut(&mut self.names).remove(&id).ok_or(ApplyError::UnknownTopic(id))?;
        let topic = Arc::make_mut(&mut self.topics).remove(&name).expect("names and topics hold the same topics");
        let indexes = Arc::make_mut(&mut self.indexes);
        for (index, partition) in (0..).map(PartitionIndex).zip(&topic.partitions) {
            indexes.on_partition(TopicPartition { topic_id: id, partition: index }, Some(partition), None);
        }
        if self.losses_accepted.keys().any(|partition| partition.topic_id == id) {
            Arc::make_mut(&mut self.losses_accepted).retain(|partition, _| partition.topic_id != id);
        }
        if self.config(&ConfigResource::Topic(name.clone())).is_some() {
            Arc::make_mut(&mut self.configs).topics.remove(&name);
        }
        Ok(())
    }

    fn apply_loss_accepted(&mut self, loss: &LossAccepted) -> Result<(), ApplyError> {
        if self.partition(loss.partition).is_none() {
            return Err(ApplyError::UnknownPartition(loss.partition.topic_id, loss.partition.partition));
        }
        Arc::make_mut(&mut self.losses_accepted).insert(loss.partition, loss.clone());
        Ok(())
    }

    fn apply_producer_ids(&mut self, ids: ProducerIdsRecord) -> Result<(), ApplyError> {
        if ids.next <= self.next_producer_id {
            return Err(ApplyError::ProducerIdsNotGrowing(self.next_producer_id, ids.next));
        }
        self.next_producer_id = ids.next;
        Ok(())
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut TopicImage, ApplyError> {
        let name = self.names.get(&id).ok_or(ApplyError::UnknownTopic(id))?;
        let topic = Arc::make_mut(&mut self.topics).get_mut(name).expect("names and topics hold the same topics");
        Ok(Arc::make_mut(topic))
    }
}

/// A registration after a change; its epochs follow from what the change carries.
pub(crate) fn changed(old: &PartitionRegistration, change: &PartitionChange) -> PartitionRegistration {
    let or = |new: &Option<Vec<BrokerId>>, old: &Vec<BrokerId>| new.as_ref().unwrap_or(old).clone();
    PartitionRegistration {
        replicas: or(&change.replicas, &old.replicas),
        directories: change.directories.as_ref().unwrap_or(&old.directories).clone(),
        isr: or(&change.isr, &old.isr),
        elr: or(&change.elr, &old.elr),
        last_known_elr: or(&change.last_known_elr, &old.last_known_elr),
        adding: or(&change.adding, &old.adding),
        removing: or(&change.removing, &old.removing),
        leader: change.leader.unwrap_or(old.leader),
        leader_epoch: match change.leader {
            Some(_) => next_leader_epoch(old.leader_epoch),
            None => old.leader_epoch,
        },
        partition_epoch: next_partition_epoch(old.partition_epoch),
        recovering: change.recovering.unwrap_or(old.recovering),
        cut: or(&change.cut, &old.cut),
        left_strict: change.left_strict.unwrap_or(old.left_strict),
    }
}

fn place_of(index: PartitionIndex) -> Option<usize> {
    usize::try_from(index.0).ok()
}

/// The leader epoch that begins when a partition gets a leader.
pub(crate) fn next_leader_epoch(epoch: LeaderEpoch) -> LeaderEpoch {
    LeaderEpoch(epoch.0.checked_add(1).expect("leader epochs do not run out"))
}

fn next_partition_epoch(epoch: PartitionEpoch) -> PartitionEpoch {
    PartitionEpoch(epoch.0.checked_add(1).expect("partition epochs do not run out"))
}

fn check(topic: TopicId, index: PartitionIndex, partition: &PartitionRegistration) -> Result<(), ApplyError> {
    let subset = |some: &[BrokerId]| some.iter().all(|broker| partition.replicas.contains(broker));
    let broken = if partition.replicas.is_empty() {
        "no replicas"
    } else if has_duplicates(&partition.replicas) {
        "a replica twice"
    } else if partition.directories.len() != partition.replicas.len() {
        "not one directory per replica"
    } else if !subset(&partition.isr) || has_duplicates(&partition.isr) {
        "an in-sync set outside the replicas"
    } else if !subset(&partition.elr) || partition.elr.iter().any(|broker| partition.isr.contains(broker)) {
        "an eligible set outside the replicas or inside the in-sync set"
    } else if !partition.cut.iter().all(|broker| partition.elr.contains(broker)) {
        "a cut member outside the eligible set"
    } else if !subset(&partition.adding) || !subset(&partition.removing) {
        "a reassignment of others than its replicas"
    } else if partition.leader.is_some_and(|leader| !partition.isr.contains(&leader)) {
        "a leader outside the in-sync set"
    } else {
        return Ok(());
    };
    Err(ApplyError::PartitionInvariant(topic, index, broken))
}

fn has_duplicates(brokers: &[BrokerId]) -> bool {
    brokers.iter().enumerate().any(|(place, broker)| brokers[..place].contains(broker))
}

#[cfg(test)]
mod tests;
