//! ListGroups (key 16): every group this broker owns.
//!
//! *Versions*: 0–5. From 4 on filtered by state (KIP-518), from 5 on by kind (KIP-848).

use std::sync::Arc;

use stonelog_protocol::StrBytes;
use stonelog_protocol::messages::list_groups_response::ListedGroup as WireGroup;
use stonelog_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use crate::coordinator::group::message::ListedGroup;
use crate::coordinator::runtime;
use crate::handlers::group_names::{text, wire_group_id};
use crate::request::RequestContext;

/// Answers a ListGroups request.
pub async fn handle(context: &RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    let texts = |filter: Vec<StrBytes>| filter.iter().map(|text| text.to_string()).collect::<Arc<[String]>>();
    let (states, types) = (texts(request.states_filter), texts(request.types_filter));
    let list = move |groups: &mut runtime::Groups, _| {
        let states: Vec<&str> = states.iter().map(String::as_str).collect();
        let types: Vec<&str> = types.iter().map(String::as_str).collect();
        groups.list(&states, &types)
    };
    match runtime::read_every(context, list).await {
        Ok(listed) => {
            let groups = listed.into_iter().flatten().map(|group| answer(context.version(), &group)).collect();
            ListGroupsResponse::default().with_groups(groups)
        }
        Err(error) => ListGroupsResponse::default().with_error_code(error.code()),
    }
}

fn answer(version: i16, group: &ListedGroup) -> WireGroup {
    let from = |since: i16, value: &str| if version >= since { text(value) } else { StrBytes::default() };
    WireGroup::default()
        .with_group_id(wire_group_id(&group.group))
        .with_protocol_type(text(&group.protocol_type))
        .with_group_state(from(4, group.state))
        .with_group_type(from(5, group.group_type))
}
