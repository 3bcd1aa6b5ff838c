//! Which partitions a broker's coming or going touches, kept beside the partitions by [`super::apply`].
//!
//! Without them fencing one broker would look at every partition of the cluster. They are derived: an image built from a
//! snapshot has the same ones as the image that was written out, and [`MetadataImage::indexes_are_true`] rebuilds them
//! to compare. Sets are shared between images by topic, as the topics themselves are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stonelog_protocol::{BrokerId, PartitionIndex, TopicId, TopicPartition};

use super::image::MetadataImage;
use super::topic::{PartitionRegistration, TopicImage};

/// Partitions, by topic.
type Partitions = BTreeMap<TopicId, Arc<BTreeSet<PartitionIndex>>>;

/// The derived sets of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    /// Where a broker is in the ISR or the ELR.
    members: BTreeMap<BrokerId, Arc<Partitions>>,
    /// Which partitions nobody leads.
    leaderless: Arc<Partitions>,
}

impl Indexes {
    /// A partition became, changed or went: `None` is one that is not there.
    pub(super) fn on_partition(
        &mut self,
        key: TopicPartition,
        old: Option<&PartitionRegistration>,
        new: Option<&PartitionRegistration>,
    ) {
        let members = |partition: Option<&PartitionRegistration>| -> BTreeSet<BrokerId> {
            partition.into_iter().flat_map(|partition| partition.isr.iter().chain(&partition.elr)).copied().collect()
        };
        let (was, is) = (members(old), members(new));
        for broker in was.difference(&is) {
            let of_broker = self.members.get_mut(broker).expect("a member is in its index");
            remove(Arc::make_mut(of_broker), key);
            if of_broker.is_empty() {
                self.members.remove(broker);
            }
        }
        for broker in is.difference(&was) {
            insert(Arc::make_mut(self.members.entry(*broker).or_default()), key);
        }
        let has_none = |partition: Option<&PartitionRegistration>| partition.is_some_and(|p| p.leader.is_none());
        match (has_none(old), has_none(new)) {
            (false, true) => insert(Arc::make_mut(&mut self.leaderless), key),
            (true, false) => remove(Arc::make_mut(&mut self.leaderless), key),
            _ => {}
        }
    }
}

fn insert(partitions: &mut Partitions, key: TopicPartition) {
    Arc::make_mut(partitions.entry(key.topic_id).or_default()).insert(key.partition);
}

fn remove(partitions: &mut Partitions, key: TopicPartition) {
    let Some(of_topic) = partitions.get_mut(&key.topic_id) else { return };
    Arc::make_mut(of_topic).remove(&key.partition);
    if of_topic.is_empty() {
        partitions.remove(&key.topic_id);
    }
}

/// A partition with its topic, as [`MetadataImage::partitions`] gives it.
type Found<'a> = (&'a Arc<TopicImage>, PartitionIndex, &'a Arc<PartitionRegistration>);

impl MetadataImage {
    /// The partitions whose ISR or ELR a broker is in, by topic id. Costs what it finds.
    pub fn partitions_with_member(&self, broker: BrokerId) -> impl Iterator<Item = Found<'_>> {
        self.found(self.indexes.members.get(&broker))
    }

    /// How many partitions' ISR or ELR a broker is in.
    pub fn membership_count(&self, broker: BrokerId) -> usize {
        self.indexes.members.get(&broker).map_or(0, |topics| topics.values().map(|indexes| indexes.len()).sum())
    }

    /// The partitions that nobody leads, and those whose leader is fenced, as one is that has registered anew and was the
    /// last in sync. Costs what it finds, and the memberships of fenced brokers.
    pub fn leaderless_partitions(&self) -> impl Iterator<Item = Found<'_>> {
        let fenced = self.brokers().filter(|broker| broker.fenced && !off!(FencedLeader)).map(|broker| broker.id);
        let led_by = |id| self.partitions_with_member(id).filter(move |(_, _, partition)| partition.leader == Some(id));
        self.found(Some(&self.indexes.leaderless)).chain(fenced.flat_map(led_by))
    }

    /// Whether a partition has a leader, and that one is not fenced.
    pub fn is_led(&self, partition: &PartitionRegistration) -> bool {
        let is_up = |leader: BrokerId| self.broker(leader).is_some_and(|broker| !broker.fenced || off!(FencedLeader));
        partition.leader.is_some_and(is_up)
    }

    fn found<'a>(&'a self, partitions: Option<&'a Arc<Partitions>>) -> impl Iterator<Item = Found<'a>> {
        partitions.into_iter().flat_map(|topics| topics.iter()).flat_map(|(topic_id, indexes)| {
            let topic = self.topic_by_id(*topic_id).expect("an indexed topic exists");
            indexes
                .iter()
                .map(move |index| (topic, *index, topic.partition(*index).expect("an indexed partition exists")))
        })
    }

    /// Whether the indexes are what the partitions say; looks at every partition.
    pub fn indexes_are_true(&self) -> bool {
        let mut rebuilt = Indexes::default();
        for (topic, index, partition) in self.partitions() {
            rebuilt.on_partition(TopicPartition { topic_id: topic.id, partition: index }, None, Some(partition));
        }
        rebuilt == *self.indexes
    }
}
