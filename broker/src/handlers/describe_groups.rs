//! DescribeGroups (key 15): who is in these groups.
//!
//! *Versions*: 0–6. From 4 on static members are named, from 6 on a group that does not exist is GROUP_ID_NOT_FOUND
//! (KIP-1043); before it is `Dead`.
//! *Differences from Kafka*: authorized operations are never filled in: there is no authorizer yet. A
//! group that is named twice is answered once.

use std::collections::HashSet;

use stonelog_protocol::ErrorCode;
use stonelog_protocol::messages::describe_groups_response::{DescribedGroup as WireGroup, DescribedGroupMember};
use stonelog_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use crate::coordinator::group::message::DescribedGroup;
use crate::coordinator::runtime;
use crate::handlers::group_names::{group_id, text, wire_group_id};
use crate::request::RequestContext;

/// Answers a DescribeGroups request.
pub async fn handle(context: &RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    // Each group is answered once: its members' metadata may be megabytes.
    let mut seen = HashSet::new();
    for name in request.groups.into_iter().filter(|name| seen.insert(name.clone())) {
        groups.push(match describe(context, &name).await {
            Ok(described) => answer(context.version(), described),
            Err(error) => WireGroup::default().with_group_id(name).with_error_code(error.code()),
        });
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

async fn describe(context: &RequestContext, name: &str) -> Result<DescribedGroup, ErrorCode> {
    let knows_group_id_not_found = context.version() >= 6;
    let group = group_id(name)?;
    let asked = group.clone();
    runtime::read(context, &group, move |groups, _| groups.describe(&asked, knows_group_id_not_found)).await
}

fn answer(version: i16, group: DescribedGroup) -> WireGroup {
    let members = group.members.into_iter().map(|member| {
        let static_name = member.instance_id.filter(|_| version >= 4);
        DescribedGroupMember::default()
            .with_member_id(text(member.member_id.as_str()))
            .with_group_instance_id(static_name.map(|id| text(id.as_str())))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    });
    WireGroup::default()
        .with_error_code(group.error.code())
        .with_error_message(group.error_message.filter(|_| version >= 6).map(|message| text(&message)))
        .with_group_id(wire_group_id(&group.group))
        .with_group_state(text(group.state))
        .with_protocol_type(text(&group.protocol_type))
        .with_protocol_data(text(&group.protocol))
        .with_members(members.collect())
}
