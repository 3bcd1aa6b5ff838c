//! DeleteGroups (key 42): groups without members are removed, with everything they committed.
//!
//! *Versions*: 0–2. Each group is answered on its own, and once however often it is named, as in Kafka.

use std::collections::{BTreeMap, HashSet, VecDeque};

use stonelog_protocol::messages::delete_groups_response::DeletableGroupResult;
use stonelog_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId as WireGroupId};
use stonelog_protocol::{ErrorCode, TopicPartition};

use crate::coordinator::group::message::{DeleteGroupsResponse as DeletedGroups, Response};
use crate::coordinator::group::names::GroupId;
use crate::coordinator::runtime;
use crate::handlers::group_names::named_group_id;
use crate::request::RequestContext;

/// Answers a DeleteGroups request.
pub async fn handle(context: &RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results: Vec<_> =
        distinct(request.groups_names).map(|name| DeletableGroupResult::default().with_group_id(name)).collect();
    // As few decisions, and so writes, as may be for all groups of a partition.
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
        let mut left = VecDeque::from(groups);
        while !left.is_empty() {
            let names = left.iter().map(|(_, group)| group.clone()).collect();
            match delete(context, owned, names).await {
                Ok(answered) => {
                    for (group, error) in answered.groups {
                        let (place, named) = left.pop_front().expect("only groups that were named are answered");
                        assert_eq!(named, group, "in the order they were named");
                        results[place].error_code = error.code();
                    }
                }
                Err(error) => left.drain(..).for_each(|(place, _)| results[place].error_code = error.code()),
            }
        }
    }
    DeleteGroupsResponse::default().with_results(results)
}

/// Each name once, where it stood first.
fn distinct(names: Vec<WireGroupId>) -> impl Iterator<Item = WireGroupId> {
    let mut seen = HashSet::with_capacity(names.len());
    names.into_iter().filter(move |name| seen.insert(name.clone()))
}

async fn delete(
    context: &RequestContext,
    owned: TopicPartition,
    names: Vec<GroupId>,
) -> Result<DeletedGroups, ErrorCode> {
    let decide = move |groups: &mut runtime::Groups, ticket, _| groups.decide_delete_groups(names, ticket);
    match runtime::decide_at(context, owned, decide).await? {
        Response::DeleteGroups(deleted) => Ok(deleted),
        other => unreachable!("a DeleteGroups is answered as one, not with {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::StrBytes;

    use super::*;

    #[test]
    fn a_group_that_is_named_twice_is_asked_for_once() {
        let names = ["b", "a", "b", "a"].map(|name| WireGroupId(StrBytes::from_static_str(name)));
        let asked: Vec<String> = distinct(names.to_vec()).map(|name| name.to_string()).collect();
        assert_eq!(asked, ["b", "a"]);
    }
}
