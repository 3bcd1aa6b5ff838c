//! Heartbeat: a member says that it is there, and learns whether it must join again.
//!
//! In CompletingRebalance the answer is NONE, although the comment beside Kafka's state says otherwise: members may
//! heartbeat between their JoinGroup and the end of their SyncGroup.

use stonelog_protocol::ErrorCode;

use super::live::State;
use super::message::HeartbeatRequest;
use super::{Groups, Now};

impl Groups {
    /// Notes a heartbeat and returns the answer's error code.
    pub fn heartbeat(&mut self, request: &HeartbeatRequest, now: Now) -> ErrorCode {
        if request.group.is_empty() {
            return ErrorCode::InvalidGroupId;
        }
        let Some(mut turn) = self.turn(&request.group, now) else {
            return ErrorCode::UnknownMemberId;
        };
        if let Err(error) = turn.group.validate_member(&request.member_id, request.instance_id.as_ref()) {
            return error;
        }
        if request.generation != turn.group.generation {
            return ErrorCode::IllegalGeneration;
        }
        match turn.group.state {
            State::Empty => ErrorCode::UnknownMemberId,
            State::PreparingRebalance => {
                turn.reset_session(&request.member_id);
                ErrorCode::RebalanceInProgress
            }
            State::CompletingRebalance | State::Stable => {
                turn.reset_session(&request.member_id);
                ErrorCode::None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::JoinRequest;
    use super::super::testing::{World, group, instance, join_request, member};
    use super::*;

    #[test]
    fn each_state_answers_a_member_as_kafka_does() {
        let mut world = World::new();
        assert_eq!(world.heartbeat(&member("a"), 1), ErrorCode::UnknownMemberId, "no group");
        let ids = world.completing_with(vec![join_request()]);
        assert_eq!(world.heartbeat(&ids[0], 1), ErrorCode::None, "CompletingRebalance");
        world.sync_as(&ids[0], 1, &[&ids[0]]);
        assert_eq!(world.heartbeat(&ids[0], 1), ErrorCode::None, "Stable");
        world.join(join_request());
        assert_eq!(world.heartbeat(&ids[0], 1), ErrorCode::RebalanceInProgress, "PreparingRebalance");
        world.leave_as(&ids[0]);
        assert_eq!(world.heartbeat(&ids[0], 1), ErrorCode::UnknownMemberId, "not a member any more");
    }

    #[test]
    fn a_member_of_an_empty_group_is_unknown() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.leave_as(&ids[0]);
        assert_eq!(world.state(), Some(State::Empty));
        assert_eq!(world.heartbeat(&ids[0], 2), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn group_generation_and_instance_are_checked() {
        let mut world = World::new();
        let fixed = JoinRequest { instance_id: Some(instance("i")), ..join_request() };
        let id = world.stable_with(vec![fixed])[0].clone();
        let request = HeartbeatRequest { group: group("g"), generation: 1, member_id: id, instance_id: None };
        let now = world.now;
        let mut heartbeat = |request: HeartbeatRequest| world.groups.heartbeat(&request, now);
        assert_eq!(heartbeat(request.clone()), ErrorCode::None);
        assert_eq!(heartbeat(HeartbeatRequest { group: group(""), ..request.clone() }), ErrorCode::InvalidGroupId);
        assert_eq!(heartbeat(HeartbeatRequest { generation: 2, ..request.clone() }), ErrorCode::IllegalGeneration);
        let named = |name| HeartbeatRequest { instance_id: Some(instance(name)), ..request.clone() };
        assert_eq!(heartbeat(named("i")), ErrorCode::None);
        assert_eq!(heartbeat(named("j")), ErrorCode::UnknownMemberId);
        let fenced = HeartbeatRequest { member_id: member("older"), ..named("i") };
        assert_eq!(heartbeat(fenced), ErrorCode::FencedInstanceId);
    }

    #[test]
    fn heartbeats_keep_a_member_and_silence_ends_it() {
        let mut world = World::new();
        let ids = world.stable(2);
        world.advance_ms(9_000);
        assert_eq!(world.heartbeat(&ids[0], 1), ErrorCode::None);
        world.advance_ms(999);
        assert_eq!(world.state(), Some(State::Stable));
        world.advance_ms(1);
        assert_eq!(world.state(), Some(State::PreparingRebalance), "the other member was silent for 10 s");
        assert_eq!(world.heartbeat(&ids[0], 1), ErrorCode::RebalanceInProgress);
        assert_eq!(world.heartbeat(&ids[1], 1), ErrorCode::UnknownMemberId);
    }
}
