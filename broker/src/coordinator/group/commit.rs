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

use std::collections::HashSet;
use std::sync::Arc;

use stonelog_protocol::ErrorCode;

use super::config::COMMIT_BYTES_MAX;
use super::live::State;
use super::message::{CommitPartition, CommitRequest, CommitTopic, PerPartition, Response};
use super::names::TEXT_BYTES_MAX;
use super::{Decision, Groups, Now, Ticket};
use crate::coordinator::record::{CommittedOffset, Record};

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
        let records = keep_last(records);
        if records.iter().map(Record::bytes_about).sum::<usize>() > COMMIT_BYTES_MAX {
            return Decision::answer(
                ticket,
                Response::Commit(PerPartition::refused(ErrorCode::InvalidCommitOffsetSize)),
            );
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
            value: Some(value),
        })
    }
}

/// Of the offsets for one partition the last: the request that named it twice says nothing of the earlier one.
fn keep_last(mut records: Vec<Record>) -> Vec<Record> {
    if records.len() < 2 {
        return records;
    }
    let mut seen = HashSet::with_capacity(records.len());
    let is_last: Vec<bool> = (records.iter().rev())
        .map(|record| match record {
            Record::Offset { topic, partition, .. } => seen.insert((topic.clone(), *partition)),
            Record::Group { .. } => true,
        })
        .collect();
    let mut is_last = is_last.into_iter().rev();
    records.retain(|_| is_last.next().unwrap_or(true));
    records
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, Timestamp};

    use super::super::message::{FetchRequest, JoinRequest};
    use super::super::names::MemberId;
    use super::super::testing::{TOPIC_ID, World, commit_request, group, instance, join_request, member};
    use super::*;

    #[test]
    fn of_a_partition_named_twice_the_last_offset_is_committed_and_both_are_answered() {
        let mut world = World::new();
        let mut request = commit_request(-1, &MemberId::unknown(), 3);
        let later = CommitPartition { offset: Offset(4), ..request.topics[0].partitions[0].clone() };
        request.topics[0].partitions.push(later.clone());
        request.topics.push(CommitTopic {
            partitions: vec![CommitPartition { offset: Offset(5), ..later }],
            ..request.topics[0].clone()
        });
        let decision = world.groups.decide_commit(request, Ticket(1), world.now);
        assert_eq!(decision.records.len(), 1);
        let Response::Commit(answer) = &decision.answers[0].response else { panic!("a commit's answer") };
        assert_eq!(answer.topics.iter().map(|(_, partitions)| partitions.len()).collect::<Vec<_>>(), [2, 1]);
        world.groups.on_appended(decision, world.now);
        let request = FetchRequest { group: group("g"), topics: Some(vec![(Arc::from("t"), vec![PartitionIndex(0)])]) };
        assert_eq!(world.groups.fetch_offsets(&request, |_| Some(TOPIC_ID))[0].partitions[0].offset, Offset(5));
    }

    #[test]
    fn a_commit_larger_than_a_batch_should_be_is_refused_as_a_whole() {
        let mut world = World::new();
        let mut request =
            CommitRequest { group: group(&"g".repeat(TEXT_BYTES_MAX)), ..commit_request(-1, &MemberId::unknown(), 3) };
        let one = request.topics[0].partitions[0].clone();
        let all = (0..300).map(|index| CommitPartition { partition: PartitionIndex(index), ..one.clone() });
        request.topics[0].partitions = all.collect();
        assert_eq!(world.commit(request), ErrorCode::InvalidCommitOffsetSize);
        assert!(world.log.is_empty());
    }

    #[test]
    fn a_member_commits_while_stable_and_while_a_rebalance_is_prepared() {
        let mut world = World::new();
        let ids = world.stable(2);
        assert_eq!(world.commit(commit_request(1, &ids[1], 5)), ErrorCode::None);
        assert_eq!(world.fetch(), Offset(5));
        world.join(join_request());
        assert_eq!(world.state(), Some(State::PreparingRebalance));
        assert_eq!(world.commit(commit_request(1, &ids[1], 6)), ErrorCode::None);
        assert_eq!(world.fetch(), Offset(6));
    }

    #[test]
    fn nobody_else_commits_for_a_group_with_members() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.commit(commit_request(1, &ids[0], 5));
        let nobody = MemberId::unknown();
        assert_eq!(world.commit(commit_request(-1, &nobody, 9)), ErrorCode::UnknownMemberId);
        assert_eq!(world.commit(commit_request(-1, &ids[0], 9)), ErrorCode::IllegalGeneration);
        assert_eq!(world.commit(commit_request(1, &member("ghost"), 9)), ErrorCode::UnknownMemberId);
        assert_eq!(world.commit(commit_request(0, &ids[0], 9)), ErrorCode::IllegalGeneration);
        assert_eq!(world.commit(commit_request(2, &ids[0], 9)), ErrorCode::IllegalGeneration);
        let instance_only = CommitRequest { instance_id: Some(instance("i")), ..commit_request(-1, &nobody, 9) };
        assert_eq!(world.commit(instance_only), ErrorCode::UnknownMemberId);
        assert_eq!(world.fetch(), Offset(5));
    }

    #[test]
    fn a_zombie_of_the_generation_before_is_refused() {
        let mut world = World::new();
        let ids = world.stable(2);
        let joining = ids.iter().map(|id| JoinRequest { member_id: id.clone(), ..join_request() });
        for request in joining.collect::<Vec<_>>() {
            world.join(request);
        }
        assert_eq!(world.state(), Some(State::CompletingRebalance));
        assert_eq!(world.commit(commit_request(1, &ids[0], 9)), ErrorCode::IllegalGeneration);
        assert_eq!(world.commit(commit_request(2, &ids[0], 9)), ErrorCode::RebalanceInProgress);
        assert_eq!(world.fetch(), Offset::NONE);
    }

    #[test]
    fn a_fenced_static_member_cannot_commit() {
        let mut world = World::new();
        let fixed = JoinRequest { instance_id: Some(instance("i")), ..join_request() };
        let old = world.stable_with(vec![fixed.clone()])[0].clone();
        world.join(fixed);
        let request = CommitRequest { instance_id: Some(instance("i")), ..commit_request(1, &old, 9) };
        assert_eq!(world.commit(request), ErrorCode::FencedInstanceId);
        assert_eq!(world.commit(commit_request(1, &old, 9)), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn anybody_commits_for_a_group_without_members() {
        let mut world = World::new();
        assert_eq!(world.commit(commit_request(-1, &MemberId::unknown(), 3)), ErrorCode::None);
        assert_eq!((world.fetch(), world.state()), (Offset(3), Some(State::Empty)));
        assert_eq!(world.commit(commit_request(1, &member("a"), 4)), ErrorCode::UnknownMemberId);
        let ids = world.stable(1);
        world.leave_as(&ids[0]);
        assert_eq!(world.commit(commit_request(-1, &MemberId::unknown(), 4)), ErrorCode::None);
        assert_eq!(world.commit(commit_request(1, &ids[0], 5)), ErrorCode::UnknownMemberId);
        assert_eq!(world.fetch(), Offset(4));
    }

    #[test]
    fn a_generation_of_a_group_that_is_not_there_is_refused_by_version() {
        let mut world = World::new();
        let request = commit_request(1, &member("a"), 3);
        assert_eq!(world.commit(request.clone()), ErrorCode::GroupIdNotFound);
        let older = CommitRequest { knows_group_id_not_found: false, ..request };
        assert_eq!(world.commit(older), ErrorCode::IllegalGeneration);
        assert_eq!(world.state(), None);
    }

    #[test]
    fn the_empty_group_id_commits() {
        let mut world = World::new();
        let request = CommitRequest { group: group(""), ..commit_request(-1, &MemberId::unknown(), 3) };
        assert_eq!(world.commit(request), ErrorCode::None);
    }

    #[test]
    fn a_text_too_long_fails_its_partition_alone() {
        let mut world = World::new();
        let mut request = commit_request(-1, &MemberId::unknown(), 3);
        let long = CommitPartition {
            metadata: Some(Arc::from("m".repeat(4_097))),
            partition: stonelog_protocol::PartitionIndex(1),
            ..request.topics[0].partitions[0].clone()
        };
        request.topics[0].partitions[0].metadata = Some(Arc::from("m".repeat(4_096)));
        request.topics[0].partitions.push(long);
        let decision = world.groups.decide_commit(request, Ticket(9), world.now);
        let Response::Commit(response) = &decision.answers[0].response else { panic!("a commit's answer") };
        let errors: Vec<ErrorCode> = response.topics[0].1.iter().map(|(_, error)| *error).collect();
        assert_eq!(errors, [ErrorCode::None, ErrorCode::OffsetMetadataTooLarge]);
        assert_eq!(decision.records.len(), 1);
    }

    #[test]
    fn a_commit_is_stored_with_epoch_time_and_topic_id() {
        let mut world = World::new();
        world.commit(commit_request(-1, &MemberId::unknown(), 3));
        let expected = CommittedOffset {
            offset: Offset(3),
            leader_epoch: LeaderEpoch(1),
            metadata: Arc::from(""),
            commit_timestamp: world.now.wall,
            expire_timestamp: None,
            topic_id: TOPIC_ID,
        };
        let Some(Record::Offset { value, .. }) = world.log.last() else { panic!("an offset record") };
        assert_eq!(value.as_ref(), Some(&expected));
        let keep = CommitRequest { retention_ms: Some(50), ..commit_request(-1, &MemberId::unknown(), 4) };
        world.commit(keep);
        let Some(Record::Offset { value: Some(value), .. }) = world.log.last() else { panic!("an offset record") };
        assert_eq!(value.expire_timestamp, Some(Timestamp(world.now.wall.0 + 50)));
        assert_eq!((value.leader_epoch, value.topic_id), (LeaderEpoch(1), TOPIC_ID));
    }

    #[test]
    fn a_refused_commit_changes_nothing() {
        let mut world = World::new();
        world.commit(commit_request(-1, &MemberId::unknown(), 3));
        world.refusal = Some(ErrorCode::NotEnoughReplicas);
        assert_eq!(world.commit(commit_request(-1, &MemberId::unknown(), 4)), ErrorCode::CoordinatorNotAvailable);
        assert_eq!(world.fetch(), Offset(3));
    }

    #[test]
    fn commits_keep_a_member_alive() {
        let mut world = World::new();
        let ids = world.stable(1);
        for offset in 0..5 {
            world.advance_ms(9_000);
            assert_eq!(world.commit(commit_request(1, &ids[0], offset)), ErrorCode::None);
        }
        world.advance_ms(10_000);
        assert_eq!(world.state(), Some(State::Empty));
    }

    #[test]
    fn a_retention_time_below_zero_is_over_at_once() {
        let mut world = World::new();
        let wall = world.now.wall;
        let request = commit_request(-1, &MemberId::unknown(), 3);
        world.commit(CommitRequest { retention_ms: Some(-1 - wall.0), ..request });
        let Some(Record::Offset { value: Some(value), .. }) = world.log.last() else { panic!("an offset record") };
        assert_eq!(value.expire_timestamp, Some(wall));
    }
}
