//! Which brokers shall hold a partition: more of them, fewer, or others in place of one that goes. Pure.
//!
//! New replicas go to the brokers that hold fewest, on racks that have none of the partition's yet where there are any.
//! What holds records already stays, in its order, so that as little as possible is copied and the preferred leader is
//! the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::cluster_admin::{BrokerState, PartitionState};

/// The brokers that can be given replicas, with how many each holds.
#[derive(Debug)]
pub(super) struct Places {
    racks: BTreeMap<i32, Option<String>>,
    held: BTreeMap<i32, usize>,
}

impl Places {
    /// The brokers that are up and not `leaving`, with what they hold.
    pub(super) fn of(brokers: &[BrokerState], partitions: &[PartitionState], leaving: &BTreeSet<i32>) -> Places {
        let usable = brokers.iter().filter(|broker| !broker.fenced && !leaving.contains(&broker.id));
        let racks: BTreeMap<i32, Option<String>> = usable.map(|broker| (broker.id, broker.rack.clone())).collect();
        let mut held: BTreeMap<i32, usize> = racks.keys().map(|id| (*id, 0)).collect();
        for replica in partitions.iter().flat_map(|partition| &partition.replicas) {
            if let Some(count) = held.get_mut(replica) {
                *count += 1;
            }
        }
        Places { racks, held }
    }

    /// The replicas with `count` of them; `None` when there are too few brokers.
    ///
    /// Fewer: those out of sync go first, then the last ones; the preferred leader stays as long as it is in sync.
    pub(super) fn with_count(&mut self, partition: &PartitionState, count: usize) -> Option<Vec<i32>> {
        let mut replicas = partition.replicas.clone();
        while replicas.len() > count {
            let out = replicas.iter().rposition(|replica| !partition.isr.contains(replica));
            replicas.remove(out.unwrap_or(replicas.len() - 1));
        }
        while replicas.len() < count {
            let next = self.next(&replicas)?;
            replicas.push(next);
        }
        Some(replicas)
    }

    /// The replicas with others in place of `leaving`; `None` when there are too few brokers.
    pub(super) fn without(&mut self, partition: &PartitionState, leaving: &BTreeSet<i32>) -> Option<Vec<i32>> {
        let mut replicas = partition.replicas.clone();
        for place in 0..replicas.len() {
            if leaving.contains(&replicas[place]) {
                // Its rack may be taken again: it goes.
                let others: Vec<i32> = replicas.iter().copied().filter(|id| !leaving.contains(id)).collect();
                replicas[place] = self.next(&others)?;
            }
        }
        Some(replicas)
    }

    /// The best broker that is not among `replicas` yet; it is counted.
    fn next(&mut self, replicas: &[i32]) -> Option<i32> {
        let taken: BTreeSet<&String> =
            replicas.iter().filter_map(|id| self.racks.get(id).and_then(Option::as_ref)).collect();
        let free = self.racks.iter().filter(|(id, _)| !replicas.contains(id));
        let best = free.min_by_key(|(id, rack)| {
            let shares_rack = rack.as_ref().is_some_and(|rack| taken.contains(rack));
            (shares_rack, self.held.get(id).copied().unwrap_or(0), **id)
        });
        let id = *best?.0;
        *self.held.entry(id).or_default() += 1;
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::survey::tests::partition;

    fn brokers(racks: &[(i32, Option<&str>)]) -> Vec<BrokerState> {
        let broker = |(id, rack): &(i32, Option<&str>)| BrokerState {
            id: *id,
            address: String::new(),
            rack: rack.map(str::to_owned),
            fenced: false,
        };
        racks.iter().map(broker).collect()
    }

    fn places(racks: &[(i32, Option<&str>)], partitions: &[PartitionState]) -> Places {
        Places::of(&brokers(racks), partitions, &BTreeSet::new())
    }

    #[test]
    fn new_replicas_go_to_other_racks_first_and_then_to_who_holds_least() {
        let partitions = [partition(0, &[1], &[1]), partition(1, &[4], &[4]), partition(2, &[4], &[4])];
        let racks = [(1, Some("a")), (2, Some("a")), (3, Some("b")), (4, Some("b"))];
        let mut places = places(&racks, &partitions);
        assert_eq!(places.with_count(&partitions[0], 2), Some(vec![1, 3]));
        assert_eq!(places.with_count(&partitions[0], 3), Some(vec![1, 3, 2]));
        assert_eq!(places.with_count(&partitions[0], 5), None, "there are four brokers");
    }

    #[test]
    fn many_new_replicas_are_spread() {
        let partitions: Vec<_> = (0..4).map(|index| partition(index, &[1], &[1])).collect();
        let mut places = places(&[(1, None), (2, None), (3, None)], &partitions);
        let second: Vec<i32> = partitions.iter().map(|partition| places.with_count(partition, 2).unwrap()[1]).collect();
        assert_eq!(second, [2, 3, 2, 3]);
    }

    #[test]
    fn fewer_replicas_keep_those_in_sync_and_the_first() {
        let mut places = places(&[(1, None), (2, None), (3, None)], &[]);
        assert_eq!(places.with_count(&partition(0, &[1, 2, 3], &[1, 2, 3]), 2), Some(vec![1, 2]));
        assert_eq!(places.with_count(&partition(0, &[1, 2, 3], &[1, 3]), 2), Some(vec![1, 3]));
        assert_eq!(places.with_count(&partition(0, &[1, 2, 3], &[3]), 1), Some(vec![3]));
    }

    #[test]
    fn who_leaves_is_replaced_in_its_place_or_nobody_can_be_found() {
        let leaving = BTreeSet::from([2]);
        let all = brokers(&[(1, None), (2, None), (3, None), (4, None)]);
        let held = [partition(0, &[2, 3], &[2, 3]), partition(1, &[1, 2, 3], &[1])];
        let mut places = Places::of(&all, &held, &leaving);
        assert_eq!(places.without(&held[0], &leaving), Some(vec![4, 3]));
        assert_eq!(places.without(&held[1], &leaving), Some(vec![1, 4, 3]));
        assert_eq!(places.without(&partition(2, &[1, 2, 3, 4], &[1]), &leaving), None);
    }
}
