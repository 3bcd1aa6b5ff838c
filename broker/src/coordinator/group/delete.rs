//! DeleteGroups and OffsetDelete: an administrator clears up.
//!
//! *Behaviour.* A group with members is NON_EMPTY_GROUP; one that does not exist is GROUP_ID_NOT_FOUND. Offsets of a
//! group of consumers may be deleted while it has members, except those of topics it reads
//! (GROUP_SUBSCRIBED_TO_TOPIC); a group of another kind must have no members.

use stonelog_protocol::ErrorCode;

use super::live::State;
use super::message::{OffsetDeleteRequest, PerPartition, Response};
use super::names::GroupId;
use super::{Decision, Groups, Ticket};
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
        if let Some(mut live) = self.live.remove(group) {
            // Clients that were given an id and have not joined with it will be given another.
            for member_id in std::mem::take(&mut live.pending_joins) {
                self.timers.cancel(&super::Alarm::Session(group.clone(), member_id));
            }
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
