//! A coordinator on a log in memory, for the tests of this module: appends what is decided, or refuses it, and checks
//! after every step what must always hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::{ErrorCode, LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId, Uuid};

use super::live::{LiveGroup, State};
use super::message::*;
use super::names::{GroupId, InstanceId, MemberId};
use super::timers::Alarm;
use super::{Answer, Config, Decision, Groups, HardState, MonoMillis, Now, Ticket};
use crate::coordinator::record::{Decoded, Record};

pub(super) const SESSION_MS: i32 = 10_000;
pub(super) const REBALANCE_MS: i32 = 60_000;
pub(super) const TOPIC_ID: TopicId = Uuid([7; 16]);

pub(super) fn group(name: &str) -> GroupId {
    GroupId::new(name).unwrap()
}

pub(super) fn member(name: &str) -> MemberId {
    MemberId::new(name).unwrap()
}

pub(super) fn instance(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

/// A consumer's metadata: version 0 of the subscription, without user data.
pub(super) fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 0];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend([0xff; 4]);
    Bytes::from(bytes)
}

/// The JoinGroup of a new dynamic consumer of topic `t` in group `g`, in a version that needs no known id.
pub(super) fn join_request() -> JoinRequest {
    JoinRequest {
        group: group("g"),
        member_id: MemberId::unknown(),
        instance_id: None,
        client_id: Arc::from("client"),
        client_host: Arc::from("/127.0.0.1"),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: Some(REBALANCE_MS),
        protocol_type: Arc::from("consumer"),
        protocols: vec![Protocol { name: Arc::from("range"), metadata: subscription(&["t"]) }],
        requires_known_member_id: false,
        supports_skipping_assignment: true,
    }
}

pub(super) fn commit_request(generation: i32, member_id: &MemberId, offset: i64) -> CommitRequest {
    CommitRequest {
        group: group("g"),
        generation,
        member_id: member_id.clone(),
        instance_id: None,
        retention_ms: None,
        knows_group_id_not_found: true,
        topics: vec![CommitTopic {
            name: Arc::from("t"),
            topic_id: TOPIC_ID,
            partitions: vec![CommitPartition {
                partition: PartitionIndex(0),
                offset: Offset(offset),
                leader_epoch: LeaderEpoch(1),
                metadata: None,
            }],
        }],
    }
}

pub(super) struct World {
    pub(super) groups: Groups,
    pub(super) log: Vec<Record>,
    /// The keys of the log's records.
    keys: Vec<Bytes>,
    pub(super) now: Now,
    /// What the log answers to appends, while it refuses them.
    pub(super) refusal: Option<ErrorCode>,
    pub(super) answers: BTreeMap<Ticket, Response>,
    outstanding: BTreeSet<Ticket>,
    next_ticket: u64,
    /// A group record was refused, so live groups may be ahead of the log.
    pub(super) has_refused: bool,
}

impl World {
    pub(super) fn new() -> World {
        World::with(Config::default())
    }

    pub(super) fn with(config: Config) -> World {
        World {
            groups: Groups::new(config),
            log: Vec::new(),
            keys: Vec::new(),
            now: Now { mono: MonoMillis(1_000), wall: Timestamp(1_000_000) },
            refusal: None,
            answers: BTreeMap::new(),
            outstanding: BTreeSet::new(),
            next_ticket: 1,
            has_refused: false,
        }
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.outstanding.insert(ticket);
        ticket
    }

    /// Appends what was decided, or refuses it.
    pub(super) fn settle(&mut self, decision: Decision) {
        self.settle_all(vec![decision]);
    }

    /// Appends what several decisions want as one batch, or refuses all of it.
    pub(super) fn settle_all(&mut self, decisions: Vec<Decision>) {
        for decision in decisions {
            let answers = match self.refusal {
                Some(error) if !decision.records.is_empty() => {
                    self.has_refused |= decision.records.iter().any(|record| matches!(record, Record::Group { .. }));
                    self.groups.on_refused(decision, error, self.now)
                }
                _ => {
                    decision.records.iter().for_each(|record| self.append(record.clone()));
                    self.groups.on_appended(decision, self.now)
                }
            };
            self.take(answers);
        }
        self.check();
    }

    /// Puts a record into the log, through its bytes.
    pub(super) fn append(&mut self, record: Record) {
        let (key, value) = (record.encode_key(), record.encode_value());
        assert_eq!(Record::decode(&key, value.as_deref()), Ok(Decoded::Known(record.clone())));
        self.log.push(record);
        self.keys.push(key);
    }

    fn take(&mut self, answers: Vec<Answer>) {
        for Answer { ticket, response } in answers {
            assert!(self.outstanding.remove(&ticket), "{ticket:?} is answered once");
            self.answers.insert(ticket, response);
        }
    }

    pub(super) fn join(&mut self, request: JoinRequest) -> Ticket {
        let ticket = self.ticket();
        let mut random = [0; 16];
        random[8..].copy_from_slice(&ticket.0.to_be_bytes());
        let decision = self.groups.decide_join(request, ticket, Uuid(random), self.now);
        self.settle(decision);
        ticket
    }

    pub(super) fn sync(&mut self, request: SyncRequest) -> Ticket {
        let ticket = self.ticket();
        let decision = self.groups.decide_sync(request, ticket, self.now);
        self.settle(decision);
        ticket
    }

    /// A SyncGroup to group `g`, assigning to each member its own id as bytes.
    pub(super) fn sync_as(&mut self, member_id: &MemberId, generation: i32, assignees: &[&MemberId]) -> Ticket {
        let own_id = |id: &&MemberId| ((*id).clone(), Bytes::copy_from_slice(id.as_str().as_bytes()));
        self.sync(SyncRequest {
            group: group("g"),
            generation,
            member_id: member_id.clone(),
            instance_id: None,
            protocol_type: None,
            protocol: None,
            assignments: assignees.iter().map(own_id).collect(),
        })
    }

    pub(super) fn heartbeat(&mut self, member_id: &MemberId, generation: i32) -> ErrorCode {
        let request =
            HeartbeatRequest { group: group("g"), generation, member_id: member_id.clone(), instance_id: None };
        let error = self.groups.heartbeat(&request, self.now);
        self.check();
        error
    }

    pub(super) fn leave(&mut self, members: Vec<LeavingMember>) -> Vec<ErrorCode> {
        let ticket = self.ticket();
        let request = LeaveRequest { group: group("g"), members };
        let decision = self.groups.decide_leave(request, ticket, self.now);
        self.settle(decision);
        let Response::Leave(response) = self.answers.remove(&ticket).unwrap() else { panic!("a LeaveGroup answer") };
        assert_eq!(response.error, ErrorCode::None);
        response.members.into_iter().map(|(_, error)| error).collect()
    }

    pub(super) fn leave_as(&mut self, member_id: &MemberId) -> ErrorCode {
        self.leave(vec![LeavingMember { member_id: member_id.clone(), instance_id: None }]).remove(0)
    }

    /// Commits, and returns the error of the request or of its first partition.
    pub(super) fn commit(&mut self, request: CommitRequest) -> ErrorCode {
        let ticket = self.ticket();
        let decision = self.groups.decide_commit(request, ticket, self.now);
        self.settle(decision);
        let Response::Commit(response) = self.answers.remove(&ticket).unwrap() else { panic!("a commit's answer") };
        match response.error {
            ErrorCode::None => response.topics[0].1[0].1,
            error => error,
        }
    }

    pub(super) fn delete_groups(&mut self, groups: &[&str]) -> Vec<ErrorCode> {
        let mut answered = Vec::new();
        while answered.len() < groups.len() {
            let ticket = self.ticket();
            let left = groups[answered.len()..].iter().map(|name| group(name)).collect();
            let decision = self.groups.decide_delete_groups(left, ticket);
            self.settle(decision);
            let Response::DeleteGroups(answer) = self.answers.remove(&ticket).unwrap() else { panic!("an answer") };
            answered.extend(answer.groups.into_iter().map(|(_, error)| error));
        }
        answered
    }

    pub(super) fn offset_delete(&mut self, topics: &[(&str, &[i32])]) -> PerPartition {
        let ticket = self.ticket();
        let topics = topics.iter().map(|(name, partitions)| {
            (Arc::from(*name), partitions.iter().map(|partition| PartitionIndex(*partition)).collect())
        });
        let request = OffsetDeleteRequest { group: group("g"), topics: topics.collect() };
        let decision = self.groups.decide_offset_delete(request, ticket);
        self.settle(decision);
        let Response::OffsetDelete(response) = self.answers.remove(&ticket).unwrap() else { panic!("an answer") };
        response
    }

    /// Expires offsets until nothing more does, or the log refuses; returns how many records that took.
    pub(super) fn expire(&mut self) -> usize {
        let mut records = 0;
        loop {
            let decision = self.groups.decide_expiry(self.now.wall);
            let count = decision.records.len();
            self.settle(decision);
            records += count;
            if count == 0 || self.refusal.is_some() {
                return records;
            }
        }
    }

    /// The committed offset of group `g` for partition 0 of topic `t`.
    pub(super) fn fetch(&self) -> Offset {
        let request = FetchRequest { group: group("g"), topics: Some(vec![(Arc::from("t"), vec![PartitionIndex(0)])]) };
        self.groups.fetch_offsets(&request, |_| Some(TOPIC_ID))[0].partitions[0].offset
    }

    /// Lets time pass, one alarm after another.
    pub(super) fn advance(&mut self, time: Duration) {
        let end = Now { mono: self.now.mono.after(time), wall: self.now.wall.saturating_add(time) };
        while let Some(at) = self.groups.next_deadline().filter(|at| *at <= end.mono) {
            let step = Duration::from_millis(at.0.saturating_sub(self.now.mono.0));
            self.now = Now { mono: self.now.mono.after(step), wall: self.now.wall.saturating_add(step) };
            while let Some(decision) = self.groups.on_time(self.now) {
                self.settle(decision);
            }
        }
        self.now = end;
    }

    pub(super) fn advance_ms(&mut self, ms: u64) {
        self.advance(Duration::from_millis(ms));
    }

    /// The process dies and another reads the log.
    pub(super) fn restart(&mut self) {
        let mut fresh = Groups::new(self.groups.config.clone());
        for record in &self.log {
            fresh.apply(record);
        }
        fresh.on_loaded(self.now);
        let old = std::mem::replace(&mut self.groups, fresh);
        let answers = old.on_unloaded(ErrorCode::NotCoordinator);
        self.take(answers);
        self.has_refused = false;
        self.check();
        assert!(self.outstanding.is_empty(), "nobody is left waiting: {:?}", self.outstanding);
    }

    /// The answer to a JoinGroup; `None` while it is parked.
    pub(super) fn joined(&mut self, ticket: Ticket) -> Option<JoinResponse> {
        match self.answers.remove(&ticket)? {
            Response::Join(response) => Some(response),
            other => panic!("a JoinGroup is answered by {other:?}"),
        }
    }

    pub(super) fn join_error(&mut self, request: JoinRequest) -> ErrorCode {
        let ticket = self.join(request);
        self.joined(ticket).expect("answered at once").error
    }

    /// The answer to a SyncGroup; `None` while it is parked.
    pub(super) fn synced(&mut self, ticket: Ticket) -> Option<SyncResponse> {
        match self.answers.remove(&ticket)? {
            Response::Sync(response) => Some(response),
            other => panic!("a SyncGroup is answered by {other:?}"),
        }
    }

    pub(super) fn state(&self) -> Option<State> {
        self.groups.state(&group("g"))
    }

    /// A stable group `g` of so many dynamic consumers, in generation 1; the leader comes first.
    pub(super) fn stable(&mut self, members_count: usize) -> Vec<MemberId> {
        let requests = vec![join_request(); members_count];
        self.stable_with(requests)
    }

    /// A stable group of the members that send these requests; the leader comes first.
    pub(super) fn stable_with(&mut self, requests: Vec<JoinRequest>) -> Vec<MemberId> {
        let ids = self.completing_with(requests);
        let generation = self.groups.live[&group("g")].generation;
        let assignees: Vec<&MemberId> = ids.iter().collect();
        for id in ids.iter().rev() {
            let assignees = if *id == ids[0] { &assignees[..] } else { &[] };
            self.sync_as(id, generation, assignees);
        }
        assert_eq!(self.state(), Some(State::Stable));
        self.answers.clear();
        ids
    }

    /// A group `g` that waits for the assignment of its leader, who comes first.
    pub(super) fn completing_with(&mut self, requests: Vec<JoinRequest>) -> Vec<MemberId> {
        let tickets: Vec<Ticket> = requests.into_iter().map(|request| self.join(request)).collect();
        while self.state() == Some(State::PreparingRebalance) {
            self.advance_ms(1_000);
        }
        let responses: Vec<JoinResponse> =
            tickets.into_iter().map(|ticket| self.joined(ticket).expect("the join phase is over")).collect();
        assert_eq!(self.state(), Some(State::CompletingRebalance));
        let leader = responses[0].leader.clone();
        let mut ids: Vec<MemberId> = responses.into_iter().map(|response| response.member_id).collect();
        ids.sort_by_key(|id| *id != leader);
        ids
    }

    /// What must hold after every step.
    pub(super) fn check(&self) {
        self.check_replay();
        let parked: BTreeSet<Ticket> = self
            .groups
            .live
            .values()
            .flat_map(|live| live.joins.values().chain(live.syncs.values()).copied())
            .collect();
        assert_eq!(parked, self.outstanding, "every unanswered request is parked, and no other");
        for live in self.groups.live.values() {
            self.check_group(live);
        }
    }

    /// The hard state equals its replay, also after compaction.
    fn check_replay(&self) {
        let mut replayed = HardState::default();
        let mut newest: BTreeMap<&Bytes, usize> = BTreeMap::new();
        for (at, record) in self.log.iter().enumerate() {
            replayed.apply(record);
            newest.insert(&self.keys[at], at);
        }
        assert_eq!(&replayed, self.groups.hard(), "the state is the replay of its log");
        let mut survivors: Vec<usize> = newest.into_values().collect();
        survivors.sort_unstable();
        let mut compacted = HardState::default();
        survivors.into_iter().for_each(|at| compacted.apply(&self.log[at]));
        assert_eq!(&compacted, self.groups.hard(), "the state is the replay of its compacted log");
    }

    fn check_group(&self, live: &LiveGroup) {
        let by_instance = live.members.values().filter_map(|one| Some((one.instance_id.clone()?, one.id.clone())));
        assert_eq!(live.instances, by_instance.collect());
        let mut offers: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for protocol in live.members.values().flat_map(|one| &one.protocols) {
            *offers.entry(protocol.name.clone()).or_default() += 1;
        }
        assert_eq!(live.offers, offers);
        let is_member = |id: &MemberId| live.members.contains_key(id);
        assert!(live.joins.keys().chain(live.syncs.keys()).chain(&live.pending_syncs).all(is_member));
        assert!(!live.pending_joins.iter().any(is_member));
        assert_eq!(live.leader.is_some(), !live.members.is_empty());
        assert!(live.leader.as_ref().is_none_or(is_member));

        let is_set = |alarm| self.groups.timers.is_set(&alarm);
        let expects_sync = matches!(live.state, State::CompletingRebalance | State::Stable);
        assert_eq!(is_set(Alarm::Join(live.id.clone())), live.state == State::PreparingRebalance);
        assert_eq!(is_set(Alarm::Sync(live.id.clone())), expects_sync && !live.pending_syncs.is_empty());
        for id in live.members.keys().chain(&live.pending_joins) {
            let waits = live.joins.contains_key(id) || live.syncs.contains_key(id);
            assert!(waits || is_set(Alarm::Session(live.id.clone(), id.clone())), "{id} is watched");
        }
        match live.state {
            State::Empty => assert!(live.members.is_empty() && live.joins.is_empty() && live.syncs.is_empty()),
            State::PreparingRebalance => assert!(live.syncs.is_empty()),
            State::CompletingRebalance => assert!(live.joins.is_empty() && !live.members.is_empty()),
            State::Stable => assert!(live.joins.is_empty() && live.syncs.is_empty() && !live.members.is_empty()),
        }
        if !self.has_refused && matches!(live.state, State::Empty | State::Stable) && live.generation > 0 {
            let stored = self.groups.hard.metadata(&live.id);
            assert_eq!(Some(&live.to_stored(&live.assignments())), stored, "a settled group is as the log says");
        }
    }
}
