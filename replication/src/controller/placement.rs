//! Where replicas go: striped over brokers and racks (after Kafka's `StripedReplicaPlacer`).
//!
//! Racks take turns, and so do the brokers within a rack, so that replicas of a partition lie on different racks while
//! there are enough, and every broker holds about as many replicas, and leads about as many partitions. Fenced brokers
//! are placed after the active ones of their rack and never first.

use std::collections::{BTreeMap, HashMap};

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, DirectoryId};

use super::Reject;
use crate::metadata::{BrokerRegistration, MetadataImage};

/// The replicas of `count` partitions from partition `start` on, each list with an active broker first.
pub(super) fn place(
    image: &MetadataImage,
    start: usize,
    count: usize,
    replication_factor: usize,
    seed: u64,
) -> Result<Vec<Vec<BrokerId>>, Reject> {
    let brokers = image.brokers().len();
    let refused = |why: String| {
        Reject::new(
            ErrorCode::InvalidReplicationFactor,
            format!("Unable to replicate the partition {replication_factor} time(s): {why}"),
        )
    };
    if replication_factor > brokers {
        return Err(refused(format!(
            "The target replication factor of {replication_factor} cannot be reached because only {brokers} broker(s) \
             are registered."
        )));
    }
    let racks = racks(image);
    if racks.iter().all(|rack| rack.active.is_empty()) {
        return Err(refused("All brokers are currently fenced.".to_owned()));
    }
    let offset = usize::try_from(seed % (1 << 31)).expect("31 bits fit") + start;
    Ok((0..count).map(|partition| stripe(&racks, offset + partition, replication_factor)).collect())
}

/// The brokers of one rack, each list by id.
struct Rack {
    active: Vec<BrokerId>,
    fenced: Vec<BrokerId>,
}

fn racks(image: &MetadataImage) -> Vec<Rack> {
    let mut racks: BTreeMap<Option<&str>, Rack> = BTreeMap::new();
    for broker in image.brokers() {
        let rack = racks.entry(broker.rack.as_deref()).or_insert(Rack { active: Vec::new(), fenced: Vec::new() });
        if broker.is_active() { rack.active.push(broker.id) } else { rack.fenced.push(broker.id) }
    }
    racks.into_values().collect()
}

/// One partition's replicas: one broker per rack and round, until there are enough.
fn stripe(racks: &[Rack], turn: usize, replication_factor: usize) -> Vec<BrokerId> {
    let mut queues: Vec<Vec<BrokerId>> = (0..racks.len())
        .map(|place| {
            let rack = &racks[(turn + place) % racks.len()];
            // Racks repeat every `racks.len()` partitions; the brokers of a rack move on each time round.
            let round = turn / racks.len() + place;
            rotated(&rack.active, round).chain(rotated(&rack.fenced, round)).collect()
        })
        .collect();
    // The first replica is the preferred leader: begin in a rack that has an active broker.
    let first = (0..racks.len()).find(|place| !racks[(turn + place) % racks.len()].active.is_empty());
    queues.rotate_left(first.expect("some broker is active"));
    let mut replicas = Vec::with_capacity(replication_factor);
    let mut depth = 0;
    while replicas.len() < replication_factor {
        let layer = queues.iter().filter_map(|queue| queue.get(depth).copied());
        replicas.extend(layer.take(replication_factor - replicas.len()));
        depth += 1;
    }
    replicas
}

fn rotated(brokers: &[BrokerId], by: usize) -> impl Iterator<Item = BrokerId> + '_ {
    let len = brokers.len();
    (0..len).map(move |place| brokers[(place + by) % len])
}

/// Where among a broker's directories new replicas go: to the one that holds the fewest (Kafka's
/// `LogManager.nextLogDirs`). Counts once for a whole request, and only when some broker has several directories.
#[derive(Debug, Default)]
pub(super) struct DirectoryLoad {
    replicas: HashMap<(BrokerId, DirectoryId), usize>,
}

impl DirectoryLoad {
    /// The replicas of every directory.
    pub(super) fn of(image: &MetadataImage) -> DirectoryLoad {
        let mut load = DirectoryLoad::default();
        if image.brokers().all(|broker| broker.directories.len() < 2) {
            return load;
        }
        for (_, _, partition) in image.partitions() {
            for (broker, directory) in partition.replicas.iter().zip(&partition.directories) {
                *load.replicas.entry((*broker, *directory)).or_default() += 1;
            }
        }
        load
    }

    /// The directory for one more replica on a broker, which counts from now on. Among equals the first.
    pub(super) fn place(&mut self, broker: Option<&BrokerRegistration>) -> DirectoryId {
        let Some(broker) = broker else { return DirectoryId::ZERO };
        let replicas = |id: DirectoryId| self.replicas.get(&(broker.id, id)).copied().unwrap_or(0);
        let emptiest = broker.directories.iter().map(|directory| directory.id).min_by_key(|id| replicas(*id));
        let Some(emptiest) = emptiest else { return DirectoryId::ZERO };
        *self.replicas.entry((broker.id, emptiest)).or_default() += 1;
        emptiest
    }
}

#[cfg(test)]
mod tests;
