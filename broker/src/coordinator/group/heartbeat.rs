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
