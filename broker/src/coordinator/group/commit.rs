//! OffsetCommit: a group says how far it has read.
//!
//! *Behaviour.* Who may commit depends on where the group stands (`ClassicGroup.validateOffsetCommit`):
//!
//! | committer | Empty, or no group | PreparingRebalance | CompletingRebalance | Stable |
//! |---|---|---|---|---|
//! | member of the present generation | – | accepted | REBALANCE_IN_PROGRESS | accepted |
//! | member of an older generation | – | ILLEGAL_GENERATION | ILLEGAL_GENERATION | ILLEGAL_GENERATION |
//! | not a member any more | UNKNOWN_MEMBER_ID | UNKNOWN_MEMBER_ID | UNKNOWN_MEMBER_ID | UNKNOWN_MEMBER_ID |
//! | nobody (generation below 0) | accepted | UNKNOWN_MEMBER_ID | UNKNOWN_MEMBER_ID | UNKNOWN_MEMBER_ID |
//!
//! A commit that names a generation of a group that does not exist is GROUP_ID_NOT_FOUND, or ILLEGAL_GENERATION before
//! version 9. A member's commit counts as a sign of life.
//!
//! *Versions.* 2 to 4 may name a retention time, which is kept as an expiry of these offsets alone. 7: instance ids.

use std::sync::Arc;

use stonelog_protocol::ErrorCode;

use super::live::State;
use super::message::{CommitPartition, CommitRequest, CommitTopic, PerPartition, Response};
use super::{Decision, Groups, Now, Ticket};
use crate::coordinator::record::{CommittedOffset, Record, TEXT_BYTES_MAX};

impl Groups {
    /// Decides an OffsetCommit.
    pub fn decide_commit(&mut self, request: CommitRequest, ticket: Ticket, now: Now) -> Decision {
        if let Err(error) = self.may_commit(&request) {
            return Decision::answer(ticket, Response::Commit(PerPartition::refused(error)));
        }
        if let Some(mut turn) = self.turn(&request.group, now)
            && matches!(turn.group.state, State::Stable | State::PreparingRebalance)
        {
            turn.reset_session(&request.member_id);
        }
        let mut records = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let partitions = topic.partitions.iter().map(|partition| {
                let answer = self.commit_record(&request, topic, partition, now);
                let error = answer.as_ref().err().copied().unwrap_or(ErrorCode::None);
                records.extend(answer.ok());
                (partition.partition, error)
            });
            topics.push((topic.name.clone(), partitions.collect()));
        }
        let response = Response::Commit(PerPartition { error: ErrorCode::None, topics });
        Decision { records, ..Decision::answer(ticket, response) }
    }

    fn may_commit(&self, request: &CommitRequest) -> Result<(), ErrorCode> {
        let is_nobody = request.generation < 0;
        let Some(state) = self.state(&request.group) else {
            return match (is_nobody, request.knows_group_id_not_found) {
                (true, _) => Ok(()),
                (false, true) => Err(ErrorCode::GroupIdNotFound),
                (false, false) => Err(ErrorCode::IllegalGeneration),
            };
        };
        if is_nobody && state == State::Empty {
            return Ok(());
        }
        if is_nobody && request.member_id.is_empty() && request.instance_id.is_none() {
            // Two applications share a group id, one by subscribe() and one by assign(): the members own the offsets.
            return Err(ErrorCode::UnknownMemberId);
        }
        let live = self.live.get(&request.group).ok_or(ErrorCode::UnknownMemberId)?;
        live.validate_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation != live.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if state == State::CompletingRebalance {
            // It has joined this generation, but cannot have read anything in it yet.
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    fn commit_record(
        &self,
        request: &CommitRequest,
        topic: &CommitTopic,
        partition: &CommitPartition,
        now: Now,
    ) -> Result<Record, ErrorCode> {
        let metadata = partition.metadata.clone().unwrap_or_else(|| Arc::from(""));
        if metadata.len() > self.config.offset_metadata_bytes_max.min(TEXT_BYTES_MAX) {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        if topic.name.len() > TEXT_BYTES_MAX {
            return Err(ErrorCode::UnknownTopicOrPartition);
        }
        let value = CommittedOffset {
            offset: partition.offset,
            leader_epoch: partition.leader_epoch,
            metadata,
            commit_timestamp: now.wall,
            expire_timestamp: super::message::expire_timestamp(request.retention_ms, now.wall),
            topic_id: topic.topic_id,
        };
        Ok(Record::Offset {
            group: request.group.clone(),
            topic: topic.name.clone(),
            partition: partition.partition,
            value: Some(value.storable()),
        })
    }
}
