//! LeaveGroup: members go, or an administrator removes them.
//!
//! *Behaviour.* Each member named is answered on its own; those who stay rebalance, once. A member with an instance id
//! and no member id is removed by name, whoever holds the name. One that was only given an id is forgotten.
//!
//! *Versions.* Before 3 there is one member and one error code; the handler folds them. The reason (version 5) is for
//! the handler's log line.

use stonelog_protocol::ErrorCode;

use super::message::{LeaveRequest, LeaveResponse, LeavingMember, Response};
use super::names::MemberId;
use super::rebalance::Turn;
use super::{Decision, Groups, Now, Ticket};

impl Groups {
    /// Decides a LeaveGroup.
    pub fn decide_leave(&mut self, request: LeaveRequest, ticket: Ticket, now: Now) -> Decision {
        if request.group.is_empty() {
            let response = LeaveResponse { error: ErrorCode::InvalidGroupId, members: Vec::new() };
            return Decision::answer(ticket, Response::Leave(response));
        }
        let Some(mut turn) = self.turn(&request.group, now) else {
            // Without a group nobody is a member.
            let unknown = |leaving: LeavingMember| (leaving, ErrorCode::UnknownMemberId);
            let members = request.members.into_iter().map(unknown).collect();
            return Decision::answer(ticket, Response::Leave(LeaveResponse { error: ErrorCode::None, members }));
        };
        turn.leave(request.members, ticket);
        let decision = turn.decision;
        self.settle(&request.group);
        decision
    }
}

impl Turn<'_> {
    fn leave(&mut self, leaving: Vec<LeavingMember>, ticket: Ticket) {
        let mut members = Vec::with_capacity(leaving.len());
        let mut anybody_left = false;
        for one in leaving {
            let error = match self.who_leaves(&one) {
                Ok(member_id) => {
                    self.remove_member(&member_id);
                    anybody_left = true;
                    ErrorCode::None
                }
                Err(error) => error,
            };
            members.push((one, error));
        }
        if anybody_left {
            self.after_removal();
        }
        let response = LeaveResponse { error: ErrorCode::None, members };
        self.decision.push_answer(ticket, Response::Leave(response));
    }

    /// Which member, or pending member, is meant.
    fn who_leaves(&self, leaving: &LeavingMember) -> Result<MemberId, ErrorCode> {
        if leaving.member_id.is_empty() {
            let held = leaving.instance_id.as_ref().and_then(|name| self.group.instances.get(name));
            return held.cloned().ok_or(ErrorCode::UnknownMemberId);
        }
        if !self.group.pending_joins.contains(&leaving.member_id) {
            self.group.validate_member(&leaving.member_id, leaving.instance_id.as_ref())?;
        }
        Ok(leaving.member_id.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::live::State;
    use super::super::message::JoinRequest;
    use super::super::testing::{World, group, instance, join_request, member};
    use super::*;

    fn static_join(name: &str) -> JoinRequest {
        JoinRequest { instance_id: Some(instance(name)), ..join_request() }
    }

    fn named(member_id: &str, name: Option<&str>) -> LeavingMember {
        LeavingMember { member_id: member(member_id), instance_id: name.map(instance) }
    }

    #[test]
    fn those_who_stay_rebalance_when_one_leaves() {
        let mut world = World::new();
        let ids = world.stable(2);
        assert_eq!(world.leave_as(&ids[0]), ErrorCode::None);
        assert_eq!(world.state(), Some(State::PreparingRebalance));
        let ticket = world.join(JoinRequest { member_id: ids[1].clone(), ..join_request() });
        let joined = world.joined(ticket).unwrap();
        assert_eq!((joined.generation, joined.leader), (2, ids[1].clone()), "who is left leads");
    }

    #[test]
    fn the_last_one_leaves_an_empty_group_of_the_next_generation() {
        let mut world = World::new();
        let ids = world.stable(1);
        assert_eq!(world.leave_as(&ids[0]), ErrorCode::None);
        assert_eq!(world.state(), Some(State::Empty));
        let stored = world.groups.hard().get(&group("g")).unwrap().metadata.clone().unwrap();
        assert_eq!((stored.generation, stored.members.len(), stored.leader), (2, 0, None));
        assert_eq!((&*stored.protocol_type, stored.protocol), ("consumer", None));
        assert_eq!(world.leave_as(&ids[0]), ErrorCode::UnknownMemberId);
        // The next member begins the generation after that.
        let ticket = world.join(join_request());
        world.advance_ms(3_000);
        assert_eq!(world.joined(ticket).unwrap().generation, 3);
    }

    #[test]
    fn a_leave_that_empties_the_group_fails_when_it_cannot_be_stored() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.refusal = Some(ErrorCode::KafkaStorageError);
        assert_eq!(world.leave_as(&ids[0]), ErrorCode::NotCoordinator);
        assert_eq!(world.state(), Some(State::Empty));
        world.refusal = None;
        let ticket = world.join(join_request());
        world.advance_ms(3_000);
        assert_eq!(world.joined(ticket).unwrap().generation, 3, "generations never go back");
    }

    #[test]
    fn each_of_a_batch_is_answered_on_its_own() {
        let mut world = World::new();
        let ids = world.stable_with(vec![static_join("i"), static_join("j"), join_request()]);
        let holder = |name: &str| ids.iter().find(|id| id.as_str().starts_with(name)).unwrap().as_str().to_owned();
        let errors = world.leave(vec![
            named("", Some("i")),
            named("", Some("nobody")),
            named("", None),
            named(&holder("j"), Some("j")),
            named(&holder("j"), Some("j")),
            named(&holder("client"), Some("j")),
            named("ghost", None),
        ]);
        use ErrorCode::{None as Left, UnknownMemberId as Unknown};
        assert_eq!(errors, [Left, Unknown, Unknown, Left, Unknown, Unknown, Unknown]);
        assert_eq!(world.groups.live[&group("g")].members.len(), 1);
    }

    #[test]
    fn a_fenced_instance_does_not_take_its_successor_along() {
        let mut world = World::new();
        let ids = world.stable_with(vec![static_join("i")]);
        world.join(static_join("i"));
        assert_eq!(world.leave(vec![named(ids[0].as_str(), Some("i"))]), [ErrorCode::FencedInstanceId]);
        assert_eq!(world.state(), Some(State::Stable));
    }

    #[test]
    fn an_id_that_was_only_given_out_can_be_returned() {
        let mut world = World::new();
        let ids = world.stable(1);
        let ticket = world.join(JoinRequest { requires_known_member_id: true, ..join_request() });
        let given = world.joined(ticket).unwrap().member_id;
        let again = world.join(JoinRequest { member_id: ids[0].clone(), ..join_request() });
        assert_eq!(world.joined(again), None, "the pending member is waited for");
        assert_eq!(world.leave_as(&given), ErrorCode::None);
        assert_eq!(world.joined(again).unwrap().generation, 2);
    }

    #[test]
    fn nobody_is_a_member_of_a_group_that_is_not_there() {
        let mut world = World::new();
        assert_eq!(world.leave_as(&member("a")), ErrorCode::UnknownMemberId);
        let request = LeaveRequest { group: group(""), members: vec![named("a", None)] };
        let decision = world.groups.decide_leave(request, Ticket(9), world.now);
        let expected = LeaveResponse { error: ErrorCode::InvalidGroupId, members: Vec::new() };
        assert_eq!(decision.answers[0].response, Response::Leave(expected));
    }
}
