//! Which replicas of a topic are throttled: `leader.replication.throttled.replicas` and
//! `follower.replication.throttled.replicas`.

use stonelog_protocol::{BrokerId, PartitionIndex};

use super::value::elements;

/// A set of a topic's replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ThrottledReplicas {
    /// None.
    #[default]
    None,
    /// All of them, `*`.
    All,
    /// These, `partition:broker`.
    Some(Vec<(PartitionIndex, BrokerId)>),
}

impl ThrottledReplicas {
    /// Reads a value that was judged legal; what is no pair is left out.
    pub(super) fn read(value: &str) -> ThrottledReplicas {
        let pair = |text: &str| {
            let (partition, broker) = text.split_once(':')?;
            Some((PartitionIndex(partition.parse().ok()?), BrokerId(broker.parse().ok()?)))
        };
        match value.trim() {
            "*" => ThrottledReplicas::All,
            value => match elements(value).into_iter().filter_map(pair).collect::<Vec<_>>() {
                pairs if pairs.is_empty() => ThrottledReplicas::None,
                pairs => ThrottledReplicas::Some(pairs),
            },
        }
    }

    /// Whether a broker's replica of a partition is one.
    pub fn contains(&self, partition: PartitionIndex, broker: BrokerId) -> bool {
        match self {
            ThrottledReplicas::None => false,
            ThrottledReplicas::All => true,
            ThrottledReplicas::Some(pairs) => pairs.contains(&(partition, broker)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_name_replicas_and_a_star_all_of_them() {
        let is_throttled = |value: &str| {
            let replicas = ThrottledReplicas::read(value);
            [(0, 1), (0, 2), (7, 1)]
                .map(|(partition, broker)| replicas.contains(PartitionIndex(partition), BrokerId(broker)))
        };
        assert_eq!(is_throttled("0:1,7:1"), [true, false, true]);
        assert_eq!(is_throttled(" 0:2 "), [false, true, false]);
        assert_eq!(is_throttled("*"), [true; 3]);
        assert_eq!((is_throttled("none"), is_throttled("")), ([false; 3], [false; 3]));
    }
}
