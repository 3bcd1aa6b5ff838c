//! Fencing and its reverse: what follows for the partitions when a broker goes or comes.
//!
//! Who is fenced leaves every in-sync set first; who is unfenced may be elected after. Both in one entry, unless a broker
//! is in more in-sync sets than an entry has room for: then it leaves them entry by entry, from the first on as one in
//! controlled shutdown, so that nobody elects it or lets it join meanwhile, and is fenced in the last. A heartbeat that
//! comes in between, from a broker that does not want to leave, ends that: nothing else would, if the controller is
//! another one by then and never comes to the last entry.

use stonelog_protocol::DirectoryId;

use super::brokers::check_epoch;
use super::change::Planner;
use super::entry::{Entry, fitting};
use super::request::FenceBroker;
use super::response::ControllerResponse;
use super::{Decision, Inputs, Reject, after, elections};
use crate::metadata::record::BrokerRegistrationChange;
use crate::metadata::{BrokerRegistration, MetadataImage, MetadataRecord};

/// Fences a broker whose session has ended. The answer says whether to ask again for the rest.
pub(super) fn decide_fence(
    image: &MetadataImage,
    request: FenceBroker,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    let broker = check_epoch(image, request.id, request.epoch)?;
    if broker.fenced {
        return Ok(Decision::new(Vec::new(), ControllerResponse::FenceBroker { is_fenced: true }));
    }
    let change = BrokerRegistrationChange { fenced: Some(true), ..unchanged(broker) };
    let (records, is_fenced) = fence(image, inputs, broker, change);
    Ok(Decision::new(records, ControllerResponse::FenceBroker { is_fenced }))
}

/// A change of a registration that changes nothing yet.
pub(super) fn unchanged(broker: &BrokerRegistration) -> BrokerRegistrationChange {
    BrokerRegistrationChange {
        id: broker.id,
        epoch: broker.epoch,
        fenced: None,
        in_controlled_shutdown: None,
        online_directories: None,
    }
}

/// From now on nobody elects this broker, and it joins nowhere.
pub(super) fn leaving(broker: &BrokerRegistration) -> MetadataRecord {
    let change = BrokerRegistrationChange { in_controlled_shutdown: Some(true), ..unchanged(broker) };
    MetadataRecord::BrokerRegistrationChange(change)
}

/// The records that take a broker out of every in-sync set it is in and fence it, or as many as fit; whether all did.
pub(super) fn fence(
    image: &MetadataImage,
    inputs: &Inputs<'_>,
    broker: &BrokerRegistration,
    mut change: BrokerRegistrationChange,
) -> (Vec<MetadataRecord>, bool) {
    let mut entry = Entry::new(1);
    let mut planner = Planner::new(image, inputs.rules);
    for (topic, index, partition) in image.partitions_with_member(broker.id) {
        if !partition.isr.contains(&broker.id) {
            continue;
        }
        let Some(change) = planner.plan(topic, index, partition).without(broker.id).finish() else { continue };
        if !entry.push(MetadataRecord::PartitionChange(change)) {
            break;
        }
    }
    let (mut records, is_full) = entry.finish();
    if is_full {
        change.fenced = None;
        change.in_controlled_shutdown = (!broker.in_controlled_shutdown).then_some(true);
    }
    if change != unchanged(broker) {
        records.push(MetadataRecord::BrokerRegistrationChange(change));
    }
    (records, !is_full)
}

/// A change of a registration that fences nobody and leaves its directories, with what follows from it.
pub(super) fn with_effects(
    image: &MetadataImage,
    inputs: &Inputs<'_>,
    broker: &BrokerRegistration,
    change: BrokerRegistrationChange,
) -> Vec<MetadataRecord> {
    if change == unchanged(broker) {
        return Vec::new();
    }
    let leaves = change.in_controlled_shutdown == Some(true);
    let may_lead = change.fenced == Some(false) || change.in_controlled_shutdown == Some(false);
    let record = MetadataRecord::BrokerRegistrationChange(change);
    let mut records = Vec::new();
    if leaves {
        let changed = after(image, inputs.next_index, std::slice::from_ref(&record));
        let mut entry = Entry::new(1);
        let mut planner = Planner::new(&changed, inputs.rules);
        for (topic, index, partition) in changed.partitions_with_member(broker.id) {
            let gone = partition.isr.contains(&broker.id).then(|| planner.plan(topic, index, partition));
            let gone = gone.and_then(|plan| plan.without(broker.id).finish());
            if gone.is_some_and(|change| !entry.push(MetadataRecord::PartitionChange(change))) {
                // The rest goes with a later heartbeat: it still leads, so it may not stop yet.
                break;
            }
        }
        records.extend(entry.finish().0);
    }
    records.push(record);
    if may_lead {
        let changed = after(image, inputs.next_index, &records);
        let room = Entry::new(records.len());
        records.extend(elections::of_leaderless(&changed, inputs.rules, Some(broker.id), room).0);
    }
    records
}

/// The directories of a broker that are online from now on, with what follows: in one entry if it fits. If not, the
/// replicas concerned leave first, entry by entry; the directories change in the last.
///
/// A replica whose directory went offline is absent: out of the in-sync set, its ELR place kept (rule 12). One whose
/// directory comes back without a registration has proved nothing.
pub(super) fn change_directories(
    image: &MetadataImage,
    inputs: &Inputs<'_>,
    broker: &BrokerRegistration,
    online: &[DirectoryId],
) -> Vec<MetadataRecord> {
    let change = BrokerRegistrationChange { online_directories: Some(online.to_vec()), ..unchanged(broker) };
    let record = MetadataRecord::BrokerRegistrationChange(change);
    let changed = after(image, inputs.next_index, std::slice::from_ref(&record));
    let mut planner = Planner::new(&changed, inputs.rules);
    let changes = changed.partitions_with_member(broker.id).filter_map(|(topic, index, partition)| {
        let directory = partition.directory_of(broker.id)?;
        let plan = planner.plan(topic, index, partition);
        match (broker.has_directory(directory), online.contains(&directory)) {
            (_, false) if partition.isr.contains(&broker.id) => plan.without(broker.id).finish(),
            (false, true) => plan.lost(broker.id).finish(),
            _ => None,
        }
    });
    let (mut records, is_whole) = fitting(changes.map(MetadataRecord::PartitionChange), 1);
    if is_whole {
        records.push(record);
    }
    records
}
