//! DeleteGroups and OffsetDelete: an administrator clears up.
//!
//! *Behaviour.* A group with members is NON_EMPTY_GROUP; one that does not exist is GROUP_ID_NOT_FOUND. Offsets of a
//! group of consumers may be deleted while it has members, except those of topics it reads
//! (GROUP_SUBSCRIBED_TO_TOPIC); a group of another kind must have no members.

use stonelog_protocol::ErrorCode;

use super::live::State;
use super::message::{OffsetDeleteRequest, PerPartition, Response};
use super::names::GroupId;
use super::{Alarm, Decision, Groups, Ticket};
use crate::coordinator::record::Record;

impl Groups {
    /// Decides a DeleteGroups.
    pub fn decide_delete_groups(&mut self, groups: Vec<GroupId>, ticket: Ticket) -> Decision {
        let mut decision = Decision::default();
        let mut answers = Vec::with_capacity(groups.len());
        for group in groups {
            let error = match self.state(&group) {
                None => ErrorCode::GroupIdNotFound,
                Some(State::Empty) => {
                    self.delete_group(&group, &mut decision);
                    ErrorCode::None
                }
                Some(_) => ErrorCode::NonEmptyGroup,
            };
            answers.push((group, error));
        }
        decision.push_answer(ticket, Response::DeleteGroups(answers));
        decision
    }

    fn delete_group(&mut self, group: &GroupId, decision: &mut Decision) {
        if let Some(live) = self.live.get_mut(group) {
            // Clients that were given an id and have not joined with it will be given another.
            for member_id in std::mem::take(&mut live.pending_joins) {
                self.timers.cancel(&Alarm::Session(group.clone(), member_id));
            }
            self.settle(group);
        }
        let Some(hard) = self.hard.get(group) else { return };
        for (topic, partitions) in &hard.offsets {
            let tombstones = partitions.keys().map(|partition| Record::Offset {
                group: group.clone(),
                topic: topic.clone(),
                partition: *partition,
                value: None,
            });
            decision.records.extend(tombstones);
        }
        if hard.metadata.is_some() {
            decision.records.push(Record::Group { group: group.clone(), value: None });
        }
    }

    /// Decides an OffsetDelete.
    pub fn decide_offset_delete(&mut self, request: OffsetDeleteRequest, ticket: Ticket) -> Decision {
        let refuse = |error| Decision::answer(ticket, Response::OffsetDelete(PerPartition::refused(error)));
        if request.group.is_empty() {
            return refuse(ErrorCode::InvalidGroupId);
        }
        let live = self.live.get(&request.group);
        match self.state(&request.group) {
            None => return refuse(ErrorCode::GroupIdNotFound),
            Some(State::Empty) => {}
            Some(_) if live.is_some_and(|live| live.uses_consumer_protocol()) => {}
            Some(_) => return refuse(ErrorCode::NonEmptyGroup),
        }
        let offsets = self.hard.offsets(&request.group);
        let mut records = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for (topic, partitions) in request.topics {
            let is_subscribed = live.is_some_and(|live| live.state != State::Empty && live.is_subscribed_to(&topic));
            let error = if is_subscribed { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            let stored = offsets.and_then(|offsets| offsets.get(&topic)).filter(|_| !is_subscribed);
            for partition in &partitions {
                if stored.is_some_and(|stored| stored.contains_key(partition)) {
                    records.push(Record::Offset {
                        group: request.group.clone(),
                        topic: topic.clone(),
                        partition: *partition,
                        value: None,
                    });
                }
            }
            topics.push((topic, partitions.into_iter().map(|partition| (partition, error)).collect()));
        }
        let response = Response::OffsetDelete(PerPartition { error: ErrorCode::None, topics });
        Decision { records, ..Decision::answer(ticket, response) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stonelog_protocol::{Offset, PartitionIndex};

    use super::super::message::{JoinRequest, Protocol};
    use super::super::names::MemberId;
    use super::super::testing::{World, commit_request, join_request, subscription};
    use super::*;

    #[test]
    fn only_groups_without_members_are_deleted() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.commit(commit_request(1, &ids[0], 3));
        assert_eq!(world.delete_groups(&["g", "nobody"]), [ErrorCode::NonEmptyGroup, ErrorCode::GroupIdNotFound]);
        world.leave_as(&ids[0]);
        assert_eq!(world.delete_groups(&["g"]), [ErrorCode::None]);
        assert_eq!((world.state(), world.fetch()), (None, Offset::NONE));
        assert_eq!(world.delete_groups(&["g"]), [ErrorCode::GroupIdNotFound]);
    }

    #[test]
    fn a_group_of_offsets_alone_is_deleted_and_so_is_one_of_ids_given_out() {
        let mut world = World::new();
        world.commit(commit_request(-1, &MemberId::unknown(), 3));
        assert_eq!(world.delete_groups(&["g"]), [ErrorCode::None]);
        assert_eq!(world.state(), None);
        let ticket = world.join(JoinRequest { requires_known_member_id: true, ..join_request() });
        let given = world.joined(ticket).unwrap().member_id;
        assert_eq!(world.delete_groups(&["g"]), [ErrorCode::None]);
        assert_eq!(world.groups.next_deadline(), None);
        let late = JoinRequest { member_id: given, ..join_request() };
        assert_eq!(world.join_error(late), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn a_deletion_the_log_refuses_leaves_the_group() {
        let mut world = World::new();
        world.commit(commit_request(-1, &MemberId::unknown(), 3));
        world.refusal = Some(ErrorCode::NotLeaderOrFollower);
        assert_eq!(world.delete_groups(&["g"]), [ErrorCode::NotCoordinator]);
        assert_eq!(world.fetch(), Offset(3));
    }

    #[test]
    fn a_group_whose_end_the_log_refused_twice_is_still_as_the_log_says() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.refusal = Some(ErrorCode::NotEnoughReplicas);
        world.leave_as(&ids[0]);
        assert_eq!(world.delete_groups(&["g"]), [ErrorCode::CoordinatorNotAvailable]);
        world.refusal = None;
        assert_eq!(world.state(), Some(State::Empty), "the member has left all the same");
        assert_eq!(world.delete_groups(&["g"]), [ErrorCode::None]);
        assert_eq!(world.state(), None);
    }

    #[test]
    fn offsets_of_topics_nobody_reads_are_deleted() {
        let mut world = World::new();
        world.commit(commit_request(-1, &MemberId::unknown(), 3));
        let reads = |topic| vec![Protocol { name: Arc::from("range"), metadata: subscription(&[topic]) }];
        let ids = world.stable_with(vec![JoinRequest { protocols: reads("t"), ..join_request() }]);
        let answer = world.offset_delete(&[("t", &[0]), ("u", &[0])]);
        assert_eq!(answer.topics[0].1, [(PartitionIndex(0), ErrorCode::GroupSubscribedToTopic)]);
        assert_eq!(answer.topics[1].1, [(PartitionIndex(0), ErrorCode::None)]);
        assert_eq!(world.fetch(), Offset(3));
        world.join(JoinRequest { member_id: ids[0].clone(), protocols: reads("u"), ..join_request() });
        let answer = world.offset_delete(&[("t", &[0, 1])]);
        assert_eq!(answer.topics[0].1.iter().map(|(_, error)| *error).collect::<Vec<_>>(), [ErrorCode::None; 2]);
        assert_eq!(world.fetch(), Offset::NONE);
    }

    #[test]
    fn a_group_whose_subscription_is_not_known_reads_everything() {
        let mut world = World::new();
        world.commit(commit_request(-1, &MemberId::unknown(), 3));
        let opaque = vec![Protocol { name: Arc::from("range"), metadata: bytes::Bytes::from_static(b"?") }];
        world.stable_with(vec![JoinRequest { protocols: opaque, ..join_request() }]);
        let answer = world.offset_delete(&[("u", &[0])]);
        assert_eq!(answer.topics[0].1[0].1, ErrorCode::GroupSubscribedToTopic);
    }

    #[test]
    fn offsets_of_other_kinds_of_groups_are_deleted_without_members_only() {
        let mut world = World::new();
        world.commit(commit_request(-1, &MemberId::unknown(), 3));
        let ids = world.stable_with(vec![JoinRequest { protocol_type: Arc::from("connect"), ..join_request() }]);
        assert_eq!(world.offset_delete(&[("t", &[0])]).error, ErrorCode::NonEmptyGroup);
        world.leave_as(&ids[0]);
        assert_eq!(world.offset_delete(&[("t", &[0])]).error, ErrorCode::None);
        assert_eq!(world.fetch(), Offset::NONE);
    }

    #[test]
    fn offsets_of_a_group_that_is_not_there_cannot_be_deleted() {
        let mut world = World::new();
        assert_eq!(world.offset_delete(&[("t", &[0])]).error, ErrorCode::GroupIdNotFound);
        let request = OffsetDeleteRequest { group: GroupId::new("").unwrap(), topics: Vec::new() };
        let decision = world.groups.decide_offset_delete(request, Ticket(1));
        let expected = Response::OffsetDelete(PerPartition::refused(ErrorCode::InvalidGroupId));
        assert_eq!(decision.answers[0].response, expected);
    }
}
