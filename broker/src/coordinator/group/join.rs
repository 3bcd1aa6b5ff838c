//! JoinGroup: a client wants to be a member, or a member says it is still there and what it wants now.
//!
//! *Behaviour.* The answer waits until the join phase ends, except where there is nothing to wait for: an error, an id
//! to come back with, a follower whose wishes have not changed, a static member that takes its own place again.
//!
//! | state | a new member | a member |
//! |---|---|---|
//! | Empty | a rebalance begins, and waits some seconds for more members | UNKNOWN_MEMBER_ID |
//! | PreparingRebalance | parked | parked |
//! | CompletingRebalance | a new rebalance | the present generation; a new rebalance if its metadata changed |
//! | Stable | a new rebalance | the present generation; a new rebalance for the leader or on changed metadata |
//!
//! Members may be dynamic or static (KIP-345), known ids required (KIP-394) or not, and a leader may be told that its
//! assignment stands (KIP-814).

use stonelog_protocol::{ErrorCode, Uuid};

use super::config::{
    LIVE_GROUPS_MAX, MEMBER_METADATA_BYTES_MAX, NEW_MEMBER_JOIN_TIMEOUT, PENDING_MEMBERS_MAX, PROTOCOLS_PER_MEMBER_MAX,
};
use super::live::{LiveGroup, State};
use super::member::{Member, millis};
use super::message::{JoinRequest, JoinResponse, Response};
use super::names::{MemberId, TEXT_BYTES_MAX};
use super::rebalance::Turn;
use super::{Config, Decision, Groups, Now, Ticket};

impl Groups {
    /// Decides a JoinGroup. `random` becomes part of the member's id if it needs one.
    pub fn decide_join(&mut self, request: JoinRequest, ticket: Ticket, random: Uuid, now: Now) -> Decision {
        let refuse =
            |error, member_id| Decision::answer(ticket, Response::Join(JoinResponse::refused(error, member_id)));
        if let Err(error) = check(&request, &self.config) {
            return refuse(error, request.member_id);
        }
        if !self.live.contains_key(&request.group) {
            let stored = self.hard.get(&request.group);
            if stored.is_none() && !request.member_id.is_empty() {
                return refuse(ErrorCode::UnknownMemberId, request.member_id);
            }
            if self.live.len() >= LIVE_GROUPS_MAX {
                return refuse(ErrorCode::CoordinatorNotAvailable, request.member_id);
            }
            let live = match stored.and_then(|stored| stored.metadata.as_ref()) {
                Some(metadata) => {
                    assert!(metadata.members.is_empty(), "a group with members is live");
                    LiveGroup::from_stored(request.group.clone(), metadata)
                }
                None => LiveGroup::new(request.group.clone()),
            };
            self.live.insert(request.group.clone(), live);
        }
        let mut turn = self.turn(&request.group, now).expect("just made live");
        turn.join(&request, ticket, random);
        let decision = turn.decision;
        self.settle(&request.group);
        decision
    }
}

/// What can be said about a request without looking at the group.
fn check(request: &JoinRequest, config: &Config) -> Result<(), ErrorCode> {
    if request.group.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    if !(config.session_timeout_min..=config.session_timeout_max).contains(&millis(request.session_timeout_ms)) {
        return Err(ErrorCode::InvalidSessionTimeout);
    }
    let mut texts = vec![&request.client_id, &request.client_host, &request.protocol_type];
    texts.extend(request.protocols.iter().map(|protocol| &protocol.name));
    let metadata_bytes: usize = request.protocols.iter().map(|protocol| protocol.metadata.len()).sum();
    if texts.iter().any(|text| text.len() > TEXT_BYTES_MAX)
        || request.protocols.len() > PROTOCOLS_PER_MEMBER_MAX
        || metadata_bytes > MEMBER_METADATA_BYTES_MAX
    {
        return Err(ErrorCode::InvalidRequest);
    }
    Ok(())
}

impl Turn<'_> {
    fn join(&mut self, request: &JoinRequest, ticket: Ticket, random: Uuid) {
        let is_unknown = request.member_id.is_empty();
        if !self.accepts(&request.member_id) {
            self.remove_member(&request.member_id);
            self.answer_join(ticket, JoinResponse::refused(ErrorCode::GroupMaxSizeReached, MemberId::unknown()));
            self.maybe_complete_join();
        } else if !self.group.supports(&request.protocol_type, &request.protocols) {
            let response = JoinResponse::refused(ErrorCode::InconsistentGroupProtocol, request.member_id.clone());
            self.answer_join(ticket, response);
        } else if is_unknown {
            self.join_new(request, ticket, random);
        } else if self.group.pending_joins.contains(&request.member_id) && request.instance_id.is_none() {
            self.add_member(request.member_id.clone(), request, ticket);
        } else {
            self.join_again(request, ticket);
        }
    }

    /// Whether there is room. While a rebalance is prepared those who have joined count, not those who were members:
    /// after the limit was lowered, that turns the last to come away.
    fn accepts(&self, member_id: &MemberId) -> bool {
        let members_max = self.config.group_members_max;
        match self.group.state {
            State::Empty => true,
            State::PreparingRebalance => {
                self.group.joins.contains_key(member_id) || self.group.joins.len() < members_max
            }
            State::CompletingRebalance | State::Stable => {
                self.group.members.contains_key(member_id) || self.group.members.len() < members_max
            }
        }
    }

    fn join_new(&mut self, request: &JoinRequest, ticket: Ticket, random: Uuid) {
        let new_id = MemberId::generate(request.instance_id.as_ref(), &request.client_id, random);
        match &request.instance_id {
            Some(instance_id) => match self.group.instances.get(instance_id).cloned() {
                Some(old_id) => self.join_in_place(&old_id, new_id, request, ticket),
                None => self.add_member(new_id, request, ticket),
            },
            None if !request.requires_known_member_id => self.add_member(new_id, request, ticket),
            None if self.group.pending_joins.len() >= PENDING_MEMBERS_MAX => {
                self.answer_join(ticket, JoinResponse::refused(ErrorCode::GroupMaxSizeReached, MemberId::unknown()));
            }
            None => {
                self.group.pending_joins.insert(new_id.clone());
                self.set_session(&new_id, millis(request.session_timeout_ms));
                self.answer_join(ticket, JoinResponse::refused(ErrorCode::MemberIdRequired, new_id));
            }
        }
    }

    fn add_member(&mut self, member_id: MemberId, request: &JoinRequest, ticket: Ticket) {
        self.group.add(Member::from_request(member_id.clone(), request), &request.protocol_type);
        if self.group.initial.is_some() {
            self.group.joined_during_initial = true;
        }
        self.park_join(&member_id, ticket);
        // It has no generation to heartbeat in yet; this bounds how long a client that has gone is waited for.
        self.set_session(&member_id, NEW_MEMBER_JOIN_TIMEOUT);
        self.rebalance_or_complete_join();
    }

    /// A member joins again under its own id.
    fn join_again(&mut self, request: &JoinRequest, ticket: Ticket) {
        let member_id = &request.member_id;
        if let Err(error) = self.group.validate_member(member_id, request.instance_id.as_ref()) {
            return self.answer_join(ticket, JoinResponse::refused(error, member_id.clone()));
        }
        let unchanged = self.group.members[member_id].protocols == request.protocols;
        let stays = match self.group.state {
            State::PreparingRebalance => false,
            // It may only have missed the answer to its first JoinGroup.
            State::CompletingRebalance => unchanged,
            // The leader joins anew to have partitions assigned anew, for reasons only it can see.
            State::Stable => unchanged && !self.group.is_leader(member_id),
            State::Empty => unreachable!("an Empty group has no member to be validated"),
        };
        if stays {
            let response = self.group.join_response(member_id);
            return self.answer_join(ticket, response);
        }
        self.group.update(member_id, request);
        self.park_join(member_id, ticket);
        self.rebalance_or_complete_join();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::message::Protocol;
    use super::super::testing::{World, group, join_request, member, subscription};
    use super::*;

    fn known() -> JoinRequest {
        JoinRequest { requires_known_member_id: true, ..join_request() }
    }

    fn rejoin(member_id: &MemberId) -> JoinRequest {
        JoinRequest { member_id: member_id.clone(), ..known() }
    }

    fn offers(names: &[&str]) -> Vec<Protocol> {
        names.iter().map(|name| Protocol { name: Arc::from(*name), metadata: subscription(&["t"]) }).collect()
    }

    #[test]
    fn requests_that_cannot_be_met_are_refused_without_a_group() {
        let mut world = World::new();
        let mut refused = |request: JoinRequest| world.join_error(request);
        assert_eq!(refused(JoinRequest { group: group(""), ..known() }), ErrorCode::InvalidGroupId);
        for session_timeout_ms in [-1, 0, 5_999, 1_800_001, i32::MAX] {
            let request = JoinRequest { session_timeout_ms, ..known() };
            assert_eq!(refused(request), ErrorCode::InvalidSessionTimeout, "{session_timeout_ms}");
        }
        assert_eq!(refused(rejoin(&member("ghost"))), ErrorCode::UnknownMemberId);
        assert_eq!(refused(JoinRequest { protocols: Vec::new(), ..known() }), ErrorCode::InconsistentGroupProtocol);
        let untyped = JoinRequest { protocol_type: Arc::from(""), ..known() };
        assert_eq!(refused(untyped), ErrorCode::InconsistentGroupProtocol);
        let many = vec!["p"; PROTOCOLS_PER_MEMBER_MAX + 1];
        assert_eq!(refused(JoinRequest { protocols: offers(&many), ..known() }), ErrorCode::InvalidRequest);
        let huge = Protocol { name: Arc::from("p"), metadata: vec![0; MEMBER_METADATA_BYTES_MAX + 1].into() };
        assert_eq!(refused(JoinRequest { protocols: vec![huge], ..known() }), ErrorCode::InvalidRequest);
        let long = JoinRequest { client_id: Arc::from("c".repeat(TEXT_BYTES_MAX + 1)), ..known() };
        assert_eq!(refused(long), ErrorCode::InvalidRequest);
        assert_eq!(world.state(), None, "a refused join leaves no group behind");
    }

    #[test]
    fn known_member_ids_are_given_first_and_used_next() {
        let mut world = World::new();
        let ticket = world.join(known());
        let given = world.joined(ticket).unwrap();
        assert_eq!(given.error, ErrorCode::MemberIdRequired);
        assert!(given.member_id.as_str().starts_with("client-"));
        assert_eq!(world.state(), Some(State::Empty));

        let ticket = world.join(rejoin(&given.member_id));
        assert_eq!(world.joined(ticket), None, "parked until the join phase ends");
        assert_eq!(world.state(), Some(State::PreparingRebalance));
        world.advance_ms(3_000);
        let joined = world.joined(ticket).unwrap();
        assert_eq!((joined.error, joined.generation), (ErrorCode::None, 1));
        assert_eq!((&joined.leader, &joined.member_id), (&given.member_id, &given.member_id));
        assert_eq!(joined.protocol.as_deref(), Some("range"));
        assert_eq!(joined.protocol_type.as_deref(), Some("consumer"));
        assert_eq!(joined.members.len(), 1);
        assert!(world.log.is_empty(), "the log hears of a generation when it is assigned");
    }

    #[test]
    fn an_id_that_is_not_used_is_forgotten_after_a_session() {
        let mut world = World::new();
        let ticket = world.join(known());
        let given = world.joined(ticket).unwrap().member_id;
        world.advance_ms(9_999);
        assert_eq!(world.state(), Some(State::Empty));
        world.advance_ms(1);
        assert_eq!(world.state(), None);
        assert_eq!(world.join_error(rejoin(&given)), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn older_versions_join_without_a_known_id_and_one_timeout() {
        let mut world = World::new();
        let ticket = world.join(JoinRequest { rebalance_timeout_ms: None, ..join_request() });
        world.advance_ms(3_000);
        let joined = world.joined(ticket).unwrap();
        let live = &world.groups.live[&group("g")];
        assert_eq!(live.members[&joined.member_id].rebalance_timeout_ms, super::super::testing::SESSION_MS);
    }

    #[test]
    fn a_rebalance_timeout_below_zero_counts_as_none() {
        let mut world = World::new();
        let id = world.stable_with(vec![JoinRequest { rebalance_timeout_ms: Some(-1), ..join_request() }])[0].clone();
        let live = &world.groups.live[&group("g")];
        assert_eq!(live.members[&id].rebalance_timeout_ms, super::super::testing::SESSION_MS);
    }

    #[test]
    fn the_first_rebalance_waits_longer_while_members_arrive() {
        let mut world = World::new();
        let mut tickets = vec![world.join(join_request())];
        for _ in 0..3 {
            world.advance_ms(2_000);
            tickets.push(world.join(join_request()));
        }
        // Joined at 0, 2, 4 and 6 s; the waits end at 3, 6 and 9 s, and the last one saw the member of 6 s only.
        world.advance_ms(2_999);
        assert_eq!(world.state(), Some(State::PreparingRebalance));
        world.advance_ms(1);
        world.advance_ms(3_000);
        assert_eq!(world.state(), Some(State::CompletingRebalance));
        let leaders: Vec<_> = tickets.into_iter().map(|ticket| world.joined(ticket).unwrap()).collect();
        assert!(leaders.iter().all(|joined| joined.generation == 1 && joined.leader == leaders[0].leader));
        assert_eq!(leaders.iter().map(|joined| joined.members.len()).sum::<usize>(), 4, "only the leader sees all");
    }

    #[test]
    fn the_first_rebalance_waits_no_longer_than_the_rebalance_timeout() {
        let mut world = World::new();
        let request = JoinRequest { rebalance_timeout_ms: Some(8_000), ..join_request() };
        world.join(request.clone());
        for second in 1..8 {
            world.advance_ms(1_000);
            world.join(request.clone());
            assert_eq!(world.state(), Some(State::PreparingRebalance), "{second} s");
        }
        world.advance_ms(1_000);
        assert_eq!(world.state(), Some(State::CompletingRebalance));
    }

    #[test]
    fn a_group_whose_first_members_leave_at_once_becomes_empty() {
        let mut world = World::new();
        let ticket = world.join(join_request());
        let id = world.groups.live[&group("g")].members.keys().next().unwrap().clone();
        assert_eq!(world.leave_as(&id), ErrorCode::None);
        assert_eq!(world.joined(ticket).unwrap().error, ErrorCode::UnknownMemberId);
        world.advance_ms(3_000);
        assert_eq!(world.state(), Some(State::Empty));
        assert_eq!(world.log.len(), 1, "the empty generation is stored");
        assert!(world.groups.live.is_empty());
    }

    #[test]
    fn members_must_share_type_and_a_protocol() {
        let mut world = World::new();
        world.stable_with(vec![JoinRequest { protocols: offers(&["range", "sticky"]), ..join_request() }]);
        let other_type = JoinRequest { protocol_type: Arc::from("connect"), ..join_request() };
        assert_eq!(world.join_error(other_type), ErrorCode::InconsistentGroupProtocol);
        let nothing_common = JoinRequest { protocols: offers(&["roundrobin"]), ..join_request() };
        assert_eq!(world.join_error(nothing_common), ErrorCode::InconsistentGroupProtocol);
        assert_eq!(world.state(), Some(State::Stable), "a refused member disturbs nobody");
    }

    #[test]
    fn the_protocol_most_members_prefer_is_chosen_among_the_common_ones() {
        let mut world = World::new();
        let wishes = [&["a", "b", "c"][..], &["c", "b"], &["b", "c"], &["c", "b", "a"]];
        let requests = wishes.map(|names| JoinRequest { protocols: offers(names), ..join_request() });
        world.completing_with(requests.into());
        // "a" is not common; "b" has the first and the third vote, "c" the others: the leader's favourite wins the tie.
        assert_eq!(world.groups.live[&group("g")].protocol.as_deref(), Some("b"));
    }

    #[test]
    fn a_new_member_makes_a_stable_group_rebalance() {
        let mut world = World::new();
        let ids = world.stable(2);
        let new = world.join(join_request());
        assert_eq!(world.state(), Some(State::PreparingRebalance));
        let again: Vec<Ticket> = ids.iter().map(|id| world.join(rejoin(id))).collect();
        let joined = world.joined(new).unwrap();
        assert_eq!((joined.error, joined.generation), (ErrorCode::None, 2));
        for ticket in again {
            assert_eq!(world.joined(ticket).unwrap().leader, ids[0], "the leader stays");
        }
    }

    #[test]
    fn members_that_do_not_rejoin_in_time_are_out() {
        let mut world = World::new();
        let ids = world.stable(2);
        let new = world.join(join_request());
        let follower = world.join(rejoin(&ids[1]));
        for _ in 0..11 {
            world.advance_ms(5_000);
            assert_eq!(world.heartbeat(&ids[0], 1), ErrorCode::RebalanceInProgress);
        }
        world.advance_ms(4_999);
        assert_eq!(world.joined(new), None);
        world.advance_ms(1);
        let joined = world.joined(new).unwrap();
        assert_ne!(joined.leader, ids[0], "the leader did not come");
        assert_eq!(world.joined(follower).unwrap().generation, 2);
        assert_eq!(world.heartbeat(&ids[0], 1), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn a_follower_without_news_keeps_a_stable_group_stable() {
        let mut world = World::new();
        let ids = world.stable(2);
        let ticket = world.join(rejoin(&ids[1]));
        let joined = world.joined(ticket).unwrap();
        assert_eq!((joined.error, joined.generation, joined.members.len()), (ErrorCode::None, 1, 0));
        assert_eq!(world.state(), Some(State::Stable));
    }

    #[test]
    fn the_leader_or_changed_metadata_makes_a_stable_group_rebalance() {
        for (who, changed) in [(0, false), (1, true)] {
            let mut world = World::new();
            let ids = world.stable(2);
            let mut request = rejoin(&ids[who]);
            if changed {
                request.protocols[0].metadata = subscription(&["t", "u"]);
            }
            let ticket = world.join(request);
            assert_eq!(world.joined(ticket), None);
            assert_eq!(world.state(), Some(State::PreparingRebalance), "member {who}");
            world.join(rejoin(&ids[1 - who]));
            assert_eq!(world.joined(ticket).unwrap().generation, 2);
        }
    }

    #[test]
    fn a_member_that_missed_its_answer_gets_it_again_while_completing() {
        let mut world = World::new();
        let ids = world.completing_with(vec![join_request(); 2]);
        let ticket = world.join(rejoin(&ids[0]));
        let joined = world.joined(ticket).unwrap();
        assert_eq!((joined.error, joined.generation, joined.members.len()), (ErrorCode::None, 1, 2));
        let mut changed = rejoin(&ids[1]);
        changed.protocols[0].metadata = subscription(&["u"]);
        let ticket = world.join(changed);
        assert_eq!(world.joined(ticket), None);
        assert_eq!(world.state(), Some(State::PreparingRebalance));
    }

    #[test]
    fn a_rebalance_sends_members_that_wait_for_an_assignment_to_join_again() {
        let mut world = World::new();
        let ids = world.completing_with(vec![join_request(); 2]);
        let waiting = world.sync_as(&ids[1], 1, &[]);
        assert_eq!(world.synced(waiting), None);
        world.join(join_request());
        assert_eq!(world.synced(waiting).unwrap().error, ErrorCode::RebalanceInProgress);
    }

    #[test]
    fn a_second_join_takes_the_place_of_a_parked_one() {
        let mut world = World::new();
        let ids = world.stable(2);
        let older = world.join(rejoin(&ids[0]));
        let newer = world.join(rejoin(&ids[0]));
        assert_eq!(world.joined(older).unwrap().error, ErrorCode::RebalanceInProgress);
        assert_eq!(world.joined(newer), None);
    }

    #[test]
    fn a_silent_new_member_is_dropped_after_five_minutes_even_while_it_waits() {
        let mut world = World::new();
        let patient = JoinRequest { rebalance_timeout_ms: Some(1_000_000), ..join_request() };
        let ids = world.stable_with(vec![patient.clone(), patient]);
        let new = world.join(join_request());
        for _ in 0..60 {
            world.advance_ms(5_000);
            ids.iter().for_each(|id| assert_eq!(world.heartbeat(id, 1), ErrorCode::RebalanceInProgress));
        }
        assert_eq!(world.joined(new).unwrap().error, ErrorCode::UnknownMemberId);
        assert_eq!(NEW_MEMBER_JOIN_TIMEOUT, Duration::from_secs(300));
    }

    #[test]
    fn a_full_group_turns_new_members_away() {
        let mut world = World::with(Config { group_members_max: 2, ..Config::default() });
        let ids = world.stable(2);
        assert_eq!(world.join_error(join_request()), ErrorCode::GroupMaxSizeReached);
        assert_eq!(world.state(), Some(State::Stable));
        // While a rebalance is prepared, whoever joins first has the room.
        world.join(rejoin(&ids[0]));
        world.join(join_request());
        assert_eq!(world.join_error(rejoin(&ids[1])), ErrorCode::GroupMaxSizeReached);
        assert_eq!(world.state(), Some(State::CompletingRebalance), "nobody waits for the one turned away");
    }

    #[test]
    fn ids_given_out_are_limited() {
        let mut world = World::new();
        let mut live = LiveGroup::new(group("g"));
        live.pending_joins = (0..PENDING_MEMBERS_MAX).map(|one| member(&one.to_string())).collect();
        world.groups.live.insert(group("g"), live);
        let ticket = Ticket(1);
        let decision = world.groups.decide_join(known(), ticket, Uuid::ZERO, world.now);
        let answers = world.groups.on_appended(decision, world.now);
        let Response::Join(response) = &answers[0].response else { panic!("a JoinGroup answer") };
        assert_eq!(response.error, ErrorCode::GroupMaxSizeReached);
    }
}
