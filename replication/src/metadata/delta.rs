//! What differs between two images.
//!
//! Computed by comparing them, so it is the same whether the later one came from one entry, from many, or from a
//! snapshot. A topic that was deleted and made again under its name is a deletion and a creation, for its id differs.

use std::sync::Arc;

use stonelog_protocol::{BrokerId, PartitionIndex};

use super::config::ConfigResource;
use super::image::MetadataImage;
use super::topic::TopicImage;

/// A topic that both images have, and that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDelta {
    /// The topic as it is now.
    pub topic: Arc<TopicImage>,
    /// The topic as it was.
    pub before: Arc<TopicImage>,
    /// Partitions it did not have.
    pub partitions_created: Vec<PartitionIndex>,
    /// Partitions whose registration changed.
    pub partitions_changed: Vec<PartitionIndex>,
}

/// The difference between two images. Apply `topics_deleted` before `topics_created`: names may repeat.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MetadataDelta {
    /// The index of the earlier image.
    pub from_index: u64,
    /// The index of the later image.
    pub to_index: u64,
    /// Topics that are gone, as they were; by name.
    pub topics_deleted: Vec<Arc<TopicImage>>,
    /// Topics that are new; by name.
    pub topics_created: Vec<Arc<TopicImage>>,
    /// Topics with new or changed partitions; by name.
    pub topics_changed: Vec<TopicDelta>,
    /// Resources whose overrides differ, those of created and deleted topics included.
    pub configs_changed: Vec<ConfigResource>,
    /// Brokers that registered or changed.
    pub brokers_changed: Vec<BrokerId>,
    /// Brokers that are no longer registered.
    pub brokers_removed: Vec<BrokerId>,
    /// Whether the finalized features differ.
    pub features_changed: bool,
    /// Whether the next producer id differs.
    pub producer_ids_changed: bool,
    /// Whether the active controller differs.
    pub controller_changed: bool,
}

impl MetadataDelta {
    /// What leads from `before` to `after`.
    pub fn between(before: &MetadataImage, after: &MetadataImage) -> MetadataDelta {
        let mut delta = MetadataDelta {
            from_index: before.index,
            to_index: after.index,
            features_changed: before.features != after.features,
            producer_ids_changed: before.next_producer_id != after.next_producer_id,
            controller_changed: before.controller != after.controller,
            ..MetadataDelta::default()
        };
        if !Arc::ptr_eq(&before.topics, &after.topics) {
            delta.compare_topics(before, after);
        }
        if !Arc::ptr_eq(&before.configs, &after.configs) {
            delta.compare_configs(before, after);
        }
        if !Arc::ptr_eq(&before.brokers, &after.brokers) {
            delta.brokers_removed = before.brokers.keys().filter(|id| after.broker(**id).is_none()).copied().collect();
            let changed = after.brokers.values().filter(|new| before.broker(new.id) != Some(new));
            delta.brokers_changed = changed.map(|new| new.id).collect();
        }
        delta
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        let unchanged = MetadataDelta { from_index: self.from_index, to_index: self.to_index, ..Default::default() };
        *self == unchanged
    }

    fn compare_topics(&mut self, before: &MetadataImage, after: &MetadataImage) {
        for old in before.topics() {
            if after.topic_by_name(&old.name).is_none_or(|new| new.id != old.id) {
                self.topics_deleted.push(old.clone());
            }
        }
        for new in after.topics() {
            match before.topic_by_name(&new.name) {
                Some(old) if old.id == new.id => self.topics_changed.extend(compare_topic(old, new)),
                _ => self.topics_created.push(new.clone()),
            }
        }
    }

    fn compare_configs(&mut self, before: &MetadataImage, after: &MetadataImage) {
        let removed = before.configs().filter(|(resource, _)| after.config(resource).is_none());
        self.configs_changed.extend(removed.map(|(resource, _)| resource));
        let changed = after.configs().filter(|(resource, values)| before.config(resource) != Some(values));
        self.configs_changed.extend(changed.map(|(resource, _)| resource));
        self.configs_changed.sort();
    }
}

fn compare_topic(old: &Arc<TopicImage>, new: &Arc<TopicImage>) -> Option<TopicDelta> {
    if Arc::ptr_eq(old, new) {
        return None;
    }
    let index = |place: usize| PartitionIndex(i32::try_from(place).expect("partition indexes are 32 bits"));
    let common = old.partitions.len();
    let changed = old.partitions.iter().zip(&new.partitions).enumerate();
    let partitions_changed: Vec<_> =
        changed.filter(|(_, (old, new))| !Arc::ptr_eq(old, new) && old != new).map(|(place, _)| index(place)).collect();
    let partitions_created: Vec<_> = (common..new.partitions.len()).map(index).collect();
    if partitions_changed.is_empty() && partitions_created.is_empty() {
        return None;
    }
    Some(TopicDelta { topic: new.clone(), before: old.clone(), partitions_created, partitions_changed })
}

#[cfg(test)]
mod tests;
