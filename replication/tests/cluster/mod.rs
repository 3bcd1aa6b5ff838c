//! A cluster in a simulated world: three nodes, a controller, a network and a clock in one thread. A seed chooses what is
//! done, how long everything takes, what is lost and when the power goes.
//!
//! The deciders are the real ones, the logs and journals too, on simulated disks; [`node`] is the carrier, [`oracle`]
//! knows the truth. After every event the invariants of KIP-966's specification hold; in the end everything heals, and
//! the cluster has to come together again.

#![allow(unreachable_pub, reason = "each part is used by its neighbours")]

mod clients;
mod damage;
mod directories;
mod epilogue;
pub mod faults;
mod late;
mod metadata_log;
mod network;
mod node;
mod options;
mod oracle;
mod part;
mod reconcile;
mod steps;
mod streams;
mod truth;

#[path = "../../../storage/tests/world/coverage.rs"]
pub mod coverage;
#[path = "../../../storage/tests/world/process.rs"]
#[allow(dead_code, reason = "each test target uses its part")]
pub mod process;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use stonelog_protocol::{BrokerId, TopicPartition, Uuid};

use crate::support::Random;
pub(crate) use crate::support::{NOW, ROOT};
use coverage::Coverage;
use metadata_log::{Answer, Asked, MetadataLog};
use network::{CONTROLLER, Flight, Network, Sent};
use node::{Env, Node, Out, Store};
use options::Options;
use oracle::Oracle;
use steps::asked;
use truth::{check_members, check_superset};

/// Something that will happen.
enum Event {
    Tick(BrokerId, u64),
    Journal(BrokerId, u64),
    Upkeep(BrokerId, u64),
    Read(BrokerId, u64),
    Arrive(Flight),
    Reset(BrokerId, BrokerId, Option<u64>),
    Asked(Asked),
    Commit(u64),
    Answer(Answer),
    Images(BrokerId, u64, u64),
    Sessions,
    Append,
    Fault,
    Start(BrokerId, bool),
    ReplaceDisk(BrokerId),
}

/// Microseconds between two appends, about, while nothing goes wrong.
const QUIET_APPEND_EVERY: u64 = 250_000;

/// See the module's comment.
pub struct Cluster {
    pub seed: u64,
    pub coverage: Coverage,
    pub appends_count: u64,
    pub faults_count: u64,
    /// Microseconds since the beginning.
    pub now: u64,
    options: Options,
    random: Random,
    beginning: Instant,
    /// When, in which order, and the place in `planned`.
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    planned: Vec<Option<Event>>,
    /// Places in `planned` with nothing in them.
    vacant: Vec<usize>,
    events_count: u64,
    nodes: Vec<Node>,
    log: MetadataLog,
    network: Network,
    oracle: Oracle,
    journals: BTreeMap<BrokerId, u64>,
    tokens: u64,
    trace: u64,
    healing: bool,
    /// Until then producers have much to do, and from then on, which is before the next fault.
    busy_until: u64,
    busy_from: u64,
    probe: u64,
    /// Directories made so far, beyond the first ones.
    stores_count: u8,
    /// Topics that were strict at the last look.
    were_strict: std::collections::BTreeSet<stonelog_protocol::TopicId>,
    /// Whether some topic was relaxed at some time.
    ever_relaxed: bool,
    /// Somebody has accepted that committed records are lost.
    loss_accepted: bool,
    /// Where damage is that was not mended yet.
    damaged: Option<damage::Damaged>,
    /// Reports that were sent, some of each pair's.
    reports: BTreeMap<(BrokerId, BrokerId), Vec<bytes::Bytes>>,
}

/// The identifier of one of a node's directories.
fn directory_id(node: i32, place: u8, replaced: u8) -> Uuid {
    let mut bytes = [u8::try_from(node).expect("few nodes"); 16];
    (bytes[14], bytes[15]) = (place, replaced);
    Uuid(bytes)
}

impl Cluster {
    pub fn new(seed: u64) -> Cluster {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xc105_7e12);
        let options = Options::of(&mut random);
        let node = |id| Node {
            id: BrokerId(id),
            stores: (0..options.directories).map(|place| (directory_id(id, place, 0), Store::new())).collect(),
            lives: 0,
            up: None,
            stuck_until: 0,
        };
        let ever_relaxed = options.relaxed;
        let nodes: Vec<Node> = (1..=options.nodes).map(node).collect();
        let mut cluster = Cluster {
            seed,
            coverage: Coverage::default(),
            appends_count: 0,
            faults_count: 0,
            now: 0,
            options,
            random,
            beginning: stonelog_replication::runtime::clock::Clock.mono(),
            events: BinaryHeap::new(),
            planned: Vec::new(),
            vacant: Vec::new(),
            events_count: 0,
            nodes,
            log: MetadataLog::new(),
            network: Network::default(),
            oracle: Oracle::default(),
            journals: BTreeMap::new(),
            tokens: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            healing: false,
            busy_until: 0,
            busy_from: u64::MAX,
            probe: 0,
            stores_count: 0,
            were_strict: Default::default(),
            ever_relaxed,
            loss_accepted: false,
            damaged: None,
            reports: BTreeMap::new(),
        };
        for id in cluster.ids() {
            cluster.plan(0, Event::Start(id, true));
        }
        cluster.plan(500_000, Event::Sessions);
        cluster.run_until(3_000_000);
        cluster.create_topic();
        cluster.run_until(4_000_000);
        cluster.plan(0, Event::Append);
        cluster.plan(1_000_000, Event::Fault);
        cluster
    }

    /// What has happened so far, as a number.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// How many batches a producer was told are safe.
    pub fn acknowledged_count(&self) -> u64 {
        self.oracle.acknowledged_count
    }

    pub fn run_until(&mut self, end: u64) {
        while let Some(Reverse((at, _, place))) = self.events.peek().copied()
            && at <= end
        {
            self.events.pop();
            self.now = at;
            self.vacant.push(place);
            let event = self.planned[place].take().expect("planned");
            self.handle(event);
        }
        self.now = end;
    }

    /// All nodes.
    fn ids(&self) -> Vec<BrokerId> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    fn note(&mut self, values: &[u64]) {
        for value in values {
            self.trace = (self.trace ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    fn plan(&mut self, after: u64, event: Event) {
        self.events_count += 1;
        let place = self.vacant.pop().unwrap_or(self.planned.len());
        if place == self.planned.len() {
            self.planned.push(None);
        }
        self.planned[place] = Some(event);
        self.events.push(Reverse((self.now + after, self.events_count, place)));
    }

    fn place(id: BrokerId) -> usize {
        usize::try_from(id.0 - 1).expect("a node")
    }

    fn node(&mut self, id: BrokerId) -> &mut Node {
        &mut self.nodes[Cluster::place(id)]
    }

    fn is_life(&self, id: BrokerId, life: u64) -> bool {
        self.nodes[Cluster::place(id)].up.as_ref().is_some_and(|up| up.life == life)
    }

    /// Runs a step of one node and carries out what it wants.
    fn with<T>(&mut self, id: BrokerId, step: impl FnOnce(&mut Node, &mut Env<'_>) -> T) -> T {
        let dice = self.random.next();
        let mut env = Env {
            oracle: &mut self.oracle,
            out: Vec::new(),
            now: self.now,
            moment: self.beginning + Duration::from_micros(self.now),
            rules: &self.log.rules,
            options: &self.options,
            probe: self.probe,
            strict: &self.log.strict,
            truth: self.log.newest(),
            dice,
            loss_accepted: self.loss_accepted,
        };
        let node = &mut self.nodes[Cluster::place(id)];
        let committed = env.oracle.committed_count;
        let done = step(node, &mut env);
        let out = env.out;
        let life = node.lives;
        check_superset(node, &self.log);
        // Nobody else's log has moved.
        self.check_members(Some(id).filter(|_| self.oracle.committed_count == committed));
        for out in out {
            match out {
                Out::Mark(mark) => self.coverage.hit(mark),
                Out::Die => faults::crash(self, id, false),
                Out::Send(to, bytes) => {
                    self.note(&[u64::from(crc32c::crc32c(&bytes)), to.0 as u64]);
                    self.send(id, to, bytes);
                }
                Out::Ask(request, number) => {
                    let asked = asked(&self.nodes[Cluster::place(id)], request, number);
                    self.ask(asked);
                }
                Out::Read => {
                    let after = 100 + self.below(20_000);
                    self.plan(after, Event::Read(id, life));
                }
            }
        }
        self.kick_journal(id);
        done
    }

    /// Looks at all members, or at one node's replicas.
    fn check_members(&self, only: Option<BrokerId>) {
        if !self.loss_accepted {
            check_members(&self.nodes, &self.log, &self.oracle, only);
        }
    }

    fn send(&mut self, from: BrokerId, to: BrokerId, bytes: bytes::Bytes) {
        let now = self.now;
        self.repeat_reports(from, to, &bytes);
        match self.network.send(from, to, bytes, now, &mut self.random) {
            Sent::At(at, flight) => {
                let again = match self.below(300) {
                    // Once more, when its connection may be gone, or its process.
                    0 => self.below(2_000_000),
                    1 => 5_000_000 + self.below(15_000_000),
                    _ => 0,
                };
                if again > 0 {
                    self.coverage.hit_if(again >= 5_000_000, "message of a former life");
                    self.plan(at - now + again, Event::Arrive(flight.clone()));
                }
                self.plan(at - now, Event::Arrive(flight));
            }
            Sent::LostUntilReset(at, number) => self.plan(at - now, Event::Reset(from, to, Some(number))),
            Sent::Lost => {}
        }
    }

    /// A request to the controller: it may be late, lost, or there twice.
    fn ask(&mut self, asked: Asked) {
        if self.network.is_cut(asked.from, CONTROLLER, self.now) {
            return;
        }
        if self.delay_join(&asked) {
            return;
        }
        let delay = match self.below(20) {
            0 => self.below(4_000_000),
            _ => 200 + self.below(5_000),
        };
        if self.below(if asked.number > 0 { 12 } else { 30 }) == 0 {
            let again = match self.below(3) {
                0 => 5_000_000 + self.below(15_000_000),
                _ => delay + self.below(6_000_000),
            };
            self.plan(again, Event::Asked(asked.clone()));
            self.coverage.hit_if(asked.number > 0, "ISR request there twice");
            self.coverage.hit_if(again >= 5_000_000, "request of a former life");
        }
        self.plan(delay, Event::Asked(asked));
    }

    fn kick_journal(&mut self, id: BrokerId) {
        let node = &self.nodes[Cluster::place(id)];
        let Some(up) = &node.up else { return };
        if up.directories.is_idle() || self.journals.get(&id) == Some(&up.life) {
            return;
        }
        let (life, stuck) = (up.life, node.stuck_until.saturating_sub(self.now));
        self.journals.insert(id, life);
        let after = stuck + 50 + self.below(1_500);
        self.plan(after, Event::Journal(id, life));
    }

    /// One step of a journal's threads: write, tell, sync, or a lane hears.
    fn journal(&mut self, id: BrokerId) {
        let mut random = Random(self.random.next());
        self.node(id).up.as_mut().expect("it lives").directories.step(&mut random);
        self.with(id, |node, env| {
            let me = node.id;
            if let Some(up) = &mut node.up {
                up.after(me, env);
            }
        });
    }

    fn upkeep(&mut self, id: BrokerId) {
        let checkpoints = self.below(3) == 0;
        // A journal with no room left holds everything up: the checkpointer does not let it come so far.
        let is_filling = |process: &process::Process| process.journal_percent() > 50;
        let steps = self.below(40);
        let mut coverage = std::mem::take(&mut self.coverage);
        let up = self.node(id).up.as_mut().expect("it lives");
        for process in up.directories.iter_mut() {
            for partition in process.ids() {
                for _ in 0..3 {
                    process.step_flush(partition, &mut coverage).expect("the disk is whole");
                }
            }
            let hurries = is_filling(process);
            if checkpoints || hurries || process.is_checkpointing() {
                for _ in 0..if hurries { 200 } else { steps } {
                    process.step_checkpoint(&mut coverage).expect("the disk is whole");
                    if !hurries && !process.is_checkpointing() {
                        break;
                    }
                }
            }
            if steps < 4 {
                for partition in process.ids() {
                    process.hosted(partition).log.evict(500);
                }
            }
        }
        self.coverage = coverage;
        self.with(id, |node, env| {
            let me = node.id;
            if let Some(up) = &mut node.up {
                if env.dice.is_multiple_of(3) {
                    up.consume(env);
                }
                up.after(me, env);
            }
        });
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick(id, life) if self.is_life(id, life) => {
                self.probe += 1;
                self.with(id, Node::tick);
                let has_news = self.nodes[Cluster::place(id)].up.as_ref().map(|up| up.image.index());
                if has_news.is_some_and(|index| index < self.log.newest().index()) {
                    let after = self.below(30_000);
                    self.plan(after, Event::Images(id, life, self.log.newest().index()));
                }
                let after = 40_000 + self.below(60_000);
                self.plan(after, Event::Tick(id, life));
            }
            Event::Journal(id, life) if self.is_life(id, life) => {
                self.journals.remove(&id);
                self.journal(id);
            }
            Event::Upkeep(id, life) if self.is_life(id, life) => {
                self.upkeep(id);
                let after = 200_000 + self.below(800_000);
                self.plan(after, Event::Upkeep(id, life));
            }
            Event::Read(id, life) if self.is_life(id, life) => self.with(id, |node, env| {
                let me = node.id;
                if let Some(up) = &mut node.up {
                    up.work(me, env);
                }
            }),
            Event::Arrive(flight) => {
                if !self.network.is_current(&flight) {
                    if self.below(2) == 0 {
                        return;
                    }
                    self.coverage.hit("message of an earlier connection");
                }
                self.note(&[flight.to.0 as u64, self.now]);
                self.with(flight.to, |node, env| node.on_message(flight.from, flight.bytes, env));
            }
            Event::Reset(one, other, number) => self.reset(one, other, number),
            Event::Asked(asked) => {
                self.log.ask(asked, self.now);
                self.decide();
            }
            Event::Commit(term) => {
                let answer = self.log.commit(term);
                self.publish();
                answer.into_iter().for_each(|answer| self.answer(answer));
                self.decide();
            }
            Event::Answer(answer) => {
                let to = answer.to;
                self.with(to, |node, env| node.on_answer(&answer, env));
            }
            Event::Images(id, life, index) if self.is_life(id, life) => self.images(id, index),
            Event::Sessions => {
                if let Some(request) = self.log.expired(self.now) {
                    self.coverage.hit("session expired");
                    self.log.ask(Asked { from: CONTROLLER, life: 0, number: 0, request }, self.now);
                    self.decide();
                }
                self.plan(500_000, Event::Sessions);
            }
            Event::Append => {
                self.append();
                let is_busy = (self.now < self.busy_until || self.now >= self.busy_from) && !self.healing;
                if !is_busy && self.below(20) == 0 {
                    self.be_busy();
                }
                let every = if is_busy { self.options.append_every } else { QUIET_APPEND_EVERY };
                let after = every / 2 + self.below(every);
                let until_busy = self.busy_from.saturating_sub(self.now);
                self.plan(if until_busy > 0 { after.min(until_busy) } else { after }, Event::Append);
            }
            Event::Fault if self.healing => {}
            Event::Fault => {
                faults::inject(self);
                self.be_busy();
                let after = self.options.fault_every / 2 + self.below(self.options.fault_every);
                self.busy_from = self.now + after.saturating_sub(400_000);
                self.plan(after, Event::Fault);
            }
            Event::Start(id, survived) => self.start(id, survived),
            Event::ReplaceDisk(id) => faults::replace_disk(self, id),
            // Of a process that is gone.
            Event::Tick(..) | Event::Journal(..) | Event::Upkeep(..) | Event::Read(..) | Event::Images(..) => {}
        }
    }

    /// Producers append one batch after the other for a while.
    fn be_busy(&mut self) {
        self.busy_until = self.now + 200_000 + self.below(1_200_000);
    }

    fn reset(&mut self, one: BrokerId, other: BrokerId, number: Option<u64>) {
        if self.network.reset(one, other, number) {
            self.with(one, |node, env| node.on_disconnected(other, env));
            self.with(other, |node, env| node.on_disconnected(one, env));
        }
    }

    fn decide(&mut self) {
        let (answers, commits) = self.log.decide();
        answers.into_iter().for_each(|answer| self.answer(answer));
        if commits {
            self.coverage.hit_if(self.log.answered_max > 1, "several requests in one entry");
            let after = 500 + self.below(20_000);
            self.plan(after, Event::Commit(self.log.term));
        }
    }

    fn answer(&mut self, answer: Answer) {
        if answer.to == CONTROLLER || self.network.is_cut(CONTROLLER, answer.to, self.now) {
            return;
        }
        let after = match self.below(20) {
            0 => self.below(7_000_000),
            _ => 200 + self.below(5_000),
        };
        self.plan(after, Event::Answer(answer));
    }

    /// The newest image is on its way to everybody.
    fn publish(&mut self) {
        let index = self.log.newest().index();
        if let [.., before, after] = &self.log.images[..] {
            let is_from_elr = after.partitions().any(|(topic, index, now)| {
                let was = before.partition(TopicPartition { topic_id: topic.id, partition: index });
                let leader = now.leader.filter(|leader| was.is_some_and(|was| was.leader != Some(*leader)));
                leader.is_some_and(|leader| was.is_some_and(|was| was.elr.contains(&leader)))
            });
            let is_moved = after.partitions().any(|(topic, index, now)| {
                let was = before.partition(TopicPartition { topic_id: topic.id, partition: index });
                was.is_some_and(|was| was.is_reassigning() && !now.is_reassigning() && !was.removing.is_empty())
            });
            self.coverage.hit_if(is_from_elr, "elected from the ELR");
            self.coverage.hit_if(is_moved, "reassignment complete");
        }
        self.log.tell_change(self.now);
        self.note_modes();
        self.check_members(None);
        for id in self.ids() {
            let Some(life) = self.node(id).up.as_ref().map(|up| up.life) else { continue };
            let after = match self.below(15) {
                0 => self.below(1_500_000),
                _ => 200 + self.below(10_000),
            };
            self.plan(after, Event::Images(id, life, index));
        }
    }

    /// What is relaxed now promises less, and what it held before with it.
    fn note_modes(&mut self) {
        if self.were_strict == self.log.strict {
            return;
        }
        for id in self.partitions() {
            if !self.log.is_strict(id.topic_id) {
                self.ever_relaxed = true;
                if self.were_strict.contains(&id.topic_id) {
                    self.coverage.hit("strict topic relaxed");
                    self.oracle.on_relaxed(id);
                }
            }
        }
        self.were_strict.clone_from(&self.log.strict);
    }

    fn images(&mut self, id: BrokerId, index: u64) {
        if self.network.is_cut(CONTROLLER, id, self.now) {
            return;
        }
        loop {
            let known = self.nodes[Cluster::place(id)].up.as_ref().map_or(u64::MAX, |up| up.image.index());
            let Some(next) = self.log.next_after(known).filter(|next| next.index() <= index).cloned() else { return };
            self.note(&[next.index()]);
            self.with(id, |node, env| node.on_image(&next, env));
        }
    }

    fn start(&mut self, id: BrokerId, survived: bool) {
        let image = std::sync::Arc::clone(&self.log.images[0]);
        self.with(id, |node, env| node.start(image, survived, env));
        let life = self.nodes[Cluster::place(id)].lives;
        let after = 1 + self.below(50_000);
        self.plan(after, Event::Tick(id, life));
        self.plan(after + 300_000, Event::Upkeep(id, life));
        damage::on_started(self, id);
    }
}
