//! Who leads: elections asked for (ElectLeaders), and those that follow from a broker's coming and going.

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, PartitionIndex};

use super::change::{ChangePlan, Planner};
use super::entry::Entry;
use super::request::{ElectLeaders, ElectionType};
use super::response::{Balanced, ControllerResponse, ElectionResult};
use super::rules::ConfigRules;
use super::{Decision, Inputs, Reject};
use crate::metadata::record::PartitionChange;
use crate::metadata::{MetadataImage, MetadataRecord};

/// Preferred leaders put back in one go (Kafka's `MAX_ELECTIONS_PER_IMBALANCE`).
pub const PREFERRED_ELECTIONS_MAX: usize = 1_000;

pub(super) fn decide_elect(
    image: &MetadataImage,
    request: &ElectLeaders,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    let mut records = Vec::new();
    let mut results = Vec::new();
    let mut elect = |topic: &str, index: PartitionIndex| {
        let result = elect_one(image, inputs.rules, request.election, topic, index);
        let result = result.map(|change| records.push(MetadataRecord::PartitionChange(change)));
        ElectionResult { topic: topic.to_owned(), partition: index, result }
    };
    match &request.partitions {
        Some(partitions) => results.extend(partitions.iter().map(|(topic, index)| elect(topic, *index))),
        None => {
            let all = image.partitions().map(|(topic, index, _)| elect(&topic.name, index));
            let needed = |result: &ElectionResult| {
                result.result.as_ref().err().is_none_or(|reject| reject.code != ErrorCode::ElectionNotNeeded)
            };
            results.extend(all.filter(needed));
        }
    }
    Ok(Decision::new(records, ControllerResponse::ElectLeaders(results)))
}

fn elect_one(
    image: &MetadataImage,
    rules: &dyn ConfigRules,
    election: ElectionType,
    topic_name: &str,
    index: PartitionIndex,
) -> Result<PartitionChange, Reject> {
    let unknown = |what: String| Reject::new(ErrorCode::UnknownTopicOrPartition, what);
    let topic = image.topic_by_name(topic_name).ok_or_else(|| unknown(format!("No such topic as {topic_name}")))?;
    let partition =
        topic.partition(index).ok_or_else(|| unknown(format!("No such partition as {topic_name}-{index}")))?;
    match election {
        ElectionType::Preferred => {
            if image.is_led(partition) && partition.leader == partition.preferred_leader() {
                return Err(ErrorCode::ElectionNotNeeded.into());
            }
            let change = ChangePlan::new(image, rules, topic, index, partition).preferred().finish();
            change
                .filter(|change| change.leader == Some(partition.preferred_leader()))
                .ok_or_else(|| ErrorCode::PreferredLeaderNotAvailable.into())
        }
        ElectionType::Unclean => {
            if image.is_led(partition) {
                return Err(ErrorCode::ElectionNotNeeded.into());
            }
            if rules.is_strict(image, topic_name) || partition.left_strict == Some(true) {
                let message = match rules.is_strict(image, topic_name) {
                    true => {
                        "an unclean election loses acknowledged records, and this topic is strict (flush.messages=1)"
                    }
                    false => {
                        "an unclean election loses records that were acknowledged while this topic was strict; accept                          the loss of this partition instead (stonelog partition accept-loss)"
                    }
                };
                return Err(Reject::new(ErrorCode::PolicyViolation, message));
            }
            elect_uncleanly(image, topic.id, index, partition)
                .ok_or_else(|| ErrorCode::EligibleLeadersNotAvailable.into())
        }
    }
}

/// Any active replica of a relaxed partition; it recovers before anybody joins it.
fn elect_uncleanly(
    image: &MetadataImage,
    topic_id: stonelog_protocol::TopicId,
    index: PartitionIndex,
    partition: &crate::metadata::PartitionRegistration,
) -> Option<PartitionChange> {
    let leader = partition.replicas.iter().copied().find(|broker| {
        let directory = partition.directory_of(*broker);
        image.broker(*broker).is_some_and(|b| b.is_active() && directory.is_some_and(|id| b.has_directory(id)))
    })?;
    let mut change = PartitionChange::of(topic_id, index);
    change.leader = Some(Some(leader));
    change.isr = Some(vec![leader]);
    change.elr = Some(Vec::new());
    change.last_known_elr = Some(Vec::new());
    change.recovering = Some(crate::metadata::RecoveryState::Recovering);
    change.cut = (!partition.cut.is_empty()).then(Vec::new);
    change.left_strict = partition.left_strict.map(|_| None);
    Some(change)
}

/// The elections that have become possible of partitions nobody leads, or of those among them with a replica on one
/// broker, while they fit; whether all did.
pub(super) fn of_leaderless(
    image: &MetadataImage,
    rules: &dyn ConfigRules,
    broker: Option<BrokerId>,
    mut entry: Entry,
) -> (Vec<MetadataRecord>, bool) {
    let mut planner = Planner::new(image, rules);
    for (topic, index, partition) in image.leaderless_partitions() {
        if broker.is_some_and(|broker| !partition.replicas.contains(&broker)) {
            continue;
        }
        let change = planner.plan(topic, index, partition).finish();
        // A fenced leader that nobody can stand in for stays: it is about to be unfenced.
        let change = change.filter(|change| matches!(change.leader, Some(Some(_))));
        if change.is_some_and(|change| !entry.push(MetadataRecord::PartitionChange(change))) {
            break;
        }
    }
    let (records, is_full) = entry.finish();
    (records, !is_full)
}

/// What is due from time to time: leaders for partitions without one, and preferred leaders back in their place, at most
/// [`PREFERRED_ELECTIONS_MAX`] of them. The answer says whether to ask again at once.
pub(super) fn decide_balance(image: &MetadataImage, inputs: &Inputs<'_>) -> Result<Decision, Reject> {
    let (records, is_complete) = of_leaderless(image, inputs.rules, None, Entry::new(PREFERRED_ELECTIONS_MAX));
    let elected = records.len();
    let mut records = records;
    let mut planner = Planner::new(image, inputs.rules);
    let mut has_more = !is_complete;
    for (topic, index, partition) in image.partitions() {
        let preferred = partition.preferred_leader();
        if !image.is_led(partition) || partition.leader == preferred {
            continue;
        }
        let change = planner.plan(topic, index, partition).preferred().finish();
        let Some(change) = change.filter(|change| change.leader == Some(preferred)) else { continue };
        if records.len() - elected == PREFERRED_ELECTIONS_MAX {
            has_more = true;
            break;
        }
        records.push(MetadataRecord::PartitionChange(change));
    }
    let moved = records.len() - elected;
    Ok(Decision::new(records, ControllerResponse::BalanceLeaders(Balanced { elected, moved, has_more })))
}

/// The changes that follow from a new effective min ISR: an ELR that is no longer needed goes, in the same entry.
pub(super) fn on_min_isr_changed(
    before: &MetadataImage,
    after: &MetadataImage,
    rules: &dyn ConfigRules,
) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    let mut planner = Planner::new(after, rules);
    for topic in after.topics() {
        for (index, partition) in (0..).map(PartitionIndex).zip(&topic.partitions) {
            // Per partition: a reassignment in progress counts its replicas differently.
            let has_elr = !partition.elr.is_empty() || !partition.last_known_elr.is_empty();
            let min_isr = |image| rules.min_insync_replicas(image, &topic.name, partition.settled_count());
            if has_elr && min_isr(before) != min_isr(after) {
                let change = planner.plan(topic, index, partition).finish();
                records.extend(change.map(MetadataRecord::PartitionChange));
            }
        }
    }
    records
}
