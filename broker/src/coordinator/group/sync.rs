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
