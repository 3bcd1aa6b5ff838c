//! One node: a disk that outlives its processes, and the process with its partitions.
//!
//! It mirrors what lanes and carriers do with the deciders: it hands events in and carries out what comes back, and
//! compares nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::peer::stream::{StreamBody, StreamId, StreamMessage};
use stonelog_protocol::{BrokerEpoch, BrokerId, LeaderEpoch, TopicPartition, Uuid};
use stonelog_replication::controller::rules::ConfigRules as _;
use stonelog_replication::controller::{
    BrokerHeartbeat, ControllerRequest, ControllerResponse, RegisterBrokerRequest, ReportedDirectory,
};
use stonelog_replication::isr_proposal::{IsrAnswer, IsrProposals};
use stonelog_replication::metadata::broker::ReplicaReport;
use stonelog_replication::metadata::{MetadataImage, Verdict};
use stonelog_replication::partition::leader::{Beginning, OwnLog, Positions, Wish};
use stonelog_replication::partition::{Leader, Leadership};
use stonelog_replication::replica::{Cut, Effect, Follower, Following, LeadStream, PushPlan, lead};
use stonelog_storage::disk::SimDisk;
use stonelog_storage::log_dir::RecordedEpochs;
use stonelog_storage::recovery::Verdict as Recovered;
use stonelog_storage::segment::read::{ReadDone, ReadJob};

use super::metadata_log::{Answer, cluster_id};
use super::oracle::{Entry, Shadow};
pub use super::part::{Env, Out, Part, Role, Waiting};
use super::process::Process;
use super::steps::{cut, entries, progress, pump, read_all};
use crate::support::NOW;

/// `replica.lag.time.max.ms`.
pub const LAG_MAX: Duration = Duration::from_secs(5);
/// How often a broker says that it is alive, in microseconds.
const HEARTBEAT: u64 = 2_000_000;

/// A node, up or down.
pub struct Node {
    pub id: BrokerId,
    pub disk: SimDisk,
    pub lives: u64,
    pub recorded: RecordedEpochs,
    pub up: Option<Up>,
    /// Until then its journal completes nothing.
    pub stuck_until: u64,
}

/// A process.
pub struct Up {
    pub life: u64,
    pub process: Process,
    pub incarnation: Uuid,
    pub epoch: Option<BrokerEpoch>,
    pub image: Arc<MetadataImage>,
    pub parts: BTreeMap<TopicPartition, Part>,
    pub waiting: Vec<Waiting>,
    pub reads: Vec<(TopicPartition, BrokerId, StreamId, ReadJob)>,
    proposals: IsrProposals,
    streams: BTreeMap<(TopicPartition, BrokerId), LeadStream>,
    next_stream: u64,
    next_heartbeat: u64,
    next_register: u64,
    survived: Vec<ReplicaReport>,
    verdict: Verdict,
    pub unsynced: bool,
    pub unheard: bool,
}

/// The one directory of a node.
fn directory(id: BrokerId) -> Uuid {
    Uuid([u8::try_from(id.0).expect("few nodes"); 16])
}

fn held<T>(result: Result<T, String>) -> T {
    result.unwrap_or_else(|broken| panic!("{broken}"))
}

impl Node {
    /// Starts a process on whatever the disk holds.
    pub fn start(&mut self, image: Arc<MetadataImage>, survived: bool, env: &Env<'_>) {
        self.lives += 1;
        let process = Process::start(&self.disk, env.options.journal, &env.options.config, survived)
            .unwrap_or_else(|fault| panic!("node {} does not start: {fault}", self.id));
        let end = &process.journal_end;
        let verdict = match end {
            end if end.hurts_everyone() => Verdict::Lost,
            end if end.torn_tail.is_some() => Verdict::Cut,
            _ => Verdict::Proved,
        };
        let report = |(id, found): (&TopicPartition, &Recovered)| ReplicaReport {
            partition: *id,
            verdict: match found {
                Recovered::Proved => Verdict::Proved,
                Recovered::Cut => Verdict::Cut,
                Recovered::Damaged => Verdict::Damaged,
                Recovered::Lost(_) => Verdict::Lost,
            },
            last_epoch: process.log(*id).latest_epoch().unwrap_or(LeaderEpoch::NONE),
            log_end_offset: process.log(*id).log_end(),
        };
        let survived = process.verdicts.iter().map(report).filter(|report| report.verdict != verdict).collect();
        let mut incarnation = [0; 16];
        incarnation[..8].copy_from_slice(&self.lives.to_be_bytes());
        incarnation[8..12].copy_from_slice(&self.id.0.to_be_bytes());
        self.up = Some(Up {
            life: self.lives,
            process,
            incarnation: Uuid(incarnation),
            epoch: None,
            image,
            parts: BTreeMap::new(),
            waiting: Vec::new(),
            reads: Vec::new(),
            proposals: IsrProposals::default(),
            streams: BTreeMap::new(),
            next_stream: 1,
            next_heartbeat: 0,
            next_register: 0,
            survived,
            verdict,
            unsynced: false,
            unheard: false,
        });
    }

    /// Time has passed.
    pub fn tick(&mut self, env: &mut Env<'_>) {
        let (id, directory, recorded) = (self.id, directory(self.id), self.recorded);
        let Some(up) = &mut self.up else { return };
        let Some(epoch) = up.epoch else {
            if env.now >= up.next_register {
                up.next_register = env.now + 500_000;
                let request = RegisterBrokerRequest {
                    id,
                    cluster_id: cluster_id(),
                    incarnation: up.incarnation,
                    endpoints: Vec::new(),
                    rack: None,
                    directories: vec![ReportedDirectory { id: directory, verdict: up.verdict, recorded }],
                    differing: up.survived.clone(),
                    replaces: up.image.broker(id).map(|registered| registered.epoch),
                };
                env.out.push(Out::Ask(ControllerRequest::RegisterBroker(request), 0));
            }
            return;
        };
        if env.now >= up.next_heartbeat {
            let is_fenced = up.image.broker(id).is_none_or(|broker| broker.fenced);
            up.next_heartbeat = env.now + if is_fenced { 300_000 } else { HEARTBEAT };
            let request = BrokerHeartbeat {
                id,
                epoch,
                metadata_index: up.image.index(),
                want_fence: false,
                want_shutdown: false,
                online_directories: None,
            };
            env.out.push(Out::Ask(ControllerRequest::Heartbeat(request), 0));
        }
        for partition in up.parts.keys().copied().collect::<Vec<_>>() {
            up.tick_partition(id, epoch, partition, env);
        }
        if let Some(number) = up.proposals.overdue(env.moment) {
            let settled = up.proposals.on_lost(number, env.moment);
            env.out.push(Out::Mark("ISR answer lost"));
            up.on_settled(&settled);
        }
        if let Some((number, request)) = up.proposals.request(id, epoch, env.moment) {
            env.out.push(Out::Ask(ControllerRequest::AlterPartition(request), number));
        }
    }

    /// The controller's answer.
    pub fn on_answer(&mut self, answer: &Answer, env: &mut Env<'_>) {
        let Some(up) = self.up.as_mut().filter(|up| up.life == answer.life) else { return };
        match &answer.response {
            Ok(ControllerResponse::RegisterBroker(registered)) => {
                let known = &registered.directories[0];
                let follows = known.unfenced_epoch.filter(|_| !known.is_old_copy);
                self.recorded = RecordedEpochs { last: Some(registered.epoch), follows };
                up.epoch = Some(registered.epoch);
            }
            Ok(ControllerResponse::AlterPartition(results)) => {
                let refused = results.iter().any(|result| result.result.is_err());
                env.out.push(Out::Mark(if refused { "ISR change refused" } else { "ISR change accepted" }));
                let answered = IsrAnswer { decided_at: answer.decided_at, results: Ok(results.clone()) };
                let settled = up.proposals.on_answer(answer.number, &answered, env.moment);
                up.on_settled(&settled);
            }
            Err(reject) if answer.number > 0 => {
                let answered = IsrAnswer { decided_at: answer.decided_at, results: Err(reject.code) };
                let settled = up.proposals.on_answer(answer.number, &answered, env.moment);
                up.on_settled(&settled);
            }
            _ => {}
        }
    }

    /// The next image, in order.
    pub fn on_image(&mut self, image: &Arc<MetadataImage>, env: &mut Env<'_>) {
        let Some(up) = &mut self.up else { return };
        up.image = Arc::clone(image);
        if image.broker(self.id).is_some_and(|broker| up.epoch.is_some_and(|epoch| broker.epoch > epoch)) {
            // A late request of an earlier life took the registration: this process is nobody any more.
            env.out.push(Out::Mark("registration taken by an earlier life"));
            return env.out.push(Out::Die);
        }
        let mut ids: Vec<TopicPartition> = up.process.ids();
        for (topic, index, _) in image.partitions() {
            ids.push(TopicPartition { topic_id: topic.id, partition: index });
        }
        ids.sort();
        ids.dedup();
        for id in ids {
            up.reconcile(self.id, id, env);
        }
        up.after(self.id, env);
    }

    /// A message of a stream.
    pub fn on_message(&mut self, from: BrokerId, bytes: Bytes, env: &mut Env<'_>) {
        let Some(up) = &mut self.up else { return };
        let message = StreamMessage::decode(bytes).expect("nobody here writes anything else");
        match message.body {
            StreamBody::Open(_) | StreamBody::Report(_) | StreamBody::Credit(_) => up.on_follower(from, &message, env),
            _ => up.on_leader(self.id, &message, env),
        }
        up.after(self.id, env);
    }

    /// The connection to a peer is another one.
    pub fn on_disconnected(&mut self, peer: BrokerId, env: &mut Env<'_>) {
        let Some(up) = &mut self.up else { return };
        for (id, part) in &mut up.parts {
            match &mut part.role {
                Role::Leader(leader) => {
                    if let Some(stream) = up.streams.remove(&(*id, peer)) {
                        leader.on_closed(stream.id(), stream.stamps());
                    }
                }
                Role::Follower(follower) if follower.following().leader == peer => follower.on_disconnected(env.moment),
                Role::Follower(_) | Role::Idle => {}
            }
        }
    }
}

impl Up {
    fn tick_partition(&mut self, me: BrokerId, epoch: BrokerEpoch, id: TopicPartition, env: &mut Env<'_>) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        let log = self.process.log(id);
        match &mut part.role {
            Role::Leader(leader) => {
                match leader.wish(id, OwnLog { end: log.log_end(), is_whole: true }, LAG_MAX, env.moment) {
                    Wish::Nothing => {}
                    Wish::Isr(wish) => {
                        let grows = wish.isr.len() > leader.leadership().isr.len();
                        env.out.push(Out::Mark(if grows { "join proposed" } else { "leave proposed" }));
                        if wish.hand_over {
                            env.out.push(Out::Mark("gray leader hands over"));
                            let request = super::metadata_log::fence(me, epoch);
                            env.out.push(Out::Ask(ControllerRequest::Heartbeat(request), 0));
                        }
                        self.proposals.wish(wish);
                    }
                }
            }
            Role::Follower(follower) => {
                if let Some(open) = follower.open(StreamId(self.next_stream), log, env.moment) {
                    self.next_stream += 1;
                    env.out.push(Out::Send(follower.following().leader, open.encode()));
                }
            }
            Role::Idle => {}
        }
    }

    fn on_settled(&mut self, settled: &[stonelog_replication::isr_proposal::Settled]) {
        for one in settled {
            if let Some(part) = self.parts.get_mut(&one.partition)
                && let Role::Leader(leader) = &mut part.role
                && leader.leadership().leader_epoch == one.leader_epoch
            {
                leader.on_isr_answer(one.decided_at);
            }
        }
    }

    /// What the image says of one partition.
    fn reconcile(&mut self, me: BrokerId, id: TopicPartition, env: &mut Env<'_>) {
        let image = Arc::clone(&self.image);
        // Rule 4: nothing before the own registration is applied.
        let is_own = image.broker(me).is_some_and(|broker| broker.incarnation == self.incarnation);
        if !is_own || self.epoch.is_none() {
            return;
        }
        let is_held = self.process.ids().contains(&id);
        let Some(registration) = image.partition(id).filter(|found| found.replicas.contains(&me)) else {
            self.parts.remove(&id);
            if is_held {
                env.out.push(Out::Mark("replica dropped"));
                self.process.drop_log(id);
            }
            return;
        };
        let topic = image.topic_by_id(id.topic_id).expect("of this image");
        let strict = env.rules.is_strict(&image, &topic.name);
        if !is_held {
            self.process.create(id, env.options.config.clone(), strict, 0);
        }
        if !self.parts.contains_key(&id) {
            let shadow = if is_held { read_all(&mut self.process, id) } else { Shadow::new() };
            let high_watermark = self.process.log(id).log_start();
            self.parts.insert(
                id,
                Part {
                    role: Role::Idle,
                    leader_epoch: LeaderEpoch::NONE,
                    high_watermark,
                    shadow,
                    min_isr: 1,
                    deferred: false,
                    checked: 0,
                },
            );
        }
        let ticket = self.process.ticket(id);
        if let Some(entry) = self.process.hosted(id).log.set_mode(strict, ticket) {
            self.process.enqueue(entry);
        }
        let part = self.parts.get_mut(&id).expect("just made");
        part.leader_epoch = registration.leader_epoch;
        part.min_isr = env.rules.min_insync_replicas(&image, &topic.name, registration.replicas.len());
        part.deferred = false;
        match registration.leader {
            Some(leader) if leader == me => {
                let is_led = matches!(part.role, Role::Leader(_));
                if self.process.log(id).is_changing() && !is_led {
                    part.role = Role::Idle;
                    part.deferred = true;
                    return;
                }
                let epoch = registration.leader_epoch;
                if self.process.log(id).latest_epoch() != Some(epoch) {
                    let ticket = self.process.ticket(id);
                    let entry = self.process.hosted(id).log.begin_epoch(epoch, ticket);
                    self.process.enqueue(entry);
                }
                let log = self.process.log(id);
                let leadership = Leadership::of(&image, id, registration, part.min_isr, strict);
                let epoch_start = log.epochs().latest().expect("just begun").start;
                match &mut part.role {
                    Role::Leader(leader) => {
                        if leadership.leader_epoch > leader.leadership().leader_epoch {
                            self.streams.retain(|(of, _), _| *of != id);
                        }
                        leader.on_leadership(leadership, epoch_start, env.moment);
                    }
                    role => {
                        env.out.push(Out::Mark("leader began"));
                        if let Some(lacks) = env.oracle.missing(id, &part.shadow, log.log_start().0, epoch) {
                            panic!("LeaderCompleteness: {me} leads {id} in {epoch} without {lacks:?}");
                        }
                        let own = Positions { written: log.written(), durable: log.durable() };
                        let at = Beginning { own, high_watermark: part.high_watermark, epoch_start };
                        *role = Role::Leader(Box::new(Leader::begin(me, leadership, at, env.moment)));
                    }
                }
            }
            other => {
                if matches!(part.role, Role::Leader(_)) {
                    env.out.push(Out::Mark("leader stepped down"));
                    self.streams.retain(|(of, _), _| *of != id);
                    self.proposals.forget(id);
                    part.role = Role::Idle;
                }
                let leader = other.and_then(|leader| image.broker(leader));
                let Some((leader, my_epoch)) = leader.zip(self.epoch) else {
                    part.role = Role::Idle;
                    return;
                };
                let following = Following {
                    partition: id,
                    leader_epoch: registration.leader_epoch,
                    leader: leader.id,
                    leader_broker_epoch: leader.epoch,
                    me,
                    my_broker_epoch: my_epoch,
                    my_directory: directory(me),
                };
                match &mut part.role {
                    Role::Follower(follower) => follower.on_following(following, env.moment),
                    role => {
                        let credit = env.options.credit;
                        let follower = Follower::begin(following, part.high_watermark, credit, env.moment);
                        *role = Role::Follower(Box::new(follower));
                    }
                }
            }
        }
    }

    /// A message to this node as leader.
    fn on_follower(&mut self, from: BrokerId, message: &StreamMessage, env: &mut Env<'_>) {
        let id = message.stamps.partition;
        let Some(Part { role: Role::Leader(leader), .. }) = self.parts.get_mut(&id) else {
            if matches!(message.body, StreamBody::Open(_)) {
                let refused = StreamBody::Refused(stonelog_protocol::peer::stream::Refusal::NotLeader);
                let answer = StreamMessage { stream: message.stream, stamps: message.stamps, body: refused };
                env.out.push(Out::Send(from, answer.encode()));
            }
            return;
        };
        match &message.body {
            StreamBody::Open(open) => {
                let log = self.process.log(id);
                let opening = lead::open(leader, log, (message.stream, message.stamps), open, env.moment);
                env.out.push(Out::Mark(match opening.answer.body {
                    StreamBody::Opened(_) => "stream opened",
                    StreamBody::Diverging(_) => "histories parted",
                    _ => "stream refused",
                }));
                env.out.push(Out::Send(from, opening.answer.encode()));
                if let Some(stream) = opening.stream {
                    self.streams.insert((id, from), stream);
                }
            }
            StreamBody::Report(report) => {
                if leader.on_report(message.stream, &message.stamps, report, env.moment).is_err() {
                    env.out.push(Out::Mark("report fenced"));
                    let close = StreamMessage { body: StreamBody::Close, ..message.clone() };
                    env.out.push(Out::Send(from, close.encode()));
                }
            }
            StreamBody::Credit(bytes) => {
                if let Some(stream) = self.streams.get_mut(&(id, from)).filter(|stream| stream.is_of(message)) {
                    stream.on_credit(*bytes);
                }
            }
            _ => unreachable!("sorted out before"),
        }
    }

    /// A message to this node as follower.
    fn on_leader(&mut self, me: BrokerId, message: &StreamMessage, env: &mut Env<'_>) {
        let id = message.stamps.partition;
        let Some(part) = self.parts.get_mut(&id) else { return };
        let Role::Follower(follower) = &mut part.role else { return };
        let effects = follower.on_message(message, self.process.log(id), env.moment);
        for effect in effects {
            match effect {
                Effect::Append(batches) => {
                    let ticket = self.process.ticket(id);
                    let epoch = follower.following().leader_epoch;
                    let bytes = u32::try_from(batches.len()).expect("small");
                    match self.process.hosted(id).log.append_as_follower(batches.clone(), epoch, NOW, ticket) {
                        Ok(entry) => {
                            for entry in entries(&batches) {
                                held(env.oracle.on_appended(id, entry));
                                part.shadow.insert(entry.base, entry);
                            }
                            self.process.enqueue(entry);
                            follower.on_appended(Ok(bytes), self.process.log(id), env.moment);
                        }
                        Err(reject) => panic!("{me} cannot append to {id}: {reject:?}"),
                    }
                }
                Effect::AdvanceLogStart(to) => {
                    let ticket = self.process.ticket(id);
                    if let Some(entry) = self.process.hosted(id).log.advance_log_start(to, ticket) {
                        self.process.enqueue(entry);
                    }
                }
                Effect::Cut { cut: Cut::To(to), lost } => {
                    assert_eq!(lost, None, "a strict follower loses nothing committed");
                    let going: Vec<Entry> = part.shadow.values().filter(|e| e.end > to.0).copied().collect();
                    if let Some(entry) = going.iter().find(|entry| env.oracle.is_committed(id, entry)) {
                        panic!("{me} cuts {id} at {to}, and {entry:?} is committed");
                    }
                    cut(&mut self.process, id, to, env);
                    let end = self.process.log(id).log_end().0;
                    part.shadow.retain(|_, entry| entry.end <= end);
                }
                Effect::Cut { cut: Cut::Reset(_), .. } => panic!("nothing is deleted here"),
                Effect::Stop(why) => panic!("{me} stops following {id}: {why:?}"),
            }
        }
    }

    /// A read that a stream waits for.
    pub fn run_read(&mut self, me: BrokerId, env: &mut Env<'_>) {
        let Some((id, follower, stream, job)) = self.reads.pop() else { return };
        let done = job.run(&self.process.access).expect("the disk is whole");
        let Some(Part { role: Role::Leader(leader), .. }) = self.parts.get_mut(&id) else { return };
        let Some(lead) = self.streams.get_mut(&(id, follower)).filter(|lead| lead.id() == stream) else { return };
        if let ReadDone::Damaged(hole) = &done {
            panic!("{hole:?}");
        }
        env.out.push(Out::Mark("catch-up read from disk"));
        if let PushPlan::Push(push) = lead.on_read(leader, self.process.log(id), done, env.probe) {
            env.out.push(Out::Send(follower, push.encode()));
        }
        self.after(me, env);
    }

    /// What every event ends with: positions are taken over, streams go on, who waits is told.
    pub fn after(&mut self, me: BrokerId, env: &mut Env<'_>) {
        for id in self.parts.keys().copied().collect::<Vec<_>>() {
            if self.parts[&id].deferred && !self.process.log(id).is_changing() {
                env.out.push(Out::Mark("leadership waited for a cut"));
                self.reconcile(me, id, env);
            }
            let part = self.parts.get_mut(&id).expect("of this list");
            let log = self.process.log(id);
            match &mut part.role {
                Role::Leader(leader) => {
                    leader.on_own_positions(Positions { written: log.written(), durable: log.durable() });
                    for ((_, follower), stream) in self.streams.range_mut((id, BrokerId(0))..=(id, BrokerId(i32::MAX)))
                    {
                        pump(leader, log, stream, *follower, &mut self.reads, env, id);
                    }
                    assert!(leader.high_watermark() >= part.high_watermark, "the high watermark went back");
                    part.high_watermark = leader.high_watermark();
                    let passed: Vec<Entry> = part
                        .shadow
                        .range(part.checked..)
                        .map(|(_, entry)| *entry)
                        .take_while(|entry| entry.end <= part.high_watermark.0)
                        .collect();
                    if let Some(last) = passed.last() {
                        part.checked = last.end;
                        held(env.oracle.on_committed(id, leader.leadership().leader_epoch, &passed));
                    }
                }
                Role::Follower(follower) => {
                    for message in follower.say(log, false) {
                        env.out.push(Out::Send(follower.following().leader, message.encode()));
                    }
                    part.high_watermark = part.high_watermark.max(follower.high_watermark());
                    part.checked = 0;
                }
                Role::Idle => part.checked = 0,
            }
        }
        self.settle(env);
    }

    fn settle(&mut self, env: &mut Env<'_>) {
        use stonelog_replication::partition::{Ack, ack};
        let (parts, process) = (&self.parts, &self.process);
        self.waiting.retain(|waiting| {
            let id = waiting.receipt.partition;
            let Some(part) = parts.get(&id) else { return false };
            match ack::outcome(&waiting.receipt, &progress(id, part, process.log(id))) {
                Ack::Pending => true,
                Ack::Done => {
                    held(env.oracle.on_acknowledged(id, waiting.base, waiting.crc));
                    env.out.push(Out::Mark("acknowledged"));
                    false
                }
                Ack::Failed(_) => {
                    env.out.push(Out::Mark("append failed after the fact"));
                    false
                }
            }
        });
    }
}
