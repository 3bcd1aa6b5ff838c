//! SyncGroup (key 14): a member asks for its part of the assignment; the leader brings it.
//!
//! *Behaviour*: answered when the leader's assignment is committed. While the group is still read back its members are
//! to join anew. *Versions*: 0–5. From 3 on a member may be static, from 5 on it says what it takes the group's protocol
//! to be, and must (KIP-559).

use std::sync::Arc;

use stonelog_protocol::ErrorCode;
use stonelog_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use crate::coordinator::group::message::{Response, SyncRequest, SyncResponse};
use crate::coordinator::runtime;
use crate::handlers::group_names::{instance_id, member_id, named_group_id, text};
use crate::request::RequestContext;

/// Answers a SyncGroup request.
pub async fn handle(context: &RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    let synced = match domain(context.version(), request) {
        Ok(request) => sync(context, request).await,
        Err(error) => Err(error),
    };
    answer(synced.unwrap_or_else(|error| SyncResponse::refused(said_as(error))))
}

/// As in Kafka: clients know no COORDINATOR_LOAD_IN_PROGRESS here, Java's gives up the poll. Joining again waits.
fn said_as(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::CoordinatorLoadInProgress => ErrorCode::RebalanceInProgress,
        error => error,
    }
}

async fn sync(context: &RequestContext, request: SyncRequest) -> Result<SyncResponse, ErrorCode> {
    let group = request.group.clone();
    let decide = move |groups: &mut runtime::Groups, ticket, now| groups.decide_sync(request, ticket, now);
    match runtime::decide(context, &group, decide).await? {
        Response::Sync(response) => Ok(response),
        other => unreachable!("a SyncGroup is answered as one, not with {other:?}"),
    }
}

fn domain(version: i16, request: SyncGroupRequest) -> Result<SyncRequest, ErrorCode> {
    if version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    let assignments = request.assignments.into_iter();
    // An id too long to be anybody's is passed over, as any that is no member's.
    let assignments =
        assignments.filter_map(|assigned| Some((member_id(&assigned.member_id).ok()?, assigned.assignment)));
    Ok(SyncRequest {
        group: named_group_id(&request.group_id)?,
        generation: request.generation_id,
        member_id: member_id(&request.member_id)?,
        instance_id: instance_id(request.group_instance_id.as_ref())?,
        protocol_type: request.protocol_type.map(|name| Arc::from(&*name)),
        protocol: request.protocol_name.map(|name| Arc::from(&*name)),
        assignments: assignments.collect(),
    })
}

fn answer(response: SyncResponse) -> SyncGroupResponse {
    SyncGroupResponse::default()
        .with_error_code(response.error.code())
        .with_protocol_type(response.protocol_type.map(|name| text(&name)))
        .with_protocol_name(response.protocol.map(|name| text(&name)))
        .with_assignment(response.assignment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_group_that_is_read_back_join_again() {
        assert_eq!(said_as(ErrorCode::CoordinatorLoadInProgress), ErrorCode::RebalanceInProgress);
        assert_eq!(said_as(ErrorCode::NotCoordinator), ErrorCode::NotCoordinator);
    }
}
