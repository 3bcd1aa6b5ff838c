//! Heartbeat (key 12): a member says that it is there, and learns whether it must join again.
//!
//! *Behaviour*: while the group is still read back, every member is there. *Versions*: 0–4. From 3 on a member may be
//! static.

use stonelog_protocol::ErrorCode;
use stonelog_protocol::messages::{HeartbeatRequest as WireRequest, HeartbeatResponse};

use crate::coordinator::group::message::HeartbeatRequest;
use crate::coordinator::runtime;
use crate::handlers::group_names::{instance_id, member_id, named_group_id};
use crate::request::RequestContext;

/// Answers a Heartbeat request.
pub async fn handle(context: &RequestContext, request: WireRequest) -> HeartbeatResponse {
    let error = heartbeat(context, request).await.unwrap_or_else(said_as);
    HeartbeatResponse::default().with_error_code(error.code())
}

/// As in Kafka: nobody's session ends while the group is read back, so a member learns nothing from being told. Some
/// clients would leave the group.
fn said_as(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::CoordinatorLoadInProgress => ErrorCode::None,
        error => error,
    }
}

async fn heartbeat(context: &RequestContext, request: WireRequest) -> Result<ErrorCode, ErrorCode> {
    let request = HeartbeatRequest {
        group: named_group_id(&request.group_id)?,
        generation: request.generation_id,
        member_id: member_id(&request.member_id)?,
        instance_id: instance_id(request.group_instance_id.as_ref())?,
    };
    let group = request.group.clone();
    runtime::read(context, &group, move |groups, now| groups.heartbeat(&request, now)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_group_that_is_read_back_are_not_told() {
        assert_eq!(said_as(ErrorCode::CoordinatorLoadInProgress), ErrorCode::None);
        assert_eq!(said_as(ErrorCode::NotCoordinator), ErrorCode::NotCoordinator);
    }
}
