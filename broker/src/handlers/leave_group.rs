//! LeaveGroup (key 13): members go, or an administrator removes them.
//!
//! *Versions*: 0–5. Before 3 there is one member, and its error is the response's; from 3 on several are answered one
//! by one (KIP-345), from 5 on each may say why.

use stonelog_protocol::ErrorCode;
use stonelog_protocol::messages::leave_group_request::MemberIdentity;
use stonelog_protocol::messages::leave_group_response::MemberResponse;
use stonelog_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::coordinator::group::message::{LeaveRequest, LeaveResponse, LeavingMember, Response};
use crate::coordinator::runtime;
use crate::handlers::group_names::{instance_id, member_id, named_group_id, text};
use crate::request::RequestContext;

/// Answers a LeaveGroup request.
pub async fn handle(context: &RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let left = match domain(context.version(), request) {
        Ok(request) => leave(context, request).await,
        Err(error) => Err(error),
    };
    answer(context.version(), left.unwrap_or_else(|error| LeaveResponse { error, members: Vec::new() }))
}

async fn leave(context: &RequestContext, request: LeaveRequest) -> Result<LeaveResponse, ErrorCode> {
    let group = request.group.clone();
    let decide = move |groups: &mut runtime::Groups, ticket, now| groups.decide_leave(request, ticket, now);
    match runtime::decide(context, &group, decide).await? {
        Response::Leave(response) => Ok(response),
        other => unreachable!("a LeaveGroup is answered as one, not with {other:?}"),
    }
}

fn domain(version: i16, request: LeaveGroupRequest) -> Result<LeaveRequest, ErrorCode> {
    let group = named_group_id(&request.group_id)?;
    let members = match version {
        ..=2 => vec![MemberIdentity::default().with_member_id(request.member_id)],
        _ => request.members,
    };
    let one = |member: MemberIdentity| {
        if let Some(reason) = member.reason.as_ref().filter(|reason| !reason.is_empty()) {
            tracing::debug!(%group, member = %&*member.member_id, "leaves: {}", &**reason);
        }
        Ok(LeavingMember {
            member_id: member_id(&member.member_id)?,
            instance_id: instance_id(member.group_instance_id.as_ref())?,
        })
    };
    let members = members.into_iter().map(one).collect::<Result<_, ErrorCode>>()?;
    Ok(LeaveRequest { group, members })
}

fn answer(version: i16, response: LeaveResponse) -> LeaveGroupResponse {
    if version < 3 {
        let of_member = response.members.first().map_or(ErrorCode::None, |(_, error)| *error);
        let error = if response.error.is_error() { response.error } else { of_member };
        return LeaveGroupResponse::default().with_error_code(error.code());
    }
    let members = response.members.into_iter().map(|(member, error)| {
        MemberResponse::default()
            .with_member_id(text(member.member_id.as_str()))
            .with_group_instance_id(member.instance_id.map(|id| text(id.as_str())))
            .with_error_code(error.code())
    });
    LeaveGroupResponse::default().with_error_code(response.error.code()).with_members(members.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::group::names::MemberId;

    #[test]
    fn old_versions_have_one_error_for_the_one_member() {
        let member = LeavingMember { member_id: MemberId::new("a").unwrap(), instance_id: None };
        let members = vec![(member, ErrorCode::UnknownMemberId)];
        let response = LeaveResponse { error: ErrorCode::None, members };
        let folded = answer(2, response.clone());
        assert_eq!((folded.error_code, folded.members.len()), (ErrorCode::UnknownMemberId.code(), 0));
        let listed = answer(3, response);
        assert_eq!((listed.error_code, listed.members[0].error_code), (0, ErrorCode::UnknownMemberId.code()));
    }
}
