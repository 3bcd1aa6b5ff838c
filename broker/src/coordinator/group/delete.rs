//! DeleteGroups and OffsetDelete: an administrator clears up.
//!
//! *Behaviour.* A group with members is NON_EMPTY_GROUP; one that does not exist is GROUP_ID_NOT_FOUND. Offsets of a
//! group of consumers may be deleted while it has members, except those of topics it reads
//! (GROUP_SUBSCRIBED_TO_TOPIC); a group of another kind must have no members.

use std::collections::HashSet;

use stonelog_protocol::ErrorCode;

use super::live::State;
use super::message::{DeleteGroupsResponse, OffsetDeleteRequest, PerPartition, Response};
use super::names::GroupId;
use super::tombstones::Tombstones;
use super::{Alarm, Decision, Groups, Ticket};
use crate::coordinator::record::Record;

impl Groups {
    /// Decides a DeleteGroups of different groups. Only those that have room in one decision are answered: whoever asks
    /// names the others again. A group is split only if it has no room alone; should it get a member between two
    /// decisions, the rest of it stays.
    pub fn decide_delete_groups(&mut self, groups: Vec<GroupId>, ticket: Ticket) -> Decision {
        let mut tombstones = Tombstones::default();
        let mut response = DeleteGroupsResponse::default();
        for group in groups {
            let error = match self.state(&group) {
                None => ErrorCode::GroupIdNotFound,
                Some(State::Empty) => {
                    if !tombstones.push_all(self.tombstones_of(&group)) {
                        if response.groups.is_empty() {
                            response.unfinished = Some(group);
                        }
                        break;
                    }
                    self.forget_given_ids(&group);
                    ErrorCode::None
                }
                Some(_) => ErrorCode::NonEmptyGroup,
            };
            response.groups.push((group, error));
        }
        let mut decision = tombstones.decision;
        decision.push_answer(ticket, Response::DeleteGroups(response));
        decision
    }

    /// Clients that were given an id and have not joined with it will be given another.
    fn forget_given_ids(&mut self, group: &GroupId) {
        if let Some(live) = self.live.get_mut(group) {
            for member_id in std::mem::take(&mut live.pending_joins) {
                self.timers.cancel(&Alarm::Session(group.clone(), member_id));
            }
            self.settle(group);
        }
    }

    /// Everything of a group, its own record last.
    fn tombstones_of<'a>(&'a self, group: &'a GroupId) -> impl Iterator<Item = Record> + Clone + 'a {
        let hard = self.hard.get(group);
        let offsets = hard.into_iter().flat_map(|hard| &hard.offsets).flat_map(move |(topic, partitions)| {
            partitions.keys().map(move |partition| Record::Offset {
                group: group.clone(),
                topic: topic.clone(),
                partition: *partition,
                value: None,
            })
        });
        let metadata = hard.filter(|hard| hard.metadata.is_some());
        offsets.chain(metadata.map(|_| Record::Group { group: group.clone(), value: None }))
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
        let mut seen = HashSet::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for (topic, partitions) in request.topics {
            let is_subscribed = live.is_some_and(|live| live.state != State::Empty && live.is_subscribed_to(&topic));
            let error = if is_subscribed { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            let stored = offsets.and_then(|offsets| offsets.get(&topic)).filter(|_| !is_subscribed);
            for partition in &partitions {
                let is_first = seen.insert((topic.clone(), *partition));
                if is_first && stored.is_some_and(|stored| stored.contains_key(partition)) {
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

    use super::super::config::TOMBSTONES_PER_DECISION_MAX;
    use super::super::message::{CommitPartition, CommitRequest, JoinRequest, Protocol};
    use super::super::names::MemberId;
    use super::super::testing::{World, commit_request, group, join_request, subscription};
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

    /// Offsets of group `g` for so many partitions of topic `t`.
    fn commit_many(world: &mut World, partitions: i32) {
        let mut request = commit_request(-1, &MemberId::unknown(), 3);
        let one = request.topics[0].partitions[0].clone();
        let all = (0..partitions).map(|index| CommitPartition { partition: PartitionIndex(index), ..one.clone() });
        request.topics[0].partitions = all.collect();
        world.commit(request);
    }

    #[test]
    fn a_group_of_more_offsets_than_a_decision_takes_is_deleted_by_several() {
        let mut world = World::new();
        commit_many(&mut world, 2_500);
        let decision = world.groups.decide_delete_groups(vec![group("g"), group("h")], Ticket(1));
        assert_eq!(decision.records.len(), TOMBSTONES_PER_DECISION_MAX);
        let expected = DeleteGroupsResponse { groups: Vec::new(), unfinished: Some(group("g")) };
        assert_eq!(decision.answers[0].response, Response::DeleteGroups(expected));
        let refused = world.groups.on_refused(decision, ErrorCode::NotEnoughReplicas, world.now);
        let told = vec![(group("g"), ErrorCode::CoordinatorNotAvailable)];
        let expected = DeleteGroupsResponse { groups: told, unfinished: None };
        assert_eq!(refused[0].response, Response::DeleteGroups(expected));
        assert_eq!(world.delete_groups(&["g", "h"]), [ErrorCode::None, ErrorCode::GroupIdNotFound]);
        assert_eq!(world.state(), None);
    }

    #[test]
    fn a_group_is_not_split_when_it_has_room_in_the_next_decision() {
        let mut world = World::new();
        commit_many(&mut world, 600);
        world.commit(CommitRequest { group: group("a"), ..commit_request(-1, &MemberId::unknown(), 3) });
        let decision = world.groups.decide_delete_groups(vec![group("a"), group("g")], Ticket(1));
        assert_eq!(decision.records.len(), 601);
        commit_many(&mut world, 1_000);
        let decision = world.groups.decide_delete_groups(vec![group("a"), group("g")], Ticket(1));
        let expected = DeleteGroupsResponse { groups: vec![(group("a"), ErrorCode::None)], unfinished: None };
        assert_eq!((decision.records.len(), &decision.answers[0].response), (1, &Response::DeleteGroups(expected)));
        assert_eq!(world.delete_groups(&["a", "g"]), [ErrorCode::None; 2]);
    }

    #[test]
    fn an_offset_that_is_named_twice_is_deleted_once_and_answered_twice() {
        let mut world = World::new();
        world.commit(commit_request(-1, &MemberId::unknown(), 3));
        let before = world.log.len();
        let answer = world.offset_delete(&[("t", &[0, 0]), ("t", &[0])]);
        assert_eq!(answer.topics.iter().map(|(_, partitions)| partitions.len()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(world.log.len(), before + 1);
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
