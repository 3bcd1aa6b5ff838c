//! New partitions: of a new topic, and added to an existing one.

use std::collections::HashSet;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex};

use super::placement::DirectoryLoad;
use super::request::{CreatePartitions, NewPartitions};
use super::response::{ControllerResponse, PartitionsResult};
use super::topics::duplicates;
use super::{Decision, Inputs, PARTITIONS_PER_REQUEST_MAX, Reject, placement};
use crate::metadata::record::PartitionRecord;
use crate::metadata::{MetadataImage, MetadataRecord, PartitionRegistration, RecoveryState};

pub(super) fn decide_create(
    image: &MetadataImage,
    request: &CreatePartitions,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    let duplicates = duplicates(request.topics.iter().map(|topic| topic.topic.as_str()));
    let mut load = DirectoryLoad::of(image);
    let mut refused = HashSet::new();
    let mut records = Vec::new();
    let mut results: Vec<PartitionsResult> = Vec::new();
    for topic in &request.topics {
        let is_duplicate = duplicates.contains(topic.topic.as_str());
        if is_duplicate && !refused.insert(topic.topic.as_str()) {
            continue;
        }
        let added = if is_duplicate {
            Err(Reject::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else {
            add_to(image, topic, PARTITIONS_PER_REQUEST_MAX - records.len(), &mut load, inputs)
        };
        let result = added.map(|added| records.extend(added));
        results.push(PartitionsResult { topic: topic.topic.clone(), result });
    }
    if request.validate_only {
        records.clear();
    }
    Ok(Decision::new(records, ControllerResponse::CreatePartitions(results)))
}

fn add_to(
    image: &MetadataImage,
    request: &NewPartitions,
    room: usize,
    load: &mut DirectoryLoad,
    inputs: &Inputs<'_>,
) -> Result<Vec<MetadataRecord>, Reject> {
    let topic = image.topic_by_name(&request.topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let present = topic.partitions.len();
    let wanted = usize::try_from(request.count).unwrap_or(0);
    let refused = |message| Err(Reject::new(ErrorCode::InvalidPartitions, message));
    if wanted == present {
        return refused(format!("Topic already has {present} partition(s)."));
    }
    if wanted < present {
        return refused(format!(
            "The topic {} currently has {present} partition(s); {} would not be an increase.",
            request.topic, request.count
        ));
    }
    let additional = wanted - present;
    if let Some(assignments) = &request.assignments
        && assignments.len() != additional
    {
        return Err(Reject::new(
            ErrorCode::InvalidReplicaAssignment,
            format!(
                "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            ),
        ));
    }
    if additional > room {
        return Err(Reject::new(
            ErrorCode::PolicyViolation,
            format!("Excessively large number of partitions per request, at most {PARTITIONS_PER_REQUEST_MAX}."),
        ));
    }
    let replication_factor = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
    let assignments = match &request.assignments {
        None => placement::place(image, present, additional, replication_factor, inputs.seed)?,
        Some(assignments) => {
            for (place, replicas) in assignments.iter().enumerate() {
                check_assignment(image, replicas, Some(replication_factor))?;
                if !replicas.iter().any(|broker| image.is_active(*broker)) {
                    return Err(Reject::new(
                        ErrorCode::InvalidReplicaAssignment,
                        format!(
                            "All brokers specified in the manual partition assignment for partition {} are fenced or \
                             in controlled shutdown.",
                            present + place
                        ),
                    ));
                }
            }
            assignments.clone()
        }
    };
    let first = i32::try_from(present).expect("partition indexes are 32 bits");
    (first..)
        .map(PartitionIndex)
        .zip(assignments)
        .map(|(index, replicas)| {
            let registration = new_partition(image, replicas, load)?;
            Ok(MetadataRecord::Partition(PartitionRecord { topic_id: topic.id, index, registration }))
        })
        .collect()
}

/// Refuses an assignment that names a broker twice, an unknown one, nobody, or another number than the others.
pub(super) fn check_assignment(
    image: &MetadataImage,
    replicas: &[BrokerId],
    replication_factor: Option<usize>,
) -> Result<(), Reject> {
    let refused = |message: String| Err(Reject::new(ErrorCode::InvalidReplicaAssignment, message));
    if replicas.is_empty() {
        return refused("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut sorted = replicas.to_vec();
    sorted.sort();
    for (place, broker) in sorted.iter().enumerate() {
        if image.broker(*broker).is_none() {
            return refused(format!(
                "The manual partition assignment includes broker {broker}, but no such broker is registered."
            ));
        }
        if place > 0 && sorted[place - 1] == *broker {
            return refused(format!("The manual partition assignment includes the broker {broker} more than once."));
        }
    }
    match replication_factor {
        Some(expected) if expected != replicas.len() => refused(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with \
             previous partitions, which have {expected} replica(s).",
            replicas.len()
        )),
        _ => Ok(()),
    }
}

/// A partition as it begins: everybody who is active is in sync, for there is nothing yet; the first of them leads.
pub(super) fn new_partition(
    image: &MetadataImage,
    replicas: Vec<BrokerId>,
    load: &mut DirectoryLoad,
) -> Result<PartitionRegistration, Reject> {
    // Without a directory online a broker has nowhere to put it yet.
    let has_room =
        |broker: &BrokerId| image.broker(*broker).is_some_and(|b| b.is_active() && !b.directories.is_empty());
    let isr: Vec<BrokerId> = replicas.iter().copied().filter(has_room).collect();
    let Some(leader) = isr.first().copied() else {
        return Err(Reject::new(
            ErrorCode::InvalidReplicationFactor,
            format!(
                "Unable to replicate the partition {} time(s): All brokers are currently fenced or in controlled \
                 shutdown.",
                replicas.len()
            ),
        ));
    };
    let directory = |broker: &BrokerId| load.place(image.broker(*broker).map(|b| &**b));
    Ok(PartitionRegistration {
        directories: replicas.iter().map(directory).collect(),
        replicas,
        isr,
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        adding: Vec::new(),
        removing: Vec::new(),
        leader: Some(leader),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
        recovering: RecoveryState::Recovered,
        cut: Vec::new(),
        left_strict: None,
    })
}
