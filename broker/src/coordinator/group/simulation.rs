//! Random clients against one coordinator, seeded: whatever they do, and whenever the log refuses, the process dies or
//! a week passes, what [`World::check`] demands holds after every step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::{ErrorCode, PartitionIndex, Uuid};

use super::live::State;
use super::message::*;
use super::names::{GroupId, MemberId};
use super::testing::{World, commit_request, group, instance, join_request, subscription};
use super::{Config, Decision, Groups, Now, Ticket};

const SEEDS: u64 = 60;
const STEPS: usize = 300;
const CLIENTS: usize = 7;

/// A small generator (xorshift64*): the same seed, the same clients.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// What a client believes about itself.
#[derive(Clone, Debug)]
struct Client {
    group: GroupId,
    instance: Option<&'static str>,
    member_id: MemberId,
    generation: i32,
    phase: Phase,
    /// Those to assign to, while it leads and has not assigned.
    followers: Vec<MemberId>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Out,
    Joining(Ticket),
    Joined,
    Syncing(Ticket),
    In,
}

struct Simulation {
    world: World,
    random: Random,
    clients: Vec<Client>,
    /// Decisions not appended yet.
    gathered: Vec<Decision>,
    marks: BTreeMap<&'static str, usize>,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let client = |at: usize| Client {
            group: group(if at < 5 { "g" } else { "h" }),
            instance: [None, Some("i"), Some("i"), None, Some("j"), None, None][at],
            member_id: MemberId::unknown(),
            generation: -1,
            phase: Phase::Out,
            followers: Vec::new(),
        };
        let config = Config { group_members_max: 4, ..Config::default() };
        Simulation {
            world: World::with(config),
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            clients: (0..CLIENTS).map(client).collect(),
            gathered: Vec::new(),
            marks: BTreeMap::new(),
        }
    }

    fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    fn decide(&mut self, decide: impl FnOnce(&mut Groups, Ticket, Now) -> Decision) -> Ticket {
        let ticket = self.world.ticket();
        let decision = decide(&mut self.world.groups, ticket, self.world.now);
        self.gathered.push(decision);
        ticket
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..70 => self.client_acts(),
            70..85 => {
                self.settle();
                let ms = self.random.below(12_000);
                self.world.advance_ms(ms);
            }
            85..87 => {
                self.settle();
                let days = Duration::from_secs(24 * 3_600 * self.random.below(9));
                self.world.now.wall = self.world.now.wall.saturating_add(days);
                let records = self.world.expire();
                if records > 0 {
                    self.mark("offsets expired");
                }
            }
            87..89 => {
                self.settle();
                self.world.restart();
                self.mark("restarted");
            }
            89..91 => {
                self.decide(|groups, ticket, _| groups.decide_delete_groups(vec![group("g"), group("h")], ticket));
            }
            91..93 => {
                let topics = vec![(Arc::from("t"), vec![PartitionIndex(0)]), (Arc::from("u"), vec![PartitionIndex(0)])];
                let request = OffsetDeleteRequest { group: group("g"), topics };
                self.decide(|groups, ticket, _| groups.decide_offset_delete(request, ticket));
            }
            93..94 => {
                let decision = self.world.groups.decide_forget_topics(|name, _| name == "u");
                self.gathered.push(decision);
            }
            94..96 => {
                self.settle();
                self.world.refusal = match self.world.refusal {
                    None => Some(ErrorCode::NotEnoughReplicas),
                    Some(_) => None,
                };
            }
            _ => self.stranger_commits(),
        }
        if !self.random.one_in(3) {
            self.settle();
        }
    }

    /// Appends what was gathered, and tells the clients what was answered.
    fn settle(&mut self) {
        let gathered = std::mem::take(&mut self.gathered);
        if self.world.refusal.is_some() && gathered.iter().any(|decision| !decision.records.is_empty()) {
            self.mark("append refused");
        }
        self.world.settle_all(gathered);
        for (ticket, response) in std::mem::take(&mut self.world.answers) {
            let waiting =
                |client: &&mut Client| matches!(client.phase, Phase::Joining(t) | Phase::Syncing(t) if t == ticket);
            let client = self.clients.iter_mut().find(waiting);
            match (response, client) {
                (Response::Join(response), Some(client)) => {
                    let marks = client.on_joined(response);
                    marks.into_iter().for_each(|mark| self.mark(mark));
                }
                (Response::Sync(response), Some(client)) => {
                    let mark = if client.on_synced(response) { "assigned" } else { "sent back" };
                    self.mark(mark);
                }
                (Response::Commit(response), _) => {
                    let is_done = response.topics.iter().flat_map(|(_, partitions)| partitions).next();
                    match is_done.map_or(response.error, |(_, error)| *error) {
                        ErrorCode::None => self.mark("committed"),
                        ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId => self.mark("commit refused"),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        for name in ["g", "h"] {
            match self.world.groups.state(&group(name)) {
                Some(State::Empty) => self.mark("empty"),
                Some(State::PreparingRebalance) => self.mark("preparing"),
                Some(State::CompletingRebalance) => self.mark("completing"),
                Some(State::Stable) => self.mark("stable"),
                None => self.mark("gone"),
            }
        }
    }

    fn client_acts(&mut self) {
        let at = self.random.below(CLIENTS as u64) as usize;
        let client = self.clients[at].clone();
        match client.phase {
            Phase::Joining(_) | Phase::Syncing(_) if !self.random.one_in(20) => {}
            Phase::Out | Phase::Joining(_) => self.join(at),
            Phase::Joined | Phase::Syncing(_) => self.sync(at),
            Phase::In => match self.random.below(20) {
                0..9 => self.heartbeat(at),
                9..14 => self.commit(client.group, client.generation, client.member_id),
                14 => self.leave(at),
                // A restart: a static member comes back without its id, a dynamic one as somebody new.
                15 => {
                    self.clients[at].member_id = MemberId::unknown();
                    self.join(at);
                }
                16 => self.join(at),
                17 => self.sync(at),
                _ => {}
            },
        }
    }

    fn join(&mut self, at: usize) {
        let client = &self.clients[at];
        let names: &[&str] = if self.random.one_in(8) { &["sticky"] } else { &["range", "sticky"] };
        let topics: &[&str] = if self.random.one_in(8) { &["t", "u"] } else { &["t"] };
        let protocols =
            names.iter().map(|name| Protocol { name: Arc::from(*name), metadata: subscription(topics) }).collect();
        let request = JoinRequest {
            group: client.group.clone(),
            member_id: client.member_id.clone(),
            instance_id: client.instance.map(instance),
            protocols,
            requires_known_member_id: !self.random.one_in(4),
            supports_skipping_assignment: self.random.one_in(2),
            ..join_request()
        };
        let mut random = [0; 16];
        random[..8].copy_from_slice(&self.random.next().to_be_bytes());
        let ticket = self.decide(|groups, ticket, now| groups.decide_join(request, ticket, Uuid(random), now));
        self.clients[at].phase = Phase::Joining(ticket);
    }

    fn sync(&mut self, at: usize) {
        let client = &self.clients[at];
        let request = SyncRequest {
            group: client.group.clone(),
            generation: client.generation,
            member_id: client.member_id.clone(),
            instance_id: client.instance.map(instance),
            protocol_type: Some(Arc::from("consumer")),
            protocol: None,
            assignments: client.followers.iter().map(|id| (id.clone(), Bytes::from_static(b"part"))).collect(),
        };
        let ticket = self.decide(|groups, ticket, now| groups.decide_sync(request, ticket, now));
        self.clients[at].phase = Phase::Syncing(ticket);
    }

    fn heartbeat(&mut self, at: usize) {
        let client = &self.clients[at];
        let request = HeartbeatRequest {
            group: client.group.clone(),
            generation: client.generation,
            member_id: client.member_id.clone(),
            instance_id: client.instance.map(instance),
        };
        match self.world.groups.heartbeat(&request, self.world.now) {
            ErrorCode::None => {}
            ErrorCode::RebalanceInProgress => self.clients[at].phase = Phase::Out,
            _ => self.clients[at].forget(),
        }
    }

    fn leave(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let leaving = LeavingMember { member_id: client.member_id.clone(), instance_id: client.instance.map(instance) };
        let request = LeaveRequest { group: client.group.clone(), members: vec![leaving] };
        client.forget();
        self.decide(|groups, ticket, now| groups.decide_leave(request, ticket, now));
    }

    /// A zombie, or somebody who is no member.
    fn stranger_commits(&mut self) {
        let client = self.clients[self.random.below(CLIENTS as u64) as usize].clone();
        match self.random.below(3) {
            0 => self.commit(client.group, -1, MemberId::unknown()),
            1 => self.commit(client.group, client.generation - 1, client.member_id),
            _ => self.commit(client.group, client.generation, MemberId::new("stranger").unwrap()),
        }
    }

    fn commit(&mut self, group: GroupId, generation: i32, member_id: MemberId) {
        let offset = self.random.below(1_000) as i64;
        let mut request = CommitRequest { group, ..commit_request(generation, &member_id, offset) };
        if self.random.one_in(3) {
            request.topics[0].name = Arc::from("u");
        }
        if self.random.one_in(6) {
            request.retention_ms = Some(1_000);
        }
        self.decide(|groups, ticket, now| groups.decide_commit(request, ticket, now));
    }
}

impl Client {
    fn forget(&mut self) {
        self.member_id = MemberId::unknown();
        self.phase = Phase::Out;
    }

    fn on_joined(&mut self, response: JoinResponse) -> Vec<&'static str> {
        self.phase = Phase::Out;
        match response.error {
            ErrorCode::None => {
                assert!(!response.member_id.is_empty() && response.generation > 0);
                assert_eq!(response.protocol_type.as_deref(), Some("consumer"));
                let sees_all = !response.members.is_empty();
                assert!(!sees_all || response.leader == response.member_id, "only the leader sees the others");
                self.member_id = response.member_id;
                self.generation = response.generation;
                self.followers = response.members.into_iter().map(|member| member.member_id).collect();
                self.phase = Phase::Joined;
                if response.skip_assignment { vec!["joined", "assignment skipped"] } else { vec!["joined"] }
            }
            ErrorCode::MemberIdRequired => {
                self.member_id = response.member_id;
                vec!["member id given"]
            }
            ErrorCode::RebalanceInProgress => Vec::new(),
            ErrorCode::FencedInstanceId => {
                self.forget();
                vec!["fenced"]
            }
            ErrorCode::GroupMaxSizeReached => {
                self.forget();
                vec!["turned away"]
            }
            _ => {
                self.forget();
                Vec::new()
            }
        }
    }

    fn on_synced(&mut self, response: SyncResponse) -> bool {
        self.phase = if response.error == ErrorCode::None { Phase::In } else { Phase::Out };
        if matches!(response.error, ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId) {
            self.forget();
        }
        response.error == ErrorCode::None
    }
}

#[test]
fn whatever_clients_do_the_state_is_the_replay_of_its_log() {
    let mut marks: BTreeMap<&'static str, usize> = BTreeMap::new();
    for seed in 1..=SEEDS {
        let mut simulation = Simulation::new(seed);
        for step in 0..STEPS {
            // Printed only when the test fails: the seed that replays it.
            if step == 0 {
                println!("seed {seed}");
            }
            simulation.step();
        }
        simulation.settle();
        simulation.world.restart();
        for (mark, count) in simulation.marks {
            *marks.entry(mark).or_default() += count;
        }
    }
    for mark in [
        "joined",
        "member id given",
        "assigned",
        "assignment skipped",
        "fenced",
        "turned away",
        "committed",
        "commit refused",
        "offsets expired",
        "append refused",
        "restarted",
        "empty",
        "preparing",
        "completing",
        "stable",
        "gone",
    ] {
        assert!(marks.contains_key(mark), "never seen: {mark}; seen: {marks:?}");
    }
}
