//! What every request to a live group shares: members come and go, a rebalance begins, its join phase ends, an
//! assignment is given out.
//!
//! ```text
//! Empty ──first member──► PreparingRebalance ──all joined, or time──► CompletingRebalance ──leader's assignment──► Stable
//!   ▲                        │          ▲                                │                                          │
//!   └──nobody joined─────────┘          └────member joins anew, leaves, fails, asks for no assignment───────────────┘
//! ```

use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::ErrorCode;

use super::config::Config;
use super::live::{InitialDelay, LiveGroup, State};
use super::member::Member;
use super::message::{JoinResponse, Response, SyncResponse};
use super::names::MemberId;
use super::timers::{Alarm, Timers};
use super::{Assignments, Decision, Now, Then, Ticket};
use crate::coordinator::record::{GroupMetadata, Record};

/// One live group during one decision.
pub(super) struct Turn<'a> {
    pub(super) group: &'a mut LiveGroup,
    timers: &'a mut Timers,
    pub(super) config: &'a Config,
    pub(super) now: Now,
    pub(super) decision: Decision,
}

impl<'a> Turn<'a> {
    pub(super) fn new(group: &'a mut LiveGroup, timers: &'a mut Timers, config: &'a Config, now: Now) -> Turn<'a> {
        Turn { group, timers, config, now, decision: Decision::default() }
    }

    pub(super) fn answer_join(&mut self, ticket: Ticket, response: JoinResponse) {
        self.decision.push_answer(ticket, Response::Join(response));
    }

    pub(super) fn answer_sync(&mut self, ticket: Ticket, response: SyncResponse) {
        self.decision.push_answer(ticket, Response::Sync(response));
    }

    // Sessions.

    /// The member was heard of: it may be silent for a session timeout from now.
    pub(super) fn reset_session(&mut self, member_id: &MemberId) {
        if let Some(member) = self.group.members.get(member_id) {
            let timeout = member.session_timeout();
            self.set_session(member_id, timeout);
        }
    }

    pub(super) fn set_session(&mut self, member_id: &MemberId, timeout: Duration) {
        let alarm = Alarm::Session(self.group.id.clone(), member_id.clone());
        self.timers.set(alarm, self.now.mono.after(timeout));
    }

    pub(super) fn reset_every_session(&mut self) {
        let ids: Vec<MemberId> = self.group.members.keys().cloned().collect();
        ids.iter().for_each(|id| self.reset_session(id));
    }

    pub(super) fn cancel_session(&mut self, member_id: &MemberId) {
        self.timers.cancel(&Alarm::Session(self.group.id.clone(), member_id.clone()));
    }

    fn set_alarm(&mut self, alarm: Alarm, delay: Duration) {
        self.timers.set(alarm, self.now.mono.after(delay));
    }

    // Parked requests and members.

    /// Parks a member's JoinGroup until the join phase ends. An older one of the same member, sent on a connection it
    /// has given up, is told to try again.
    pub(super) fn park_join(&mut self, member_id: &MemberId, ticket: Ticket) {
        if let Some(older) = self.group.joins.insert(member_id.clone(), ticket) {
            let response = JoinResponse::refused(ErrorCode::RebalanceInProgress, member_id.clone());
            self.answer_join(older, response);
        }
    }

    /// Parks a member's SyncGroup until the leader's assignment is stored.
    pub(super) fn park_sync(&mut self, member_id: &MemberId, ticket: Ticket) {
        if let Some(older) = self.group.syncs.insert(member_id.clone(), ticket) {
            self.answer_sync(older, SyncResponse::refused(ErrorCode::RebalanceInProgress));
        }
    }

    /// Removes a member, or a pending one. Its parked requests are answered UNKNOWN_MEMBER_ID, so that a client that
    /// is still there joins as a new member.
    pub(super) fn remove_member(&mut self, member_id: &MemberId) {
        self.cancel_session(member_id);
        let (join, sync) = self.group.remove(member_id);
        if let Some(ticket) = join {
            let response = JoinResponse::refused(ErrorCode::UnknownMemberId, MemberId::unknown());
            self.answer_join(ticket, response);
        }
        if let Some(ticket) = sync {
            self.answer_sync(ticket, SyncResponse::refused(ErrorCode::UnknownMemberId));
        }
    }

    /// After members were removed: those who stay rebalance, or no longer wait for those who went.
    pub(super) fn after_removal(&mut self) {
        match self.group.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(),
            State::PreparingRebalance => self.maybe_complete_join(),
            State::Empty => {}
        }
    }

    // The join phase.

    /// Begins a rebalance unless one is being prepared already; completes it if nobody is missing.
    pub(super) fn rebalance_or_complete_join(&mut self) {
        match self.group.state {
            State::PreparingRebalance => self.maybe_complete_join(),
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare_rebalance(),
        }
    }

    /// Begins a rebalance. Whoever waits for an assignment is sent to join again.
    pub(super) fn prepare_rebalance(&mut self) {
        if self.group.state == State::CompletingRebalance {
            self.reset_assignments(ErrorCode::RebalanceInProgress);
        }
        self.group.pending_syncs.clear();
        self.timers.cancel(&Alarm::Sync(self.group.id.clone()));
        let from_empty = self.group.state == State::Empty;
        self.group.enter(State::PreparingRebalance, self.now.wall);
        if from_empty {
            // The group is new: more members are likely on their way.
            let delay = self.config.initial_rebalance_delay;
            let remaining = self.group.rebalance_timeout().saturating_sub(delay);
            self.group.initial = Some(InitialDelay { delay, remaining });
            self.group.joined_during_initial = false;
            self.set_alarm(Alarm::Join(self.group.id.clone()), delay);
        } else if self.group.has_all_joined() {
            self.complete_join();
        } else {
            self.set_alarm(Alarm::Join(self.group.id.clone()), self.group.rebalance_timeout());
        }
    }

    /// Ends the join phase if nobody is missing. The first rebalance of an empty group waits for its alarm regardless.
    pub(super) fn maybe_complete_join(&mut self) {
        if self.group.state == State::PreparingRebalance && self.group.initial.is_none() && self.group.has_all_joined()
        {
            self.complete_join();
        }
    }

    /// The join phase has lasted long enough.
    pub(super) fn on_join_alarm(&mut self) {
        if self.group.state != State::PreparingRebalance {
            return;
        }
        if let Some(InitialDelay { delay, remaining }) = self.group.initial
            && self.group.joined_during_initial
            && !remaining.is_zero()
        {
            let next = self.config.initial_rebalance_delay.min(remaining);
            self.group.joined_during_initial = false;
            self.group.initial = Some(InitialDelay { delay: next, remaining: remaining.saturating_sub(delay) });
            self.set_alarm(Alarm::Join(self.group.id.clone()), next);
            return;
        }
        self.complete_join();
    }

    /// Ends the join phase: dynamic members that did not join are out (static ones have their session to come back
    /// in), and the next generation begins with the others.
    fn complete_join(&mut self) {
        self.timers.cancel(&Alarm::Join(self.group.id.clone()));
        let absent = self
            .group
            .members
            .values()
            .filter(|member| member.instance_id.is_none() && !self.group.joins.contains_key(&member.id));
        let absent: Vec<MemberId> = absent.map(|member| member.id.clone()).collect();
        for member_id in &absent {
            self.remove_member(member_id);
        }
        if !self.group.elect_joined_leader() && !self.group.members.is_empty() {
            // Only static members are left, and none has joined: wait until they do or their sessions end.
            self.set_alarm(Alarm::Join(self.group.id.clone()), self.group.rebalance_timeout());
            return;
        }
        self.group.begin_generation(self.now.wall);
        if self.group.state == State::Empty {
            self.decision.records.push(self.group_record(self.group.to_stored(&Assignments::new())));
            self.decision.then = Then::Settle { group: self.group.id.clone() };
            return;
        }
        for (member_id, ticket) in std::mem::take(&mut self.group.joins) {
            let response = self.group.join_response(&member_id);
            self.answer_join(ticket, response);
        }
        self.reset_every_session();
        self.group.members.values_mut().for_each(|member| member.is_new = false);
        self.group.pending_syncs = self.group.members.keys().cloned().collect();
        self.set_alarm(Alarm::Sync(self.group.id.clone()), self.group.rebalance_timeout());
    }

    pub(super) fn group_record(&self, stored: GroupMetadata) -> Record {
        Record::Group { group: self.group.id.clone(), value: Some(stored) }
    }

    // The sync phase.

    /// The member has asked for its assignment; nobody is left to wait for when it was the last.
    pub(super) fn synced(&mut self, member_id: &MemberId) {
        self.group.pending_syncs.remove(member_id);
        if self.group.pending_syncs.is_empty() {
            self.timers.cancel(&Alarm::Sync(self.group.id.clone()));
        }
    }

    /// Members that never asked for their assignment are out, and the others rebalance.
    pub(super) fn on_sync_alarm(&mut self) {
        if !matches!(self.group.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        let silent = std::mem::take(&mut self.group.pending_syncs);
        if silent.is_empty() {
            return;
        }
        for member_id in &silent {
            self.remove_member(member_id);
        }
        self.prepare_rebalance();
    }

    /// The leader's assignment is in the log: the group is stable and its members learn their part.
    pub(super) fn assign(&mut self, generation: i32, stored: &GroupMetadata) {
        if self.group.state != State::CompletingRebalance || self.group.generation != generation {
            return;
        }
        for assigned in &stored.members {
            if let Some(member) = self.group.members.get_mut(&assigned.member_id) {
                member.assignment = assigned.assignment.clone();
            }
        }
        self.group.state = State::Stable;
        self.group.state_timestamp = stored.state_timestamp;
        self.answer_syncs(ErrorCode::None);
    }

    /// The leader's assignment could not be stored: the group rebalances.
    pub(super) fn fail_assignment(&mut self, generation: i32, error: ErrorCode) {
        if self.group.state == State::CompletingRebalance && self.group.generation == generation {
            self.reset_assignments(error);
            self.prepare_rebalance();
        }
    }

    fn reset_assignments(&mut self, error: ErrorCode) {
        self.group.members.values_mut().for_each(|member| member.assignment = Bytes::new());
        self.answer_syncs(error);
    }

    /// Answers every parked SyncGroup. Whoever is answered has its session begin anew: it could not heartbeat while
    /// it waited, so an alarm that came meanwhile was passed over.
    fn answer_syncs(&mut self, error: ErrorCode) {
        for (member_id, ticket) in std::mem::take(&mut self.group.syncs) {
            let response = match error {
                ErrorCode::None => self.group.sync_response(&member_id),
                error => SyncResponse::refused(error),
            };
            self.answer_sync(ticket, response);
            self.reset_session(&member_id);
        }
    }

    // Static members.

    /// Puts a static member that came back under a new id in its own place. Requests parked under the old id come from
    /// an older instance, which is fenced.
    pub(super) fn replace_member(&mut self, old_id: &MemberId, new: Member) {
        let new_id = new.id.clone();
        self.cancel_session(old_id);
        self.group.replace(old_id, new);
        if let Some(ticket) = self.group.joins.remove(old_id) {
            let response = JoinResponse::refused(ErrorCode::FencedInstanceId, old_id.clone());
            self.answer_join(ticket, response);
        }
        if let Some(ticket) = self.group.syncs.remove(old_id) {
            self.answer_sync(ticket, SyncResponse::refused(ErrorCode::FencedInstanceId));
        }
        self.reset_session(&new_id);
    }

    /// The replacement could not be stored: the old id holds again.
    pub(super) fn undo_replacement(&mut self, old: Member, new_id: &MemberId) {
        if self.group.members.contains_key(new_id) {
            self.replace_member(new_id, old);
        }
    }
}
