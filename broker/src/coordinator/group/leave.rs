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
