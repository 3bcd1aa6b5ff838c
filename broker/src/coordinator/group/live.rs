//! The soft state of a group that has members, or is about to: who is in it, what they wait for, where it stands.
//!
//! A group without members has no live state; what the log says about it is all there is. A live group is rebuilt from
//! the log after a restart: its members are then as the newest group record has them, in the same generation.
//!
//! Invariants, checked by the property test: `instances` is the index of the members that have an instance id;
//! `joins` and `syncs` name members only; a group in `PreparingRebalance` has a join alarm, one in
//! `CompletingRebalance` a sync alarm; every member that waits for neither has a session alarm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::{ErrorCode, Timestamp};

use super::Ticket;
use super::member::{Member, millis};
use super::message::{JoinRequest, JoinResponse, JoinedMember, Protocol, SyncResponse};
use super::names::{GroupId, InstanceId, MemberId};
use super::subscription::{CONSUMER_PROTOCOL_TYPE, subscribed_topics};
use crate::coordinator::record::GroupMetadata;

/// Where a group stands (`ClassicGroupState`). A group that is gone has no state; on the wire it is `Dead`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No members; the group lingers for its offsets.
    Empty,
    /// Waiting for every known member to join again.
    PreparingRebalance,
    /// Waiting for the leader's assignment.
    CompletingRebalance,
    /// Every member has, or can get, its assignment.
    Stable,
}

impl State {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// The first rebalance of an empty group waits for more members than the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InitialDelay {
    /// How long the present wait is.
    pub(super) delay: Duration,
    /// How much longer further waits may be, after the present one.
    pub(super) remaining: Duration,
}

/// A group with members, or with clients that were given a member id and have not joined with it yet.
#[derive(Clone, Debug)]
pub(super) struct LiveGroup {
    pub(super) id: GroupId,
    pub(super) state: State,
    /// When it entered its state, as the group record says it.
    pub(super) state_timestamp: Option<Timestamp>,
    pub(super) protocol_type: Option<Arc<str>>,
    /// The protocol of the present generation.
    pub(super) protocol: Option<Arc<str>>,
    pub(super) generation: i32,
    pub(super) leader: Option<MemberId>,
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) instances: BTreeMap<InstanceId, MemberId>,
    /// How many members offer each protocol.
    pub(super) offers: BTreeMap<Arc<str>, usize>,
    /// Ids that were given out and not used yet.
    pub(super) pending_joins: BTreeSet<MemberId>,
    /// Members of the present generation that have not asked for their assignment yet.
    pub(super) pending_syncs: BTreeSet<MemberId>,
    /// Parked JoinGroups.
    pub(super) joins: BTreeMap<MemberId, Ticket>,
    /// Parked SyncGroups.
    pub(super) syncs: BTreeMap<MemberId, Ticket>,
    /// `Some` from the start of a rebalance of an empty group until its join phase ends.
    pub(super) initial: Option<InitialDelay>,
    /// Somebody joined since the present wait of the initial rebalance began.
    pub(super) joined_during_initial: bool,
    /// What the present generation subscribes to; `None` when it is not known.
    pub(super) subscribed: Option<BTreeSet<Arc<str>>>,
}

impl LiveGroup {
    pub(super) fn new(id: GroupId) -> LiveGroup {
        LiveGroup {
            id,
            state: State::Empty,
            state_timestamp: None,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            offers: BTreeMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            joins: BTreeMap::new(),
            syncs: BTreeMap::new(),
            initial: None,
            joined_during_initial: false,
            subscribed: None,
        }
    }

    pub(super) fn from_stored(id: GroupId, stored: &GroupMetadata) -> LiveGroup {
        let mut group = LiveGroup::new(id);
        group.protocol_type = Some(stored.protocol_type.clone()).filter(|text| !text.is_empty());
        group.protocol = stored.protocol.clone();
        group.generation = stored.generation;
        group.leader = stored.leader.clone();
        group.state_timestamp = stored.state_timestamp;
        for member in &stored.members {
            let member = Member::from_stored(member, stored.protocol.as_ref());
            if let Some(instance_id) = &member.instance_id {
                group.instances.insert(instance_id.clone(), member.id.clone());
            }
            group.insert(member);
        }
        group.state = if group.members.is_empty() { State::Empty } else { State::Stable };
        if group.leader.as_ref().is_none_or(|leader| !group.members.contains_key(leader)) {
            group.leader = group.members.keys().next().cloned();
        }
        group.subscribed = group.subscribed_topics();
        group
    }

    /// The group record of the present generation, each member with its assignment out of `assignments`.
    pub(super) fn to_stored(&self, assignments: &BTreeMap<MemberId, Bytes>) -> GroupMetadata {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_timestamp: self.state_timestamp,
            members: self
                .members
                .values()
                .map(|member| member.to_stored(protocol, assignments.get(&member.id).cloned().unwrap_or_default()))
                .collect(),
        }
    }

    pub(super) fn assignments(&self) -> BTreeMap<MemberId, Bytes> {
        self.members.iter().map(|(id, member)| (id.clone(), member.assignment.clone())).collect()
    }

    pub(super) fn enter(&mut self, state: State, now: Timestamp) {
        self.state = state;
        self.state_timestamp = Some(now);
    }

    pub(super) fn is_leader(&self, member_id: &MemberId) -> bool {
        self.leader.as_ref() == Some(member_id)
    }

    pub(super) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// Adds a member; the first one sets the group's protocol type and leads.
    pub(super) fn add(&mut self, member: Member, protocol_type: &Arc<str>) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.clone());
        }
        if let Some(instance_id) = &member.instance_id {
            let before = self.instances.insert(instance_id.clone(), member.id.clone());
            assert_eq!(before, None, "a static member is replaced, never added twice");
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.pending_joins.remove(&member.id);
        self.insert(member);
    }

    fn insert(&mut self, member: Member) {
        for protocol in &member.protocols {
            *self.offers.entry(protocol.name.clone()).or_default() += 1;
        }
        let before = self.members.insert(member.id.clone(), member);
        assert!(before.is_none(), "member ids are unique");
    }

    fn take(&mut self, member_id: &MemberId) -> Option<Member> {
        let member = self.members.remove(member_id)?;
        for protocol in &member.protocols {
            let count = self.offers.get_mut(&protocol.name).expect("what a member offers is counted");
            *count -= 1;
            if *count == 0 {
                self.offers.remove(&protocol.name);
            }
        }
        Some(member)
    }

    /// Takes over what a member's newer JoinGroup says.
    pub(super) fn update(&mut self, member_id: &MemberId, request: &JoinRequest) {
        let mut member = self.take(member_id).expect("only a member is updated");
        member.update(request);
        self.insert(member);
    }

    /// Removes a member, or a pending one; returns its parked requests, which the caller answers.
    pub(super) fn remove(&mut self, member_id: &MemberId) -> (Option<Ticket>, Option<Ticket>) {
        self.pending_joins.remove(member_id);
        self.pending_syncs.remove(member_id);
        if let Some(member) = self.take(member_id)
            && let Some(instance_id) = &member.instance_id
        {
            self.instances.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        (self.joins.remove(member_id), self.syncs.remove(member_id))
    }

    /// Puts another member in a static member's place, under a new id, with the same assignment and place in the group.
    pub(super) fn replace(&mut self, old_id: &MemberId, new: Member) {
        let old = self.take(old_id).expect("only a member is replaced");
        let instance_id = old.instance_id.expect("only a static member is replaced");
        self.instances.insert(instance_id, new.id.clone());
        if self.is_leader(old_id) {
            self.leader = Some(new.id.clone());
        }
        if self.pending_syncs.remove(old_id) {
            self.pending_syncs.insert(new.id.clone());
        }
        self.insert(new);
    }

    /// Whether a request's member id and instance id name a member (`ClassicGroup.validateMember`).
    pub(super) fn validate_member(
        &self,
        member_id: &MemberId,
        instance_id: Option<&InstanceId>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.instances.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(holder) if holder != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Whether a joining member fits: the same protocol type, and a protocol that every member offers.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let by_all = |protocol: &Protocol| self.offers.get(&protocol.name) == Some(&self.members.len());
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(by_all)
    }

    /// The protocols that every member offers, each with no votes yet.
    fn candidates(&self) -> BTreeMap<&str, usize> {
        let common = self.offers.iter().filter(|(_, count)| **count == self.members.len());
        common.map(|(name, _)| (&**name, 0)).collect()
    }

    /// The protocol with the most votes; among equals, the one the leader likes best.
    ///
    /// # Panics
    /// If the members have none in common: none of them could have joined.
    pub(super) fn select_protocol(&self) -> Arc<str> {
        let mut votes = self.candidates();
        for member in self.members.values() {
            if let Some(name) = member.vote(&votes) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max().expect("members have a protocol in common");
        votes.retain(|_, count| *count == most);
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        let chosen = leader.and_then(|leader| leader.vote(&votes)).or(votes.keys().next().copied());
        Arc::from(chosen.expect("one of them has the most votes"))
    }

    pub(super) fn has_all_joined(&self) -> bool {
        self.members.len() == self.joins.len() && self.pending_joins.is_empty()
    }

    /// Makes somebody leader whose JoinGroup is parked; false when nobody's is.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        if self.leader.as_ref().is_some_and(|leader| self.joins.contains_key(leader)) {
            return true;
        }
        match self.joins.keys().next() {
            Some(joined) => {
                self.leader = Some(joined.clone());
                true
            }
            None => false,
        }
    }

    /// The longest any member may take to rejoin.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max();
        millis(longest.unwrap_or(0))
    }

    /// Ends the join phase: the next generation begins, with whoever is a member now.
    pub(super) fn begin_generation(&mut self, now: Timestamp) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.initial = None;
        self.pending_syncs.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.enter(State::Empty, now);
        } else {
            self.protocol = Some(self.select_protocol());
            self.enter(State::CompletingRebalance, now);
        }
        self.subscribed = self.subscribed_topics();
    }

    /// The topics the members subscribe to by the chosen protocol; `None` when they are not consumers, or not known.
    fn subscribed_topics(&self) -> Option<BTreeSet<Arc<str>>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut all = BTreeSet::new();
        for member in self.members.values() {
            all.extend(subscribed_topics(&member.metadata(protocol))?);
        }
        Some(all)
    }

    /// Whether the group reads a topic; one whose subscription is not known is taken to read all.
    pub(super) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribed.as_ref().map_or(self.uses_consumer_protocol(), |topics| topics.contains(topic))
    }

    /// The answer to a member that is in the present generation.
    pub(super) fn join_response(&self, member_id: &MemberId) -> JoinResponse {
        let members = if self.is_leader(member_id) { self.joined_members() } else { Vec::new() };
        JoinResponse {
            error: ErrorCode::None,
            member_id: member_id.clone(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_else(MemberId::unknown),
            skip_assignment: false,
            members,
        }
    }

    fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let joined = self.members.values().map(|member| JoinedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        });
        joined.collect()
    }

    /// The answer to a member that asks for its assignment and may have it.
    pub(super) fn sync_response(&self, member_id: &MemberId) -> SyncResponse {
        SyncResponse {
            error: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(member_id).map(|member| member.assignment.clone()).unwrap_or_default(),
        }
    }
}
