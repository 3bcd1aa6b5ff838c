//! Static members (KIP-345): members with a name of their own, who keep their place when they come back.
//!
//! A client that restarts joins with its instance id and no member id. It gets a new member id and the old one is
//! fenced; in a Stable group whose protocol stays the same nobody else notices, and a leader is told that its
//! assignment stands (KIP-814). Being silent for a session ends a static member as any other.

use super::live::State;
use super::message::JoinRequest;
use super::names::MemberId;
use super::rebalance::Turn;
use super::{Then, Ticket};

impl Turn<'_> {
    /// A static member comes back without an id, after a restart: it takes its own place under a new one.
    pub(super) fn join_in_place(&mut self, old_id: &MemberId, new_id: MemberId, request: &JoinRequest, ticket: Ticket) {
        let leader_before = self.group.leader.clone();
        let old = self.group.members[old_id].clone();
        let mut new = old.clone();
        new.id = new_id.clone();
        self.replace_member(old_id, new);
        self.group.update(&new_id, request);
        self.reset_session(&new_id);
        match self.group.state {
            State::Stable if self.group.protocol.as_ref() == Some(&self.group.select_protocol()) => {
                // Nothing changes for the others: its assignment stands, only the id must be stored.
                let stored = self.group.to_stored(&self.group.assignments());
                self.decision.records.push(self.group_record(stored));
                let mut response = self.group.join_response(&new_id);
                if request.supports_skipping_assignment {
                    response.skip_assignment = self.group.is_leader(&new_id);
                } else {
                    // An older client that is told it leads would assign anew, and nobody would ask for the result.
                    response.members.clear();
                    response.leader = leader_before.unwrap_or_else(MemberId::unknown);
                }
                self.answer_join(ticket, response);
                self.decision.then = Then::Replace { group: self.group.id.clone(), old: Box::new(old), new_id };
            }
            State::PreparingRebalance => {
                self.park_join(&new_id, ticket);
                self.maybe_complete_join();
            }
            // In CompletingRebalance the leader may be assigning to the old id just now.
            State::Stable | State::CompletingRebalance => {
                self.park_join(&new_id, ticket);
                self.prepare_rebalance();
            }
            State::Empty => unreachable!("an Empty group has no member to replace"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stonelog_protocol::ErrorCode;

    use super::super::message::Protocol;
    use super::super::testing::{World, group, instance, join_request, subscription};
    use super::*;

    fn static_join(name: &str) -> JoinRequest {
        JoinRequest { instance_id: Some(instance(name)), ..join_request() }
    }

    fn offers(names: &[&str]) -> Vec<Protocol> {
        names.iter().map(|name| Protocol { name: Arc::from(*name), metadata: subscription(&["t"]) }).collect()
    }

    #[test]
    fn a_static_member_joins_without_asking_for_an_id_first() {
        let mut world = World::new();
        let ids = world.completing_with(vec![static_join("i1")]);
        assert!(ids[0].as_str().starts_with("i1-"));
    }

    #[test]
    fn a_static_member_takes_its_own_place_in_a_stable_group_without_a_rebalance() {
        let mut world = World::new();
        let ids = world.stable_with(vec![static_join("i1"), static_join("i2")]);
        let appended = world.log.len();
        let ticket = world.join(static_join("i2"));
        let joined = world.joined(ticket).unwrap();
        assert_eq!((joined.error, joined.generation, joined.skip_assignment), (ErrorCode::None, 1, false));
        assert_ne!(joined.member_id, ids[1]);
        assert_eq!(world.state(), Some(State::Stable));
        assert_eq!(world.log.len(), appended + 1, "the new id is stored");
        // The assignment is the one of the old id, and the old id is fenced.
        let ticket = world.sync_as(&joined.member_id, 1, &[]);
        assert_eq!(world.synced(ticket).unwrap().assignment, ids[1].as_str().as_bytes());
        let fenced = JoinRequest { member_id: ids[1].clone(), ..static_join("i2") };
        assert_eq!(world.join_error(fenced), ErrorCode::FencedInstanceId);
        assert_eq!(world.heartbeat(&ids[1], 1), ErrorCode::UnknownMemberId);
        let unknown = JoinRequest { member_id: joined.member_id, ..static_join("i9") };
        assert_eq!(world.join_error(unknown), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn a_static_leader_that_returns_is_told_to_keep_the_assignment() {
        let mut world = World::new();
        let leader = world.stable_with(vec![static_join("i1"), static_join("i2")])[0].clone();
        let name = leader.as_str()[..2].to_owned();
        let ticket = world.join(static_join(&name));
        let joined = world.joined(ticket).unwrap();
        assert!(joined.skip_assignment && joined.leader == joined.member_id && joined.members.len() == 2);
        // An older client does not know the flag: it is told that somebody else leads.
        let ticket = world.join(JoinRequest { supports_skipping_assignment: false, ..static_join(&name) });
        let older = world.joined(ticket).unwrap();
        assert_eq!((older.leader, older.members.len()), (joined.member_id, 0));
        assert!(!older.skip_assignment);
    }

    #[test]
    fn a_static_member_whose_protocol_changes_makes_the_group_rebalance() {
        let mut world = World::new();
        let both = JoinRequest { protocols: offers(&["range", "sticky"]), ..static_join("i1") };
        world.stable_with(vec![both]);
        let ticket = world.join(JoinRequest { protocols: offers(&["sticky"]), ..static_join("i1") });
        let joined = world.joined(ticket).unwrap();
        assert_eq!((joined.generation, joined.protocol.as_deref()), (2, Some("sticky")));
    }

    #[test]
    fn a_static_member_that_returns_while_completing_makes_the_group_rebalance() {
        let mut world = World::new();
        let ids = world.completing_with(vec![static_join("i1"), static_join("i2")]);
        let waiting = world.sync_as(&ids[1], 1, &[]);
        let name = ids[1].as_str()[..2].to_owned();
        world.join(static_join(&name));
        assert_eq!(world.synced(waiting).unwrap().error, ErrorCode::FencedInstanceId);
        assert_eq!(world.state(), Some(State::PreparingRebalance));
    }

    #[test]
    fn a_static_member_that_returns_twice_while_preparing_fences_its_older_self() {
        let mut world = World::new();
        world.stable_with(vec![static_join("i1"), static_join("i2")]);
        world.join(join_request());
        let older = world.join(static_join("i1"));
        let newer = world.join(static_join("i1"));
        assert_eq!(world.joined(older).unwrap().error, ErrorCode::FencedInstanceId);
        assert_eq!(world.joined(newer), None);
        let other = world.join(static_join("i2"));
        assert_eq!(world.joined(other).unwrap().generation, 2);
    }

    #[test]
    fn a_replacement_that_cannot_be_stored_leaves_the_old_id_in_place() {
        let mut world = World::new();
        let ids = world.stable_with(vec![static_join("i1"), static_join("i2")]);
        world.refusal = Some(ErrorCode::NotEnoughReplicas);
        let name = ids[0].as_str()[..2].to_owned();
        let ticket = world.join(static_join(&name));
        let refused = world.joined(ticket).unwrap();
        assert_eq!((refused.error, refused.generation), (ErrorCode::CoordinatorNotAvailable, -1));
        assert_eq!(world.heartbeat(&ids[0], 1), ErrorCode::None);
        world.has_refused = false;
        world.check();
    }

    #[test]
    fn absent_static_members_stay_until_their_session_ends() {
        let mut world = World::new();
        let ids = world.stable_with(vec![static_join("i1"), static_join("i2"), join_request()]);
        // The dynamic member leaves: the group rebalances, and nobody comes.
        let dynamic = ids.iter().find(|id| id.as_str().starts_with("client")).unwrap().clone();
        assert_eq!(world.leave_as(&dynamic), ErrorCode::None);
        let returning = world.join(static_join("i1"));
        for _ in 0..12 {
            world.advance_ms(5_000);
            let absent = ids.iter().find(|id| id.as_str().starts_with("i2")).unwrap().clone();
            if world.joined(returning).is_some() {
                return assert_eq!(world.groups.live[&group("g")].members.len(), 2, "the absent one is still a member");
            }
            world.heartbeat(&absent, 1);
        }
        assert!(world.joined(returning).is_some(), "the join phase ends after the rebalance timeout");
        assert_eq!(world.groups.live[&group("g")].members.len(), 2);
    }
}
