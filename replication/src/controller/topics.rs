//! Creating and deleting topics.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, PartitionIndex, TopicId};

use super::partitions::{check_assignment, new_partition};
use super::placement::DirectoryLoad;
use super::request::{CreateTopics, DeleteTopics, NewTopic, TopicReference};
use super::response::{ControllerResponse, CreatedTopic, DeletedTopic, TopicResult};
use super::topic_name::{CLUSTER_METADATA_TOPIC, refuse_collision, validate_topic_name};
use super::{
    Decision, Inputs, PARTITIONS_PER_REQUEST_MAX, RECORDS_PER_REQUEST_MAX, Reject, apply_all, placement, waiting,
};
use crate::metadata::record::{ConfigRecord, PartitionRecord, TopicRecord};
use crate::metadata::{ConfigResource, ConfigValues, MetadataImage, MetadataRecord};

pub(super) fn decide_create(
    image: &MetadataImage,
    request: &CreateTopics,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    assert!(inputs.topic_ids.len() >= request.topics.len(), "a fresh id for every topic");
    refuse_excess(request, inputs)?;
    let duplicates = duplicates(request.topics.iter().map(|topic| topic.name.as_str()));
    let mut refused = HashSet::new();
    let mut scratch = image.clone();
    let mut load = DirectoryLoad::of(image);
    let mut records = Vec::new();
    let mut results = Vec::new();
    for (topic, id) in request.topics.iter().zip(inputs.topic_ids) {
        let is_duplicate = duplicates.contains(topic.name.as_str());
        // A name asked for twice is answered once.
        if is_duplicate && !refused.insert(topic.name.as_str()) {
            continue;
        }
        let result = if is_duplicate {
            Err(Reject::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else {
            create_one(&scratch, topic, *id, &mut load, inputs)
        };
        let result = result.map(|(created, made)| {
            apply_all(&mut scratch, inputs.next_index, &made).expect("a new topic fits the image it was decided on");
            records.extend(made);
            created
        });
        results.push(TopicResult { name: topic.name.clone(), result });
    }
    let others = records.iter().filter(|record| !matches!(record, MetadataRecord::Partition(_))).count();
    if others > RECORDS_PER_REQUEST_MAX {
        return Err(Reject::new(ErrorCode::PolicyViolation, "Unable to perform excessively large batch operation."));
    }
    if request.validate_only {
        records.clear();
    }
    Ok(Decision::new(records, ControllerResponse::CreateTopics(results)))
}

fn refuse_excess(request: &CreateTopics, inputs: &Inputs<'_>) -> Result<(), Reject> {
    let count = |topic: &NewTopic| match topic.partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len(),
        -1 => usize::try_from(inputs.defaults.partitions).unwrap_or(1),
        // One that is refused costs about as much as a partition.
        asked => usize::try_from(asked).unwrap_or(0).max(1),
    };
    let total = request.topics.iter().map(count).fold(0usize, usize::saturating_add);
    if total > PARTITIONS_PER_REQUEST_MAX {
        return Err(Reject::new(
            ErrorCode::PolicyViolation,
            format!(
                "Excessively large number of partitions per request: {total}, at most {PARTITIONS_PER_REQUEST_MAX}."
            ),
        ));
    }
    Ok(())
}

/// What occurs more than once.
pub(super) fn duplicates<'a, T: Eq + Hash + ?Sized>(all: impl Iterator<Item = &'a T>) -> HashSet<&'a T> {
    let mut seen = HashSet::new();
    all.filter(|one| !seen.insert(*one)).collect()
}

fn create_one(
    image: &MetadataImage,
    topic: &NewTopic,
    id: TopicId,
    load: &mut DirectoryLoad,
    inputs: &Inputs<'_>,
) -> Result<(CreatedTopic, Vec<MetadataRecord>), Reject> {
    if topic.name == CLUSTER_METADATA_TOPIC {
        let message = format!("Creation of internal topic {CLUSTER_METADATA_TOPIC} is prohibited.");
        return Err(Reject::new(ErrorCode::InvalidRequest, message));
    }
    validate_topic_name(&topic.name)?;
    if image.topic_by_name(&topic.name).is_some() {
        return Err(Reject::new(ErrorCode::TopicAlreadyExists, format!("Topic '{}' already exists.", topic.name)));
    }
    refuse_collision(image, &topic.name)?;
    let configs = overrides(topic)?;
    let assignments = if topic.assignments.is_empty() {
        automatic_assignments(image, topic, id, inputs)?
    } else {
        manual_assignments(image, topic)?
    };
    let replication_factor = assignments.first().map_or(0, Vec::len);
    let name: Arc<str> = Arc::from(topic.name.as_str());
    let resource = ConfigResource::Topic(name.clone());
    let warnings = inputs.rules.judge(image, &resource, &configs, Some(replication_factor))?;
    let mut records = vec![MetadataRecord::Topic(TopicRecord { id, name })];
    records.extend(configs.iter().map(|(key, value)| {
        MetadataRecord::Config(ConfigRecord {
            resource: resource.clone(),
            key: key.clone(),
            value: Some(value.clone()),
        })
    }));
    for (index, replicas) in (0..).map(PartitionIndex).zip(assignments) {
        let registration = new_partition(image, replicas, load)?;
        records.push(MetadataRecord::Partition(PartitionRecord { topic_id: id, index, registration }));
    }
    let partitions = records.iter().filter(|record| matches!(record, MetadataRecord::Partition(_))).count();
    let created = CreatedTopic {
        id,
        partitions: i32::try_from(partitions).expect("partitions per request are bounded"),
        replication_factor: i16::try_from(replication_factor).expect("a replication factor is at most an i16"),
        configs,
        warnings,
    };
    Ok((created, records))
}

fn overrides(topic: &NewTopic) -> Result<ConfigValues, Reject> {
    let without_value: BTreeSet<&str> =
        topic.configs.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key.as_str()).collect();
    if !without_value.is_empty() {
        let keys = without_value.into_iter().collect::<Vec<_>>().join(",");
        let message = format!("Null value not supported for topic configs: {keys}");
        return Err(Reject::new(ErrorCode::InvalidConfig, message));
    }
    let values = topic.configs.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
    Ok(values.collect())
}

fn automatic_assignments(
    image: &MetadataImage,
    topic: &NewTopic,
    id: TopicId,
    inputs: &Inputs<'_>,
) -> Result<Vec<Vec<BrokerId>>, Reject> {
    if topic.replication_factor < -1 || topic.replication_factor == 0 {
        let message = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err(Reject::new(ErrorCode::InvalidReplicationFactor, message));
    }
    if topic.partitions < -1 || topic.partitions == 0 {
        let message = "Number of partitions was set to an invalid non-positive value.";
        return Err(Reject::new(ErrorCode::InvalidPartitions, message));
    }
    let partitions = if topic.partitions == -1 { inputs.defaults.partitions } else { topic.partitions };
    let partitions = usize::try_from(partitions).expect("num.partitions is at least 1");
    let replication_factor = match topic.replication_factor {
        -1 => waiting::default_factor(image, inputs.defaults, inputs.brokers_to_come),
        asked => usize::try_from(asked).expect("checked above"),
    };
    let spread = u64::from_be_bytes(id.0[8..].try_into().expect("half of 16 bytes"));
    placement::place(image, 0, partitions, replication_factor, inputs.seed ^ spread)
}

fn manual_assignments(image: &MetadataImage, topic: &NewTopic) -> Result<Vec<Vec<BrokerId>>, Reject> {
    let refused = |message: String| Reject::new(ErrorCode::InvalidReplicaAssignment, message);
    if topic.replication_factor != -1 {
        let message = "A manual partition assignment was specified, but replication factor was not set to -1.";
        return Err(Reject::new(ErrorCode::InvalidRequest, message));
    }
    if topic.partitions != -1 {
        let message = "A manual partition assignment was specified, but numPartitions was not set to -1.";
        return Err(Reject::new(ErrorCode::InvalidRequest, message));
    }
    let mut by_index = BTreeMap::new();
    let mut replication_factor = None;
    for (index, replicas) in &topic.assignments {
        check_assignment(image, replicas, replication_factor)?;
        replication_factor = Some(replicas.len());
        if by_index.insert(*index, replicas.clone()).is_some() {
            return Err(refused(format!("Found multiple manual partition assignments for partition {index}")));
        }
        if !replicas.iter().any(|broker| image.is_active(*broker)) {
            return Err(refused(format!(
                "All brokers specified in the manual partition assignment for partition {index} are fenced or in \
                 controlled shutdown."
            )));
        }
    }
    if !by_index.keys().zip(0..).all(|(index, expected)| index.0 == expected) {
        return Err(refused("partitions should be a consecutive 0-based integer sequence".to_owned()));
    }
    Ok(by_index.into_values().collect())
}

pub(super) fn decide_delete(image: &MetadataImage, request: &DeleteTopics) -> Result<Decision, Reject> {
    let mut deleted: HashSet<TopicId> = HashSet::new();
    let duplicates = duplicates(request.topics.iter());
    let mut refused = HashSet::new();
    let mut records = Vec::new();
    let mut results = Vec::new();
    for reference in &request.topics {
        let is_duplicate = duplicates.contains(reference);
        if is_duplicate && !refused.insert(reference) {
            continue;
        }
        let mut outcome = resolve(image, reference);
        if is_duplicate {
            let what = match reference {
                TopicReference::Name(_) => "Duplicate topic name.",
                TopicReference::Id(_) => "Duplicate topic id.",
            };
            outcome.result = Err(Reject::new(ErrorCode::InvalidRequest, what));
        }
        if let (Ok(()), Some(id)) = (&outcome.result, outcome.id) {
            if deleted.insert(id) {
                records.push(MetadataRecord::RemoveTopic(id));
            } else {
                let message = "The provided topic name maps to an ID that was already supplied.";
                outcome.result = Err(Reject::new(ErrorCode::InvalidRequest, message));
            }
        }
        results.push(outcome);
    }
    if records.len() > RECORDS_PER_REQUEST_MAX {
        return Err(Reject::new(ErrorCode::PolicyViolation, "Unable to perform excessively large batch operation."));
    }
    Ok(Decision::new(records, ControllerResponse::DeleteTopics(results)))
}

fn resolve(image: &MetadataImage, reference: &TopicReference) -> DeletedTopic {
    let (found, missing, name, id) = match reference {
        TopicReference::Name(name) => {
            (image.topic_by_name(name), ErrorCode::UnknownTopicOrPartition, Some(name.clone()), None)
        }
        TopicReference::Id(id) => (image.topic_by_id(*id), ErrorCode::UnknownTopicId, None, Some(*id)),
    };
    match found {
        Some(topic) => DeletedTopic { name: Some(topic.name.to_string()), id: Some(topic.id), result: Ok(()) },
        None => DeletedTopic { name, id, result: Err(missing.into()) },
    }
}
