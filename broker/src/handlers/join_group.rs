//! JoinGroup (key 11): a member asks to be in a group's next generation.
//!
//! *Behaviour*: answered when the join phase ends, which may be as late as the members' rebalance timeout; see
//! [`group::join`](crate::coordinator::group::join). *Versions*: 0–9. Before 1 there is one timeout only; from 4 on a
//! member first gets its id (KIP-394), from 5 on it may be static (KIP-345), from 7 on the protocol may be null, from 9
//! on a leader can be told to keep the assignment (KIP-814).

use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::messages::join_group_response::JoinGroupResponseMember;
use stonelog_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use stonelog_protocol::{ErrorCode, Uuid};

use crate::coordinator::group::message::{JoinRequest, JoinResponse, Protocol, Response};
use crate::coordinator::group::names::MemberId;
use crate::coordinator::runtime;
use crate::handlers::group_names::{instance_id, member_id, named_group_id, text};
use crate::request::RequestContext;

/// Answers a JoinGroup request.
pub async fn handle(context: &RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
    if let Some(reason) = request.reason.as_ref().filter(|reason| !reason.is_empty()) {
        tracing::debug!(group = %&**request.group_id, member = %&*request.member_id, "joins: {}", &**reason);
    }
    let asked = member_id(&request.member_id).unwrap_or_else(|_| MemberId::unknown());
    let joined = match domain(context, request) {
        Ok(request) => join(context, request).await,
        Err(error) => Err(error),
    };
    answer(context.version(), joined.unwrap_or_else(|error| JoinResponse::refused(error, asked)))
}

async fn join(context: &RequestContext, request: JoinRequest) -> Result<JoinResponse, ErrorCode> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| ErrorCode::UnknownServerError)?;
    let random = Uuid::from_random(random);
    let group = request.group.clone();
    let decide = move |groups: &mut runtime::Groups, ticket, now| groups.decide_join(request, ticket, random, now);
    match runtime::decide(context, &group, decide).await? {
        Response::Join(response) => Ok(response),
        other => unreachable!("a JoinGroup is answered as one, not with {other:?}"),
    }
}

fn domain(context: &RequestContext, request: JoinGroupRequest) -> Result<JoinRequest, ErrorCode> {
    let version = context.version();
    let protocols = request.protocols.iter();
    let protocols = protocols.map(|protocol| Protocol {
        name: Arc::from(&*protocol.name),
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    });
    Ok(JoinRequest {
        group: named_group_id(&request.group_id)?,
        member_id: member_id(&request.member_id)?,
        instance_id: instance_id(request.group_instance_id.as_ref())?,
        client_id: Arc::clone(&context.head.client_id),
        client_host: Arc::from(format!("/{}", context.peer.ip().to_canonical())),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: (version >= 1).then_some(request.rebalance_timeout_ms),
        protocol_type: Arc::from(&*request.protocol_type),
        protocols: protocols.collect(),
        requires_known_member_id: version >= 4,
        supports_skipping_assignment: version >= 9,
    })
}

fn answer(version: i16, response: JoinResponse) -> JoinGroupResponse {
    let optional = |name: Option<Arc<str>>| name.map(|name| text(&name));
    let protocol = optional(response.protocol);
    let members = response.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(member.member_id.as_str()))
            .with_group_instance_id(member.instance_id.map(|id| text(id.as_str())))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_error_code(response.error.code())
        .with_generation_id(response.generation)
        .with_protocol_type(optional(response.protocol_type))
        .with_protocol_name(if version >= 7 { protocol } else { Some(protocol.unwrap_or_default()) })
        .with_leader(text(response.leader.as_str()))
        .with_skip_assignment(response.skip_assignment)
        .with_member_id(text(response.member_id.as_str()))
        .with_members(members.collect())
}
