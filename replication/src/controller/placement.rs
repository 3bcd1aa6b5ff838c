//! Where replicas go: striped over brokers and racks (after Kafka's `StripedReplicaPlacer`).
//!
//! Racks take turns, and so do the brokers within a rack, so that replicas of a partition lie on different racks while
//! there are enough, and every broker holds about as many replicas, and leads about as many partitions. Fenced brokers
//! are placed after the active ones of their rack and never first.

use std::collections::BTreeMap;

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

/// The directory a new replica on a broker goes to: its online directories take turns.
pub(super) fn directory_for(broker: Option<&BrokerRegistration>, turn: usize) -> DirectoryId {
    match broker.map(|broker| broker.directories.as_slice()) {
        Some(directories) if !directories.is_empty() => directories[turn % directories.len()].id,
        _ => DirectoryId::ZERO,
    }
}

#[cfg(test)]
mod tests;
