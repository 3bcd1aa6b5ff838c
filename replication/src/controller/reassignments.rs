//! Moving partitions to other brokers (KIP-455), with more or fewer replicas if asked (KIP-860).
//!
//! While a reassignment is in progress the replicas are the targets, in their order, then those being removed. It is
//! complete in the change that brings the last target in sync ([`super::change`]); in that change the min ISR begins to
//! count the new replicas. Asking again replaces the targets; asking for none goes back to the replicas as they were.

use std::sync::Arc;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, PartitionIndex};

use super::change::{ChangePlan, Layout};
use super::partitions::check_assignment;
use super::placement::{self, DirectoryLoad};
use super::request::{AlterReassignments, NewReplicas};
use super::response::{ControllerResponse, ReassignmentResult};
use super::{Decision, Inputs, RECORDS_PER_REQUEST_MAX, Reject};
use crate::metadata::record::PartitionChange;
use crate::metadata::{ConfigResource, ConfigValues, MetadataImage, MetadataRecord, PartitionRegistration, TopicImage};

/// The replicas of an internal topic once there are as many brokers.
const INTERNAL_REPLICAS: usize = 3;

pub(super) fn decide_alter(
    image: &MetadataImage,
    request: &AlterReassignments,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    if request.partitions.len() > RECORDS_PER_REQUEST_MAX {
        return Err(Reject::new(ErrorCode::PolicyViolation, "Unable to perform excessively large batch operation."));
    }
    let mut load = DirectoryLoad::of(image);
    let mut seen = std::collections::BTreeSet::new();
    let mut records = Vec::new();
    let mut results = Vec::new();
    for wish in &request.partitions {
        let result = if seen.insert((wish.topic.as_str(), wish.partition)) {
            alter_one(image, wish, request.allow_replication_factor_change, &mut load, inputs)
        } else {
            Err(Reject::new(ErrorCode::InvalidRequest, "The partition is named more than once."))
        };
        let result = result.map(|(change, warnings)| {
            records.extend(change.map(MetadataRecord::PartitionChange));
            warnings
        });
        results.push(ReassignmentResult { topic: wish.topic.clone(), partition: wish.partition, result });
    }
    Ok(Decision::new(records, ControllerResponse::AlterReassignments(results)))
}

type Altered = (Option<PartitionChange>, Vec<String>);

fn alter_one(
    image: &MetadataImage,
    wish: &NewReplicas,
    allow_replication_factor_change: bool,
    load: &mut DirectoryLoad,
    inputs: &Inputs<'_>,
) -> Result<Altered, Reject> {
    let topic = image.topic_by_name(&wish.topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = topic.partition(wish.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let settled: Vec<BrokerId> = partition.settled_replicas().collect();
    let Some(targets) = &wish.replicas else {
        if !partition.is_reassigning() {
            return Err(ErrorCode::NoReassignmentInProgress.into());
        }
        let layout = layout(image, partition, &settled, &settled, load);
        return Ok((moved(image, inputs, topic, wish.partition, partition, layout)?, Vec::new()));
    };
    check_assignment(image, targets, None)?;
    let count = targets.len();
    if count != settled.len() && !allow_replication_factor_change {
        let message = format!(
            "The replication factor is changed from {} to {count}, which the request does not allow.",
            settled.len()
        );
        return Err(Reject::new(ErrorCode::InvalidReplicationFactor, message));
    }
    let none = ConfigValues::new();
    let overrides = image.topic_config(&topic.name).map_or(&none, |values| values);
    let warnings = inputs.rules.judge(image, &ConfigResource::Topic(topic.name.clone()), overrides, Some(count))?;
    let layout = layout(image, partition, &settled, targets, load);
    Ok((moved(image, inputs, topic, wish.partition, partition, layout)?, warnings))
}

/// From the replicas as they were to the targets.
fn layout(
    image: &MetadataImage,
    partition: &PartitionRegistration,
    settled: &[BrokerId],
    targets: &[BrokerId],
    load: &mut DirectoryLoad,
) -> Layout {
    let removing: Vec<BrokerId> = settled.iter().copied().filter(|broker| !targets.contains(broker)).collect();
    let adding: Vec<BrokerId> = targets.iter().copied().filter(|broker| !settled.contains(broker)).collect();
    let replicas: Vec<BrokerId> = targets.iter().chain(&removing).copied().collect();
    let mut directory = |broker: &BrokerId| {
        let known = partition.directory_of(*broker);
        known.unwrap_or_else(|| load.place(image.broker(*broker).map(|registration| &**registration)))
    };
    Layout { directories: replicas.iter().map(&mut directory).collect(), replicas, adding, removing }
}

fn moved(
    image: &MetadataImage,
    inputs: &Inputs<'_>,
    topic: &Arc<TopicImage>,
    index: PartitionIndex,
    partition: &PartitionRegistration,
    layout: Layout,
) -> Result<Option<PartitionChange>, Reject> {
    let stays = |broker: &BrokerId| layout.replicas.contains(broker);
    let members = || partition.isr.iter().chain(&partition.elr);
    if members().next().is_some() && !members().any(stays) {
        let message = format!(
            "{}-{index} would be left without a replica that has all its records; wait until another one is in sync",
            topic.name
        );
        return Err(Reject::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    if partition.leader.is_some() && !partition.isr.iter().any(stays) {
        let message = format!("{}-{index} would be left without an in-sync replica", topic.name);
        return Err(Reject::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    Ok(ChangePlan::new(image, inputs.rules, topic, index, partition).layout(layout).finish())
}

/// Internal topics with a single replica get three, in one step, when a third broker is up.
pub(super) fn decide_raise_internal(image: &MetadataImage, inputs: &Inputs<'_>) -> Result<Decision, Reject> {
    let active = image.brokers().filter(|broker| broker.is_active()).count();
    let mut records = Vec::new();
    let mut raised = Vec::new();
    if active < INTERNAL_REPLICAS {
        return Ok(Decision::new(records, ControllerResponse::RaiseInternalTopics(raised)));
    }
    let mut load = DirectoryLoad::of(image);
    for topic in image.topics().filter(|topic| topic.internal) {
        let is_single = |partition: &Arc<PartitionRegistration>| {
            partition.replicas.len() == 1 && !partition.is_reassigning() && partition.leader.is_some()
        };
        let fits = records.len() + topic.partitions.len() <= RECORDS_PER_REQUEST_MAX;
        if topic.partitions.is_empty() || !topic.partitions.iter().all(is_single) || !fits {
            continue;
        }
        let placed = placement::place(image, 0, topic.partitions.len(), image.brokers().len(), inputs.seed)?;
        for ((index, partition), spread) in (0..).map(PartitionIndex).zip(&topic.partitions).zip(placed) {
            let mut targets = partition.replicas.clone();
            let others = spread.into_iter().filter(|broker| image.is_active(*broker) && *broker != targets[0]);
            let others: Vec<BrokerId> = others.take(INTERNAL_REPLICAS - 1).collect();
            targets.extend(others);
            let layout = layout(image, partition, &partition.replicas, &targets, &mut load);
            let change = moved(image, inputs, topic, index, partition, layout)?;
            records.extend(change.map(MetadataRecord::PartitionChange));
        }
        raised.push(topic.name.to_string());
    }
    Ok(Decision::new(records, ControllerResponse::RaiseInternalTopics(raised)))
}
