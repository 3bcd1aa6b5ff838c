//! One node: a disk that outlives its processes, and the process with its partitions.
//!
//! It mirrors what lanes and carriers do with the deciders: it hands events in and carries out what comes back, and
//! compares nothing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::peer::stream::{StreamBody, StreamId, StreamMessage};
use stonelog_protocol::{BrokerEpoch, BrokerId, DirectoryId, LeaderEpoch, TopicPartition, Uuid};
use stonelog_replication::controller::{
    AssignReplicas, BrokerHeartbeat, ControllerRequest, ControllerResponse, RegisterBrokerRequest, ReportedDirectory,
};
use stonelog_replication::isr_proposal::{IsrAnswer, IsrProposals};
use stonelog_replication::metadata::broker::ReplicaReport;
use stonelog_replication::metadata::{MetadataImage, Verdict};
use stonelog_replication::partition::leader::{OwnLog, Wish};
use stonelog_replication::replica::{CreditPool, LeadStream};
use stonelog_storage::disk::SimDisk;
use stonelog_storage::log_dir::RecordedEpochs;
use stonelog_storage::recovery::Verdict as Recovered;

use super::directories::Directories;
use super::metadata_log::{Answer, cluster_id};
pub use super::part::{Env, Out, Part, Role, Waiting, Work};
use super::process::Process;
use super::steps::say;
use crate::support::new_disk;

/// `replica.lag.time.max.ms`.
pub const LAG_MAX: Duration = Duration::from_secs(5);
/// The longest batch that is taken: any that clients here write.
const BATCH_BYTES_MAX: u32 = 1 << 20;
/// How often a broker says that it is alive, in microseconds.
const HEARTBEAT: u64 = 2_000_000;

/// A node, up or down.
pub struct Node {
    pub id: BrokerId,
    pub stores: BTreeMap<DirectoryId, Store>,
    pub lives: u64,
    pub up: Option<Up>,
    /// Until then its journal completes nothing.
    pub stuck_until: u64,
}

/// A log directory on a disk of its own.
pub struct Store {
    pub disk: SimDisk,
    pub recorded: RecordedEpochs,
}

impl Store {
    /// An empty one.
    pub fn new() -> Store {
        Store { disk: new_disk(), recorded: RecordedEpochs::default() }
    }
}

/// A process.
pub struct Up {
    pub life: u64,
    pub directories: Directories,
    pub incarnation: Uuid,
    pub epoch: Option<BrokerEpoch>,
    pub image: Arc<MetadataImage>,
    pub parts: BTreeMap<TopicPartition, Part>,
    pub waiting: Vec<Waiting>,
    pub works: Vec<(TopicPartition, Work)>,
    /// What each follower has given its leader on the present stream, and not been sent.
    pub(super) paid: BTreeMap<TopicPartition, i64>,
    pub(super) proposals: IsrProposals,
    pub(super) streams: BTreeMap<(TopicPartition, BrokerId), LeadStream>,
    /// What leaders may send ahead to all of its followers.
    pub(super) pool: Rc<CreditPool>,
    next_stream: u64,
    next_heartbeat: u64,
    next_register: u64,
    next_assignment: u64,
    /// Replicas that are to be made when the files of an earlier one of that name are gone.
    pub(super) waits_for_deletion: BTreeSet<TopicPartition>,
    reported: Vec<ReportedDirectory>,
    differing: Vec<ReplicaReport>,
    /// A directory has failed: the controller hears which are left.
    pub has_failed: bool,
}

pub fn held<T>(result: Result<T, String>) -> T {
    result.unwrap_or_else(|broken| panic!("{broken}"))
}

impl Node {
    /// Starts a process on whatever the disk holds.
    pub fn start(&mut self, image: Arc<MetadataImage>, survived: bool, env: &Env<'_>) {
        self.lives += 1;
        let (mut directories, mut reported, mut differing) = (Directories::default(), Vec::new(), Vec::new());
        for (directory, store) in &self.stores {
            let process = Process::start(&store.disk, env.options.journal, &env.options.config, survived)
                .unwrap_or_else(|fault| panic!("node {} does not start: {fault}", self.id));
            let (verdict, reports) = found(self.id, *directory, &process, env.truth);
            differing.extend(reports);
            reported.push(ReportedDirectory { id: *directory, verdict, recorded: store.recorded });
            directories.open(*directory, process);
        }
        let mut incarnation = [0; 16];
        incarnation[..8].copy_from_slice(&self.lives.to_be_bytes());
        incarnation[8..12].copy_from_slice(&self.id.0.to_be_bytes());
        self.up = Some(Up {
            life: self.lives,
            directories,
            incarnation: Uuid(incarnation),
            epoch: None,
            image,
            parts: BTreeMap::new(),
            waiting: Vec::new(),
            works: Vec::new(),
            paid: BTreeMap::new(),
            proposals: IsrProposals::default(),
            streams: BTreeMap::new(),
            pool: CreditPool::new(env.options.credit as usize, BATCH_BYTES_MAX),
            next_stream: 1,
            next_heartbeat: 0,
            next_register: 0,
            next_assignment: 0,
            waits_for_deletion: BTreeSet::new(),
            reported,
            differing,
            has_failed: false,
        });
    }

    /// Time has passed.
    pub fn tick(&mut self, env: &mut Env<'_>) {
        let id = self.id;
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
                    directories: up.reported.clone(),
                    differing: up.differing.clone(),
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
                online_directories: up.has_failed.then(|| up.directories.ids()),
            };
            env.out.push(Out::Ask(ControllerRequest::Heartbeat(request), 0));
        }
        up.assign_homeless(id, epoch, env);
        for partition in std::mem::take(&mut up.waits_for_deletion) {
            up.reconcile(id, partition, env);
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
                if up.epoch.is_some() {
                    return;
                }
                for (place, known) in registered.directories.iter().enumerate() {
                    if env.dice % 40 == place as u64 {
                        env.out.push(Out::Mark("died before an epoch was recorded everywhere"));
                        return env.out.push(Out::Die);
                    }
                    let follows = known.unfenced_epoch.filter(|_| !known.is_old_copy);
                    if let Some(store) = self.stores.get_mut(&known.id) {
                        store.recorded = RecordedEpochs { last: Some(registered.epoch), follows };
                    }
                }
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
        let mut ids: Vec<TopicPartition> = up.directories.held().into_iter().map(|(_, id)| id).collect();
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
            StreamBody::Open(_) | StreamBody::Report(_) | StreamBody::Credit(_) | StreamBody::Repair(_) => {
                up.on_follower(from, &message, env)
            }
            StreamBody::Close if message.stamps.leader == self.id => up.on_follower(from, &message, env),
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

/// What recovery says of a directory, and of the replicas that the metadata has in it.
fn found(
    node: BrokerId,
    directory: DirectoryId,
    process: &Process,
    image: &MetadataImage,
) -> (Verdict, Vec<ReplicaReport>) {
    let verdict = match &process.journal_end {
        end if end.hurts_everyone() => Verdict::Lost,
        end if end.torn_tail.is_some() => Verdict::Cut,
        _ => Verdict::Proved,
    };
    let is_here = |id: TopicPartition| {
        let home = image.partition(id).and_then(|registration| registration.directory_of(node));
        home.is_none_or(|home| home == directory)
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
        directory: None,
        was_strict: Some(process.log(*id).is_strict()),
    };
    let reports = process.verdicts.iter().filter(|(id, _)| is_here(**id)).map(report);
    let is_cut = |id: TopicPartition| image.partition(id).is_some_and(|registration| registration.cut.contains(&node));
    let tells = |report: &ReplicaReport| {
        report.verdict != verdict || report.verdict == Verdict::Cut || is_cut(report.partition)
    };
    (verdict, reports.filter(tells).collect())
}

impl Up {
    /// Replicas whose directory is gone are to lie in another one, where the controller allows it.
    fn assign_homeless(&mut self, me: BrokerId, epoch: BrokerEpoch, env: &mut Env<'_>) {
        let is_homeless = |home: DirectoryId| !self.directories.is_open(home);
        let mut replicas = Vec::new();
        for (topic, index, registration) in self.image.partitions() {
            if registration.directory_of(me).is_some_and(is_homeless)
                && let Some(directory) = self.directories.ids().first()
            {
                replicas.push((TopicPartition { topic_id: topic.id, partition: index }, *directory));
            }
        }
        if !replicas.is_empty() && env.now >= self.next_assignment {
            self.next_assignment = env.now + 700_000;
            env.out.push(Out::Mark("replica given another directory"));
            let request = AssignReplicas { broker: me, broker_epoch: epoch, replicas };
            env.out.push(Out::Ask(ControllerRequest::AssignReplicas(request), 0));
        }
    }

    /// The next heartbeat does not wait.
    pub fn hurry(&mut self) {
        self.next_heartbeat = 0;
    }

    fn tick_partition(&mut self, me: BrokerId, epoch: BrokerEpoch, id: TopicPartition, env: &mut Env<'_>) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        let log = self.directories.log(id);
        match &mut part.role {
            Role::Leader(leader) => {
                match leader.wish(
                    id,
                    OwnLog { end: log.log_end(), log_start: log.durable_log_start(), is_whole: log.holes().is_empty() },
                    LAG_MAX,
                    env.moment,
                ) {
                    Wish::Nothing => {}
                    Wish::Isr(wish) => {
                        let grows = wish.isr.len() > leader.leadership().isr.len();
                        env.out.push(Out::Mark(if grows { "join proposed" } else { "leave proposed" }));
                        if wish.hand_over && !log.holes().is_empty() {
                            env.out.push(Out::Mark("damaged leader hands over"));
                        } else if wish.hand_over {
                            env.out.push(Out::Mark("gray leader hands over"));
                            let request = super::metadata_log::fence(me, epoch);
                            env.out.push(Out::Ask(ControllerRequest::Heartbeat(request), 0));
                        }
                        self.proposals.wish(wish);
                    }
                }
            }
            Role::Follower(follower) => {
                if let Some(open) = follower.open(StreamId(self.next_stream), log, false, env.moment) {
                    self.next_stream += 1;
                    if let StreamBody::Open(open) = &open.body {
                        self.paid.insert(id, i64::from(open.credit));
                    }
                    env.out.push(Out::Send(follower.following().leader, open.encode()));
                }
                let log = &mut self.directories.hosted(id).log;
                if !log.holes().is_empty() && follower.begin_repair(log, env.moment) {
                    env.out.push(Out::Mark("repair begun"));
                    say(follower, log, &mut self.paid, env);
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
}
