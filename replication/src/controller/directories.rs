//! Which of a broker's directories a replica lies in (KIP-858's `AssignReplicasToDirs`, rule 12).
//!
//! Membership of ISR and ELR means (broker, directory). Another directory therefore begins empty: the replica leaves both
//! in the same entry, which happens only where another member can lead.

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, DirectoryId, TopicPartition};

use super::brokers::check_epoch;
use super::change::{ChangePlan, Layout};
use super::request::AssignReplicas;
use super::response::{AssignedReplica, ControllerResponse};
use super::{Decision, Inputs, RECORDS_PER_REQUEST_MAX, Reject};
use crate::metadata::record::PartitionChange;
use crate::metadata::{BrokerRegistration, MetadataImage, MetadataRecord, PartitionRegistration};

pub(super) fn decide_assign(
    image: &MetadataImage,
    request: &AssignReplicas,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    let broker = check_epoch(image, request.broker, request.broker_epoch)?;
    if request.replicas.len() > RECORDS_PER_REQUEST_MAX {
        return Err(Reject::new(ErrorCode::PolicyViolation, "Unable to perform excessively large batch operation."));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut records = Vec::new();
    let mut results = Vec::new();
    for (partition, directory) in &request.replicas {
        let result = match seen.insert(*partition) {
            true => assign_one(image, broker, *partition, *directory, inputs),
            false => Err(Reject::new(ErrorCode::InvalidRequest, "The replica is named more than once.")),
        };
        let result = result.map(|change| records.extend(change.map(MetadataRecord::PartitionChange)));
        results.push(AssignedReplica { partition: *partition, directory: *directory, result });
    }
    Ok(Decision::new(records, ControllerResponse::AssignReplicas(results)))
}

fn assign_one(
    image: &MetadataImage,
    broker: &BrokerRegistration,
    key: TopicPartition,
    directory: DirectoryId,
    inputs: &Inputs<'_>,
) -> Result<Option<PartitionChange>, Reject> {
    let topic = image.topic_by_id(key.topic_id).ok_or(ErrorCode::UnknownTopicId)?;
    let partition = topic.partition(key.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let name = format!("{}-{}", topic.name, key.partition);
    let Some(place) = partition.replicas.iter().position(|replica| *replica == broker.id) else {
        let message = format!("broker {} holds no replica of {name}", broker.id);
        return Err(Reject::new(ErrorCode::NotLeaderOrFollower, message));
    };
    if !broker.has_directory(directory) {
        let message = format!("broker {} has no directory {directory} online", broker.id);
        return Err(Reject::new(ErrorCode::InvalidRequest, message));
    }
    let old = partition.directories[place];
    if old == directory {
        return Ok(None);
    }
    let mut layout = Layout::of(partition);
    layout.directories[place] = directory;
    let is_member = partition.isr.contains(&broker.id) || partition.elr.contains(&broker.id);
    let plan = ChangePlan::new(image, inputs.rules, topic, key.partition, partition).layout(layout);
    // A replica that was nowhere yet is told where it is.
    if !is_member {
        return Ok(plan.finish());
    }
    if !another_can_lead(image, partition, broker.id) {
        let message = format!(
            "{name} lies in directory {old} of broker {} and nowhere else where it could be led from: it is not given \
             up for an empty one",
            broker.id
        );
        return Err(Reject::new(ErrorCode::IneligibleReplica, message));
    }
    Ok(plan.lost(broker.id).finish())
}

/// Whether a member other than this one can lead now.
fn another_can_lead(image: &MetadataImage, partition: &PartitionRegistration, not: BrokerId) -> bool {
    let is_online = |member: &BrokerId| {
        let directory = partition.directory_of(*member);
        image.broker(*member).is_some_and(|b| b.is_active() && directory.is_some_and(|id| b.has_directory(id)))
    };
    let whole = partition.elr.iter().filter(|member| !partition.cut.contains(member));
    partition.isr.iter().chain(whole).any(|member| *member != not && is_online(member))
}
