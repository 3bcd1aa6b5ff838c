//! DeleteGroups (key 42): groups without members are removed, with everything they committed.
//!
//! *Versions*: 0–2. Each group is answered on its own.

use std::collections::BTreeMap;

use stonelog_protocol::messages::delete_groups_response::DeletableGroupResult;
use stonelog_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use stonelog_protocol::{ErrorCode, TopicPartition};

use crate::coordinator::group::message::Response;
use crate::coordinator::group::names::GroupId;
use crate::coordinator::runtime;
use crate::handlers::group_names::named_group_id;
use crate::request::RequestContext;

/// Answers a DeleteGroups request.
pub async fn handle(context: &RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results: Vec<_> =
        request.groups_names.into_iter().map(|name| DeletableGroupResult::default().with_group_id(name)).collect();
    // One decision, and so one write, for all groups of a partition.
    let mut by_owner: BTreeMap<TopicPartition, Vec<(usize, GroupId)>> = BTreeMap::new();
    for (place, result) in results.iter_mut().enumerate() {
        let located =
            named_group_id(&result.group_id).and_then(|group| Ok((runtime::owner_of(context, &group)?, group)));
        match located {
            Ok((owned, group)) => by_owner.entry(owned).or_default().push((place, group)),
            Err(error) => result.error_code = error.code(),
        }
    }
    for (owned, groups) in by_owner {
        let (places, groups): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
        let errors = match delete(context, owned, groups).await {
            Ok(deleted) => deleted.into_iter().map(|(_, error)| error).collect(),
            Err(error) => vec![error; places.len()],
        };
        assert_eq!(places.len(), errors.len(), "each group is answered");
        for (place, error) in places.into_iter().zip(errors) {
            results[place].error_code = error.code();
        }
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete(
    context: &RequestContext,
    owned: TopicPartition,
    names: Vec<GroupId>,
) -> Result<Vec<(GroupId, ErrorCode)>, ErrorCode> {
    let decide = move |groups: &mut runtime::Groups, ticket, _| groups.decide_delete_groups(names, ticket);
    match runtime::decide_at(context, owned, decide).await? {
        Response::DeleteGroups(deleted) => Ok(deleted),
        other => unreachable!("a DeleteGroups is answered as one, not with {other:?}"),
    }
}
