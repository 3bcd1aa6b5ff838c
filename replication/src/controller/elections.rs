//! Who leads: elections asked for (ElectLeaders), and those that follow from a broker's coming and going.

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, PartitionIndex};

use super::change::ChangePlan;
use super::request::{ElectLeaders, ElectionType};
use super::response::{ControllerResponse, ElectionResult};
use super::rules::ConfigRules;
use super::{Decision, Inputs, Reject};
use crate::metadata::record::PartitionChange;
use crate::metadata::{MetadataImage, MetadataRecord};

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
            if partition.leader.is_some() && partition.leader == partition.preferred_leader() {
                return Err(ErrorCode::ElectionNotNeeded.into());
            }
            let change = ChangePlan::new(image, rules, topic, index, partition).preferred().finish();
            change
                .filter(|change| change.leader == Some(partition.preferred_leader()))
                .ok_or_else(|| ErrorCode::PreferredLeaderNotAvailable.into())
        }
        ElectionType::Unclean => {
            if partition.leader.is_some() {
                return Err(ErrorCode::ElectionNotNeeded.into());
            }
            if rules.is_strict(image, topic_name) {
                return Err(Reject::new(
                    ErrorCode::PolicyViolation,
                    "an unclean election loses acknowledged records, and this topic is strict (flush.messages=1)",
                ));
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
    Some(change)
}

/// The changes that take a broker out of every in-sync set and every leadership.
pub(super) fn on_broker_gone<'a>(
    image: &'a MetadataImage,
    rules: &'a dyn ConfigRules,
    broker: BrokerId,
) -> impl Iterator<Item = MetadataRecord> + 'a {
    image.partitions().filter(move |(_, _, partition)| partition.isr.contains(&broker)).filter_map(
        move |(topic, index, partition)| {
            let change = ChangePlan::new(image, rules, topic, index, partition).without(broker).finish()?;
            Some(MetadataRecord::PartitionChange(change))
        },
    )
}

/// The elections that become possible when a broker is unfenced: of partitions without a leader.
pub(super) fn on_broker_active<'a>(
    image: &'a MetadataImage,
    rules: &'a dyn ConfigRules,
    broker: BrokerId,
) -> impl Iterator<Item = MetadataRecord> + 'a {
    image
        .partitions()
        .filter(move |(_, _, partition)| partition.leader.is_none() && partition.replicas.contains(&broker))
        .filter_map(move |(topic, index, partition)| {
            let change = ChangePlan::new(image, rules, topic, index, partition).finish()?;
            Some(MetadataRecord::PartitionChange(change))
        })
}

/// The changes that follow from a new effective min ISR: an ELR that is no longer needed goes, in the same entry.
pub(super) fn on_min_isr_changed(
    before: &MetadataImage,
    after: &MetadataImage,
    rules: &dyn ConfigRules,
) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    for topic in after.topics() {
        let replicas = topic.partitions.iter().map(|partition| partition.replicas.len()).max().unwrap_or(1);
        let has_elr = topic.partitions.iter().any(|p| !p.elr.is_empty() || !p.last_known_elr.is_empty());
        let min_isr = |image| rules.min_insync_replicas(image, &topic.name, replicas);
        if !has_elr || min_isr(before) == min_isr(after) {
            continue;
        }
        for (index, partition) in (0..).map(PartitionIndex).zip(&topic.partitions) {
            let change = ChangePlan::new(after, rules, topic, index, partition).finish();
            records.extend(change.map(MetadataRecord::PartitionChange));
        }
    }
    records
}
