//! SyncGroup: a member asks for its part of the assignment; the leader brings the assignment along.
//!
//! *Behaviour.* In CompletingRebalance the request is parked until the leader's assignment is stored. The leader's own
//! request makes the record; once the log has it the group is Stable and all are answered, behind that record. In
//! Stable the assignment is there already. Before that the member is told to join again (REBALANCE_IN_PROGRESS).
//!
//! *Versions.* 3: instance ids. 5: the member says which protocol it takes the group to have, and an answer that does
//! not match is INCONSISTENT_GROUP_PROTOCOL.

use stonelog_protocol::ErrorCode;

use super::live::State;
use super::message::{Response, SyncRequest, SyncResponse};
use super::rebalance::Turn;
use super::{Assignments, Decision, Groups, Now, Then, Ticket};

impl Groups {
    /// Decides a SyncGroup.
    pub fn decide_sync(&mut self, request: SyncRequest, ticket: Ticket, now: Now) -> Decision {
        let refuse = |error| Decision::answer(ticket, Response::Sync(SyncResponse::refused(error)));
        if request.group.is_empty() {
            return refuse(ErrorCode::InvalidGroupId);
        }
        let Some(mut turn) = self.turn(&request.group, now) else {
            return refuse(ErrorCode::UnknownMemberId);
        };
        turn.sync(&request, ticket);
        turn.decision
    }
}

impl Turn<'_> {
    fn sync(&mut self, request: &SyncRequest, ticket: Ticket) {
        if let Err(error) = self.check_sync(request) {
            return self.answer_sync(ticket, SyncResponse::refused(error));
        }
        match self.group.state {
            State::Empty => self.answer_sync(ticket, SyncResponse::refused(ErrorCode::UnknownMemberId)),
            State::PreparingRebalance => {
                self.answer_sync(ticket, SyncResponse::refused(ErrorCode::RebalanceInProgress));
            }
            State::CompletingRebalance => {
                self.synced(&request.member_id);
                self.park_sync(&request.member_id, ticket);
                if self.group.is_leader(&request.member_id) {
                    self.store_assignment(request);
                }
            }
            State::Stable => {
                self.synced(&request.member_id);
                let response = self.group.sync_response(&request.member_id);
                self.answer_sync(ticket, response);
            }
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), ErrorCode> {
        self.group.validate_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation != self.group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |said: &Option<_>, is: &Option<_>| said.is_some() && said != is;
        if differs(&request.protocol_type, &self.group.protocol_type)
            || differs(&request.protocol, &self.group.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    /// Proposes the group record with the leader's assignment. Members it left out get an empty one; ids that are not
    /// members are passed over.
    fn store_assignment(&mut self, request: &SyncRequest) {
        let assignments: Assignments = request.assignments.iter().cloned().collect();
        let mut stored = self.group.to_stored(&assignments);
        // Copied, so that the assignments do not keep the leader's request alive.
        for member in &mut stored.members {
            member.assignment = bytes::Bytes::copy_from_slice(&member.assignment);
        }
        stored.state_timestamp = Some(self.now.wall);
        self.decision.records.push(self.group_record(stored.clone()));
        self.decision.then =
            Then::Assign { group: self.group.id.clone(), generation: self.group.generation, stored: Box::new(stored) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::message::JoinRequest;
    use super::super::names::MemberId;
    use super::super::testing::{World, group, instance, join_request, member};
    use super::*;
    use crate::coordinator::record::Record;

    fn request(member_id: &MemberId, generation: i32) -> SyncRequest {
        SyncRequest {
            group: group("g"),
            generation,
            member_id: member_id.clone(),
            instance_id: None,
            protocol_type: None,
            protocol: None,
            assignments: Vec::new(),
        }
    }

    fn error(world: &mut World, request: SyncRequest) -> ErrorCode {
        let ticket = world.sync(request);
        world.synced(ticket).expect("answered at once").error
    }

    #[test]
    fn an_assignment_is_answered_to_all_once_the_log_has_it() {
        let mut world = World::new();
        let ids = world.completing_with(vec![join_request(); 3]);
        let early = world.sync_as(&ids[1], 1, &[]);
        assert_eq!(world.synced(early), None);
        let leader = world.sync_as(&ids[0], 1, &[&ids[0], &ids[1], &member("nobody")]);
        let late = world.sync_as(&ids[2], 1, &[]);
        let [leader, early, late] = [leader, early, late].map(|ticket| world.synced(ticket).unwrap());
        assert_eq!(leader.assignment, ids[0].as_str().as_bytes());
        assert_eq!(early.assignment, ids[1].as_str().as_bytes());
        assert!(late.assignment.is_empty(), "the leader left it out");
        assert_eq!((early.protocol_type.as_deref(), early.protocol.as_deref()), (Some("consumer"), Some("range")));
        let [Record::Group { value: Some(stored), .. }] = &world.log[..] else { panic!("one group record") };
        assert_eq!((stored.generation, stored.members.len()), (1, 3));
        assert_eq!(stored.state_timestamp, Some(world.now.wall));
        assert_eq!(world.state(), Some(State::Stable));
    }

    #[test]
    fn a_follower_that_comes_before_the_append_is_settled_waits_for_it() {
        let mut world = World::new();
        let ids = world.completing_with(vec![join_request(); 2]);
        let assignments = vec![(ids[1].clone(), bytes::Bytes::from_static(b"x"))];
        let leader = SyncRequest { assignments, ..request(&ids[0], 1) };
        let first = world.groups.decide_sync(leader, Ticket(100), world.now);
        let second = world.groups.decide_sync(request(&ids[1], 1), Ticket(101), world.now);
        assert!(second.answers.is_empty() && second.records.is_empty() && first.answers.is_empty());
        let answers = world.groups.on_appended(first, world.now);
        assert_eq!(answers.iter().map(|answer| answer.ticket).collect::<Vec<_>>().len(), 2);
        assert!(world.groups.on_appended(second, world.now).is_empty());
    }

    #[test]
    fn an_assignment_of_an_earlier_generation_is_stored_and_given_to_nobody() {
        let mut world = World::new();
        let ids = world.completing_with(vec![join_request()]);
        let sync = world.groups.decide_sync(request(&ids[0], 1), Ticket(100), world.now);
        let mut changed = JoinRequest { member_id: ids[0].clone(), ..join_request() };
        changed.protocols[0].metadata = bytes::Bytes::from_static(b"changed");
        let join = world.groups.decide_join(changed, Ticket(101), stonelog_protocol::Uuid::ZERO, world.now);
        assert!(world.groups.on_appended(sync, world.now).is_empty(), "its SyncGroup was told to join again");
        assert_eq!(world.groups.on_appended(join, world.now).len(), 2);
        assert_eq!(world.state(), Some(State::CompletingRebalance));
        assert_eq!(world.groups.live[&group("g")].generation, 2);
    }

    #[test]
    fn an_assignment_that_cannot_be_stored_makes_the_group_rebalance() {
        let mut world = World::new();
        let ids = world.completing_with(vec![join_request(); 2]);
        let follower = world.sync_as(&ids[1], 1, &[]);
        world.refusal = Some(ErrorCode::NotEnoughReplicas);
        let leader = world.sync_as(&ids[0], 1, &[&ids[0], &ids[1]]);
        for ticket in [leader, follower] {
            let refused = world.synced(ticket).unwrap();
            assert_eq!((refused.error, refused.assignment.len()), (ErrorCode::CoordinatorNotAvailable, 0));
        }
        assert_eq!(world.state(), Some(State::PreparingRebalance));
        world.refusal = None;
        let tickets = ids.iter().map(|id| JoinRequest { member_id: id.clone(), ..join_request() });
        let tickets: Vec<Ticket> = tickets.map(|request| world.join(request)).collect();
        assert_eq!(world.joined(tickets[0]).unwrap().generation, 2);
    }

    #[test]
    fn a_record_too_large_for_the_log_is_a_server_error() {
        let mut world = World::new();
        let ids = world.completing_with(vec![join_request()]);
        world.refusal = Some(ErrorCode::MessageTooLarge);
        let ticket = world.sync_as(&ids[0], 1, &[&ids[0]]);
        assert_eq!(world.synced(ticket).unwrap().error, ErrorCode::UnknownServerError);
    }

    #[test]
    fn only_members_of_the_present_generation_are_assigned_anything() {
        let mut world = World::new();
        assert_eq!(
            error(&mut world, SyncRequest { group: group(""), ..request(&member("a"), 1) }),
            ErrorCode::InvalidGroupId
        );
        assert_eq!(error(&mut world, request(&member("a"), 1)), ErrorCode::UnknownMemberId);
        let fixed = JoinRequest { instance_id: Some(instance("i")), ..join_request() };
        let id = world.stable_with(vec![fixed])[0].clone();
        assert_eq!(error(&mut world, request(&member("a"), 1)), ErrorCode::UnknownMemberId);
        assert_eq!(error(&mut world, request(&id, 0)), ErrorCode::IllegalGeneration);
        assert_eq!(error(&mut world, request(&id, 2)), ErrorCode::IllegalGeneration);
        let other_instance = SyncRequest { instance_id: Some(instance("j")), ..request(&id, 1) };
        assert_eq!(error(&mut world, other_instance), ErrorCode::UnknownMemberId);
        let fenced = SyncRequest { instance_id: Some(instance("i")), ..request(&member("a"), 1) };
        assert_eq!(error(&mut world, fenced), ErrorCode::FencedInstanceId);
        assert_eq!(error(&mut world, request(&id, 1)), ErrorCode::None);
    }

    #[test]
    fn the_protocol_a_member_names_must_be_the_groups() {
        let mut world = World::new();
        let id = world.stable(1)[0].clone();
        let named = |protocol_type: &str, protocol: &str| SyncRequest {
            protocol_type: Some(Arc::from(protocol_type)),
            protocol: Some(Arc::from(protocol)),
            ..request(&id, 1)
        };
        assert_eq!(error(&mut world, named("consumer", "range")), ErrorCode::None);
        assert_eq!(error(&mut world, named("connect", "range")), ErrorCode::InconsistentGroupProtocol);
        assert_eq!(error(&mut world, named("consumer", "sticky")), ErrorCode::InconsistentGroupProtocol);
    }

    #[test]
    fn while_a_rebalance_is_prepared_members_must_join_again() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.join(join_request());
        assert_eq!(error(&mut world, request(&ids[0], 1)), ErrorCode::RebalanceInProgress);
    }

    #[test]
    fn a_member_of_an_empty_group_is_unknown() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.leave_as(&ids[0]);
        assert_eq!(world.state(), Some(State::Empty));
        assert_eq!(error(&mut world, request(&ids[0], 2)), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn members_that_never_ask_for_their_assignment_are_out() {
        let mut world = World::new();
        let ids = world.completing_with(vec![join_request(); 2]);
        world.sync_as(&ids[0], 1, &[&ids[0], &ids[1]]);
        assert_eq!(world.state(), Some(State::Stable));
        for _ in 0..12 {
            ids.iter().for_each(|id| assert_eq!(world.heartbeat(id, 1), ErrorCode::None));
            world.advance_ms(5_000);
        }
        assert_eq!(world.state(), Some(State::PreparingRebalance));
        assert_eq!(world.heartbeat(&ids[0], 1), ErrorCode::RebalanceInProgress);
        assert_eq!(world.heartbeat(&ids[1], 1), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn a_second_sync_takes_the_place_of_a_parked_one() {
        let mut world = World::new();
        let ids = world.completing_with(vec![join_request(); 2]);
        let older = world.sync_as(&ids[1], 1, &[]);
        let newer = world.sync_as(&ids[1], 1, &[]);
        assert_eq!(world.synced(older).unwrap().error, ErrorCode::RebalanceInProgress);
        assert_eq!(world.synced(newer), None);
    }
}
