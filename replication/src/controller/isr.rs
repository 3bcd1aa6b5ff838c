//! Changes of in-sync sets, asked for by leaders (AlterPartition: KIP-497, KIP-841, KIP-903).
//!
//! The partition epoch makes each change a compare-and-set, so retries and late duplicates are harmless. The order of
//! the checks is Kafka's: it decides whether a leader retries, waits for metadata, or steps down.

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, TopicPartition};

use super::brokers::check_epoch;
use super::change::ChangePlan;
use super::request::{AlterPartition, InSyncReplica, PartitionIsr};
use super::response::{ControllerResponse, IsrResult, PartitionState};
use super::{Decision, Inputs, Reject, apply_all};
use crate::metadata::record::PartitionChange;
use crate::metadata::{MetadataImage, MetadataRecord, PartitionRegistration, RecoveryState, TopicImage};

pub(super) fn decide_alter(
    image: &MetadataImage,
    request: &AlterPartition,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    check_epoch(image, request.broker, request.broker_epoch)?;
    let mut scratch = image.clone();
    let mut records = Vec::new();
    let mut results = Vec::new();
    for wish in &request.partitions {
        let result = alter_one(&scratch, request.broker, wish, inputs).and_then(|record| {
            apply_all(&mut scratch, inputs.next_index, std::slice::from_ref(&record))
                .expect("a checked change fits the image it was decided on");
            records.push(record);
            let state = state_of(&scratch, wish.partition);
            // It completed a reassignment that takes the leader away: done, and no longer the sender's business.
            match state.leader == Some(request.broker) {
                true => Ok(state),
                false => Err(ErrorCode::NewLeaderElected.into()),
            }
        });
        results.push(IsrResult { partition: wish.partition, result });
    }
    Ok(Decision::new(records, ControllerResponse::AlterPartition(results)))
}

fn alter_one(
    image: &MetadataImage,
    sender: BrokerId,
    wish: &PartitionIsr,
    inputs: &Inputs<'_>,
) -> Result<MetadataRecord, Reject> {
    let topic = image.topic_by_id(wish.partition.topic_id).ok_or(ErrorCode::UnknownTopicId)?;
    let partition = topic.partition(wish.partition.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    check_wish(image, topic, partition, sender, wish)?;
    let isr: Vec<BrokerId> = wish.isr.iter().map(|member| member.broker).collect();
    let plan = || {
        let plan = ChangePlan::new(image, inputs.rules, topic, wish.partition.partition, partition).isr(isr.clone());
        wish.damaged.iter().fold(plan, |plan, broker| plan.damaged(*broker))
    };
    let handed_over = wish.hand_over.then(|| hand_over(plan(), sender, wish)).flatten();
    // Also the set that there is raises the partition epoch: it is how a leader settles what it proposed before and got
    // no good answer to (rule 3).
    let unchanged = || PartitionChange::of(topic.id, wish.partition.partition);
    let mut change = handed_over.or_else(|| plan().finish()).unwrap_or_else(unchanged);
    if wish.recovering != partition.recovering {
        change.recovering = Some(wish.recovering);
    }
    Ok(MetadataRecord::PartitionChange(change))
}

/// Another member leads, and the sender leaves the set: with its place in the ELR if its log is whole. `None` when nobody
/// else can lead: then it stays, for a leader that is slow or damaged is better than none (rule 9).
fn hand_over(plan: ChangePlan<'_>, sender: BrokerId, wish: &PartitionIsr) -> Option<PartitionChange> {
    let is_whole = wish.isr.iter().any(|member| member.broker == sender && member.is_whole) || off!(DamagedLeaves);
    let plan = if is_whole { plan.without(sender) } else { plan.lost(sender) };
    plan.finish().filter(|change| matches!(change.leader, Some(Some(_))))
}

fn check_wish(
    image: &MetadataImage,
    topic: &TopicImage,
    partition: &PartitionRegistration,
    sender: BrokerId,
    wish: &PartitionIsr,
) -> Result<(), Reject> {
    // Somebody knows more than we do: then we are no longer the controller.
    if wish.leader_epoch > partition.leader_epoch || wish.partition_epoch > partition.partition_epoch {
        return Err(ErrorCode::NotController.into());
    }
    if wish.leader_epoch < partition.leader_epoch {
        return Err(ErrorCode::FencedLeaderEpoch.into());
    }
    let invalid = |message: String| Err(Reject::new(ErrorCode::InvalidRequest, message));
    if partition.leader != Some(sender) {
        return invalid(format!("broker {sender} does not lead {}-{}", topic.name, wish.partition.partition));
    }
    if wish.partition_epoch < partition.partition_epoch && !off!(IsrCompareAndSet) {
        return Err(ErrorCode::InvalidUpdateVersion.into());
    }
    for (place, member) in wish.isr.iter().enumerate() {
        if wish.isr[..place].iter().any(|other| other.broker == member.broker) {
            return invalid(format!("broker {} is in the in-sync set twice", member.broker));
        }
        if !partition.replicas.contains(&member.broker) {
            return invalid(format!("broker {} is no replica", member.broker));
        }
    }
    if !wish.isr.iter().any(|member| member.broker == sender) {
        return invalid("the in-sync set lacks its leader".to_owned());
    }
    let is_wished = |broker: &BrokerId| wish.isr.iter().any(|member| member.broker == *broker);
    if let Some(broker) = wish.damaged.iter().find(|broker| is_wished(broker) || !partition.replicas.contains(broker)) {
        return invalid(format!("broker {broker} is in the in-sync set and damaged, or no replica"));
    }
    if wish.recovering == RecoveryState::Recovering {
        if wish.isr.len() > 1 {
            return invalid("a recovering leader is alone in its in-sync set".to_owned());
        }
        if partition.recovering == RecoveryState::Recovered {
            return invalid("a recovered leader does not recover again".to_owned());
        }
    }
    let ineligible: Vec<String> =
        wish.isr.iter().filter_map(|member| why_ineligible(image, partition, member)).collect();
    if !ineligible.is_empty() {
        return Err(Reject::new(ErrorCode::IneligibleReplica, ineligible.join("; ")));
    }
    Ok(())
}

/// Membership means (broker, directory): what another directory of the broker holds, or held, counts for nothing (rule
/// 12).
fn why_ineligible(image: &MetadataImage, partition: &PartitionRegistration, member: &InSyncReplica) -> Option<String> {
    let id = member.broker;
    let home = partition.directory_of(id).expect("a checked member is a replica");
    let Some(broker) = image.broker(id) else { return Some(format!("broker {id} is not registered")) };
    if broker.fenced {
        Some(format!("broker {id} is fenced"))
    } else if broker.in_controlled_shutdown {
        Some(format!("broker {id} is in controlled shutdown"))
    } else if member.epoch.is_some_and(|epoch| epoch != broker.epoch) {
        Some(format!("broker {id} fetched under another registration"))
    } else if member.directory != home && !off!(JoinDirectory) {
        Some(format!("broker {id} fetched into directory {}, and the replica belongs into {home}", member.directory))
    } else if !broker.has_directory(home) && !off!(JoinDirectory) {
        Some(format!("directory {home} of broker {id} is offline"))
    } else if partition.isr.contains(&id) {
        None
    } else if member.epoch.is_none() {
        Some(format!("broker {id} has not been heard by this leader"))
    } else if !member.is_whole && !off!(NowWhole) {
        Some(format!("the log of broker {id} has holes"))
    } else {
        None
    }
}

fn state_of(image: &MetadataImage, partition: TopicPartition) -> PartitionState {
    let registration = image.partition(partition).expect("checked before");
    PartitionState {
        leader: registration.leader,
        leader_epoch: registration.leader_epoch,
        isr: registration.isr.clone(),
        partition_epoch: registration.partition_epoch,
        recovering: registration.recovering,
    }
}
