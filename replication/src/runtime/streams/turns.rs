//! Partitions that are looked at in turn, some at a time: a lane with thousands of them does not stand still for a look
//! at all.

use std::collections::BTreeSet;
use std::ops::Bound;

use stonelog_protocol::TopicPartition;

/// A set, and who of it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Turns {
    set: BTreeSet<TopicPartition>,
    last: Option<TopicPartition>,
}

impl Turns {
    /// Whether it is new.
    pub(super) fn insert(&mut self, partition: TopicPartition) -> bool {
        self.set.insert(partition)
    }

    pub(super) fn remove(&mut self, partition: TopicPartition) {
        self.set.remove(&partition);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    /// The next ones, which are in it no more.
    pub(super) fn take(&mut self, count_max: usize) -> Vec<TopicPartition> {
        let next = self.next(count_max);
        next.iter().for_each(|partition| self.remove(*partition));
        next
    }

    /// The next ones, at most so many and each once.
    pub(super) fn next(&mut self, count_max: usize) -> Vec<TopicPartition> {
        let count = count_max.min(self.set.len());
        let behind = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<_> = self.set.range((behind, Bound::Unbounded)).chain(&self.set).take(count).copied().collect();
        self.last = next.last().copied();
        next
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{PartitionIndex, Uuid};

    use super::*;

    fn id(partition: i32) -> TopicPartition {
        TopicPartition { topic_id: Uuid([1; 16]), partition: PartitionIndex(partition) }
    }

    fn numbers(of: Vec<TopicPartition>) -> Vec<i32> {
        of.into_iter().map(|id| id.partition.0).collect()
    }

    #[test]
    fn everybody_has_a_turn_before_anybody_has_a_second_one() {
        let mut turns = Turns::default();
        (0..5).for_each(|partition| assert!(turns.insert(id(partition))));
        assert_eq!(numbers(turns.next(3)), [0, 1, 2]);
        turns.remove(id(2));
        turns.insert(id(7));
        assert_eq!(numbers(turns.next(3)), [3, 4, 7]);
        assert_eq!(numbers(turns.next(9)), [0, 1, 3, 4, 7], "each once");
        assert_eq!(Turns::default().next(3), []);
    }
}
