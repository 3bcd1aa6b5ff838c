//! Accepting a loss: a person has a partition led by a replica that may lack acknowledged records (`accept-loss`).
//!
//! The only way a strict partition is ever led by anybody outside ISR and ELR. It is done for one partition at a time,
//! names the replica, and leaves a record that stays in the image. What is accepted is what was shown: a partition that
//! has changed since is refused.

use std::sync::Arc;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::own::PartitionShown;
use stonelog_protocol::{BrokerId, TopicPartition};

use super::request::AcceptLoss;
use super::response::ControllerResponse;
use super::{Decision, Inputs, Reject};
use crate::metadata::apply::next_leader_epoch;
use crate::metadata::record::{LossAccepted, PartitionChange};
use crate::metadata::{
    BrokerRegistration, MetadataImage, MetadataRecord, PartitionRegistration, RecoveryState, TopicImage, Verdict,
};

/// Members that have registered with the directory of their replica, are not unfenced yet, and may lead when they are.
pub(super) fn starting_instead<'a>(
    image: &'a MetadataImage,
    request: &AcceptLoss,
) -> impl Iterator<Item = BrokerId> + use<'a> {
    let (replica, index) = (request.replica, request.partition);
    let found = image.topic_by_name(&request.topic).and_then(|topic| Some((topic, topic.partition(index)?)));
    let of = move |(topic, partition): (&'a Arc<TopicImage>, &'a Arc<PartitionRegistration>)| {
        let key = TopicPartition { topic_id: topic.id, partition: index };
        let is_starting = move |broker: &BrokerId| {
            let holds = |broker: &BrokerRegistration| {
                let verdict = partition.directory_of(broker.id).and_then(|home| broker.verdict(key, home));
                matches!(verdict, Some(Verdict::Proved | Verdict::Cut))
            };
            *broker != replica && image.broker(*broker).is_some_and(|broker| broker.is_starting() && holds(broker))
        };
        partition.isr.iter().chain(&partition.elr).copied().filter(is_starting)
    };
    found.into_iter().flat_map(of)
}

pub(super) fn decide_accept(
    image: &MetadataImage,
    request: &AcceptLoss,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    let topic = image.topic_by_name(&request.topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = topic.partition(request.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let name = format!("{}-{}", request.topic, request.partition);
    if let Some(leader) = partition.leader.filter(|_| image.is_led(partition)) {
        let message = format!("{name} is led by broker {leader}: there is no loss to accept");
        return Err(Reject::new(ErrorCode::ElectionNotNeeded, message));
    }
    let now = PartitionShown {
        topic_id: topic.id,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
    };
    if now != request.shown {
        let message = format!("{name} has changed since it was looked at, and so may what is lost: look again");
        return Err(Reject::new(ErrorCode::InvalidUpdateVersion, message));
    }
    let Some(directory) = partition.directory_of(request.replica) else {
        let message = format!("broker {} holds no replica of {name}", request.replica);
        return Err(Reject::new(ErrorCode::InvalidReplicaAssignment, message));
    };
    let is_there = image.broker(request.replica).is_some_and(|b| b.is_active() && b.has_directory(directory));
    if !is_there {
        let message = format!("the replica of {name} on broker {} is not online", request.replica);
        return Err(Reject::new(ErrorCode::ReplicaNotAvailable, message));
    }
    if let Some(starting) = starting_instead(image, request).next()
        && !inputs.previous_is_gone
        && !off!(StartingIsAlive)
    {
        let message = format!(
            "broker {starting} is starting and may lead {name} with what it holds: accept the loss when it has not, or \
             when it has been silent for broker.session.timeout.ms"
        );
        return Err(Reject::new(ErrorCode::EligibleLeadersNotAvailable, message));
    }
    let members = partition.isr.iter().chain(&partition.elr).chain(&partition.last_known_elr);
    let mut instead_of: Vec<BrokerId> = members.copied().filter(|member| *member != request.replica).collect();
    instead_of.sort();
    instead_of.dedup();
    let key = TopicPartition { topic_id: topic.id, partition: request.partition };
    let accepted = LossAccepted {
        partition: key,
        replica: request.replica,
        instead_of,
        at: inputs.now,
        leader_epoch: next_leader_epoch(partition.leader_epoch),
    };
    let mut change = PartitionChange::of(topic.id, request.partition);
    change.leader = Some(Some(request.replica));
    change.isr = Some(vec![request.replica]);
    change.elr = (!partition.elr.is_empty()).then(Vec::new);
    change.last_known_elr = (!partition.last_known_elr.is_empty()).then(Vec::new);
    change.cut = (!partition.cut.is_empty()).then(Vec::new);
    change.left_strict = partition.left_strict.map(|_| None);
    change.recovering = Some(RecoveryState::Recovering);
    let records = vec![MetadataRecord::LossAccepted(accepted.clone()), MetadataRecord::PartitionChange(change)];
    Ok(Decision::new(records, ControllerResponse::AcceptLoss(accepted)))
}
