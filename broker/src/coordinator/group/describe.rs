//! DescribeGroups and ListGroups: what groups are there, and who is in them.
//!
//! *Versions.* DescribeGroups 6 tells a group that does not exist by GROUP_ID_NOT_FOUND with a sentence (KIP-1043);
//! before, and also there, its state is `Dead`. ListGroups 4 and 5 filter by state and by kind of group, without
//! regard to case; a filter that names nothing known matches nothing.

use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::ErrorCode;

use super::Groups;
use super::live::{LiveGroup, State};
use super::member::Member;
use super::message::{DescribedGroup, DescribedMember, ListedGroup};
use super::names::GroupId;

/// The kind of every group here, as ListGroups names it.
pub const GROUP_TYPE: &str = "classic";
/// What a group that does not exist is said to be.
pub const STATE_DEAD: &str = "Dead";

impl Groups {
    /// Lists the groups that match both filters; an empty filter matches all.
    pub fn list(&self, states: &[&str], types: &[&str]) -> Vec<ListedGroup> {
        let matches = |filter: &[&str], name: &str| {
            filter.is_empty() || filter.iter().any(|one| one.trim().eq_ignore_ascii_case(name))
        };
        if !matches(types, GROUP_TYPE) {
            return Vec::new();
        }
        // What the filter lets through is found out once, not for every group.
        let every = [State::Empty, State::PreparingRebalance, State::CompletingRebalance, State::Stable];
        let wanted: Vec<&str> = every.map(State::name).into_iter().filter(|name| matches(states, name)).collect();
        let only_live = self.live.keys().filter(|group| self.hard.get(group).is_none());
        let mut groups: Vec<&GroupId> = self.hard.iter().map(|(group, _)| group).chain(only_live).collect();
        groups.sort_unstable();
        let listed = groups.into_iter().map(|group| ListedGroup {
            group: group.clone(),
            protocol_type: self.protocol_type(group),
            state: self.state(group).map_or(STATE_DEAD, State::name),
            group_type: GROUP_TYPE,
        });
        listed.filter(|listed| wanted.contains(&listed.state)).collect()
    }

    /// Describes one group. `knows_group_id_not_found` is true for versions 6 and up.
    pub fn describe(&self, group: &GroupId, knows_group_id_not_found: bool) -> DescribedGroup {
        let Some(state) = self.state(group) else {
            let (error, error_message) = match knows_group_id_not_found {
                true => (ErrorCode::GroupIdNotFound, Some(format!("Group {group} not found."))),
                false => (ErrorCode::None, None),
            };
            return DescribedGroup {
                error,
                error_message,
                group: group.clone(),
                state: STATE_DEAD,
                protocol_type: Arc::from(""),
                protocol: Arc::from(""),
                members: Vec::new(),
            };
        };
        let live = self.live.get(group);
        let protocol = live.filter(|live| live.state == State::Stable).and_then(|live| live.protocol.clone());
        DescribedGroup {
            error: ErrorCode::None,
            error_message: None,
            group: group.clone(),
            state: state.name(),
            protocol_type: self.protocol_type(group),
            protocol: protocol.clone().unwrap_or_default(),
            members: live.map_or_else(Vec::new, |live| described_members(live, protocol.as_deref())),
        }
    }

    fn protocol_type(&self, group: &GroupId) -> Arc<str> {
        let live = self.live.get(group).map(|live| live.protocol_type.clone());
        let stored = || self.hard.metadata(group).map(|stored| stored.protocol_type.clone());
        live.unwrap_or_else(stored).unwrap_or_default()
    }
}

fn described_members(live: &LiveGroup, protocol: Option<&str>) -> Vec<DescribedMember> {
    let described = |member: &Member| DescribedMember {
        member_id: member.id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: protocol.map_or_else(Bytes::new, |protocol| member.metadata(protocol)),
        assignment: member.assignment.clone(),
    };
    live.members.values().map(described).collect()
}

#[cfg(test)]
mod tests {
    use super::super::message::{CommitRequest, JoinRequest};
    use super::super::names::MemberId;
    use super::super::testing::{World, commit_request, group, instance, join_request, subscription};
    use super::*;

    #[test]
    fn a_stable_group_shows_members_with_metadata_and_assignment() {
        let mut world = World::new();
        let fixed = JoinRequest { instance_id: Some(instance("i")), ..join_request() };
        let ids = world.stable_with(vec![fixed]);
        let expected = DescribedGroup {
            error: ErrorCode::None,
            error_message: None,
            group: group("g"),
            state: "Stable",
            protocol_type: Arc::from("consumer"),
            protocol: Arc::from("range"),
            members: vec![DescribedMember {
                member_id: ids[0].clone(),
                instance_id: Some(instance("i")),
                client_id: Arc::from("client"),
                client_host: Arc::from("/127.0.0.1"),
                metadata: subscription(&["t"]),
                assignment: Bytes::copy_from_slice(ids[0].as_str().as_bytes()),
            }],
        };
        assert_eq!(world.groups.describe(&group("g"), true), expected);
        world.join(join_request());
        let preparing = world.groups.describe(&group("g"), true);
        assert_eq!((preparing.state, &*preparing.protocol, preparing.members.len()), ("PreparingRebalance", "", 2));
        assert!(preparing.members.iter().all(|member| member.metadata.is_empty()));
    }

    #[test]
    fn a_group_that_is_not_there_is_dead() {
        let world = World::new();
        let described = world.groups.describe(&group("g"), false);
        assert_eq!((described.error, described.state), (ErrorCode::None, "Dead"));
        let described = world.groups.describe(&group("g"), true);
        assert_eq!((described.error, described.state), (ErrorCode::GroupIdNotFound, "Dead"));
        assert_eq!(described.error_message.as_deref(), Some("Group g not found."));
    }

    #[test]
    fn groups_are_listed_by_state_and_kind() {
        let mut world = World::new();
        world.stable(1);
        world.commit(CommitRequest { group: group("a"), ..commit_request(-1, &MemberId::unknown(), 1) });
        world.join(JoinRequest { group: group("z"), ..join_request() });
        let names = |states: &[&str], types: &[&str]| {
            let listed = world.groups.list(states, types);
            listed
                .into_iter()
                .map(|one| format!("{}:{}:{}", one.group, one.protocol_type, one.state))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&[], &[]), ["a::Empty", "g:consumer:Stable", "z:consumer:PreparingRebalance"]);
        assert_eq!(names(&["stable", " EMPTY "], &["CLASSIC"]), ["a::Empty", "g:consumer:Stable"]);
        assert_eq!(names(&["Dead"], &[]), Vec::<String>::new());
        assert_eq!(names(&[], &["consumer", "nonsense"]), Vec::<String>::new());
        assert_eq!(names(&[], &["consumer", "classic"]).len(), 3);
    }

    #[test]
    fn an_empty_group_keeps_its_protocol_type() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.leave_as(&ids[0]);
        let described = world.groups.describe(&group("g"), true);
        assert_eq!((described.state, &*described.protocol_type, &*described.protocol), ("Empty", "consumer", ""));
        assert_eq!(world.groups.list(&["Empty"], &[])[0].protocol_type.as_ref(), "consumer");
    }
}
