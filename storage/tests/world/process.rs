//! One process that uses a log directory: what lanes, journal threads and checkpointer do, cut into steps that a caller
//! begins in any order, all in one thread.
//!
//! It mirrors the carriers in the replication crate (`runtime/{lane,journal,upkeep,checkpointer}.rs`) step by step:
//! what happens there on several threads happens here at moments that a seed chooses.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use stonelog_protocol::{Offset, TopicPartition};
use stonelog_storage::checkpoint::{Checkpoint, ReplicaCheckpoint};
use stonelog_storage::disk::SimDisk;
use stonelog_storage::job::FileAccess;
use stonelog_storage::journal::{
    JournalEntry, JournalFlusher, JournalMaintenance, JournalOptions, JournalPosition, JournalWriter, RecoveryEnd,
};
use stonelog_storage::log::{CommitSpan, FIRST_TICKET, Log, LogConfig, Read};
use stonelog_storage::recovery::{RecoveryOptions, Verdict, recover_log_dir};
use stonelog_storage::segment::delete::{DeleteJob, DeleteLogJob};
use stonelog_storage::segment::flush::{FlushDone, FlushJob};
use stonelog_storage::segment::read::ReadDone;
use stonelog_storage::segment::rebuild::{RebuildJob, Rebuilt};
use stonelog_storage::segment::sync::{SyncJob, sync_names};
use stonelog_storage::{Fault, LogGeneration, ReplicaKey};

use super::coverage::Coverage;
use super::{NOW, ROOT};

/// How many lanes share the logs.
pub const LANES_COUNT: usize = 2;

/// A job between two steps.
#[derive(Default)]
pub enum Slot<Job, Done> {
    /// Nothing under way.
    #[default]
    Idle,
    /// Planned, not begun.
    Planned(Job),
    /// Done, and its log has not heard of it.
    Done(Done),
}

/// One log on its lane.
pub struct Hosted {
    pub log: Log,
    pub flush: Slot<FlushJob, FlushDone>,
    pub rebuild: Slot<RebuildJob, Rebuilt>,
    pub uncheckpointed: bool,
}

impl Hosted {
    fn new(log: Log) -> Hosted {
        Hosted { log, flush: Slot::Idle, rebuild: Slot::Idle, uncheckpointed: true }
    }
}

#[derive(Default)]
struct Lane {
    logs: BTreeMap<TopicPartition, Hosted>,
    /// Dropped, and still in a checkpoint.
    dropped: Vec<Hosted>,
    /// What the journal has left for it.
    signal: VecDeque<Event>,
    next_ticket: u64,
    /// Ticket and replica of what is not durable.
    in_flight: VecDeque<(u64, ReplicaKey)>,
    in_flight_written: usize,
}

enum Event {
    Written { last_ticket: u64, span: CommitSpan },
    Durable { last_ticket: u64 },
}

struct Queued {
    lane: usize,
    ticket: u64,
    entry: JournalEntry,
}

struct Commit {
    sequence: u64,
    end: JournalPosition,
    span: CommitSpan,
    tickets: Vec<(usize, u64)>,
}

/// A checkpoint under way, step by step.
#[derive(Default)]
enum Round {
    #[default]
    None,
    Asking(usize, Box<Contribution>),
    Syncing(Box<Contribution>, usize),
    Writing(Box<Contribution>),
    Recycling(Box<Contribution>, JournalPosition),
    Telling(usize, Box<Contribution>, Vec<DeleteJob>),
    Deleting(Vec<DeleteJob>, Vec<TopicPartition>),
}

#[derive(Default)]
struct Contribution {
    reported: JournalPosition,
    replicas: Vec<ReplicaCheckpoint>,
    syncs: Vec<SyncJob>,
    left: Vec<TopicPartition>,
    gone: Vec<TopicPartition>,
    planned: Vec<(TopicPartition, LogGeneration)>,
}

/// See the module's comment.
pub struct Process {
    pub access: Arc<FileAccess>,
    pub config: LogConfig,
    pub recovery_epoch: u32,
    pub journal_end: RecoveryEnd,
    pub verdicts: BTreeMap<TopicPartition, Verdict>,
    disk: Arc<SimDisk>,
    lanes: Vec<Lane>,
    queue: VecDeque<Queued>,
    writer: JournalWriter,
    flusher: JournalFlusher,
    maintenance: JournalMaintenance,
    /// Written, and the lanes have not heard of it.
    untold: Option<Commit>,
    /// Written and told, not durable.
    commits: VecDeque<Commit>,
    reported: JournalPosition,
    version: u64,
    replicas: BTreeMap<TopicPartition, ReplicaCheckpoint>,
    dropped: Vec<TopicPartition>,
    round: Round,
}

impl Process {
    /// Starts on whatever the disk holds.
    pub fn start(
        disk: &SimDisk,
        journal: JournalOptions,
        config: &LogConfig,
        survived: bool,
    ) -> Result<Process, Fault> {
        let options = RecoveryOptions {
            journal_name: "journal",
            journal,
            config: config.clone(),
            relaxed_survived: survived,
            open_files_count: 3,
            index_bytes_max: 4096,
            progress: Default::default(),
        };
        let shared: Arc<dyn stonelog_storage::disk::Disk> = Arc::new(disk.clone());
        let found = recover_log_dir(&shared, Path::new(ROOT), &options, NOW)?;
        let mut lanes: Vec<Lane> =
            (0..LANES_COUNT).map(|_| Lane { next_ticket: FIRST_TICKET + 1, ..Lane::default() }).collect();
        let mut verdicts = BTreeMap::new();
        for recovered in found.logs {
            let id = recovered.log.key().partition;
            verdicts.insert(id, recovered.verdict);
            lanes[lane_of(id)].logs.insert(id, Hosted::new(recovered.log));
        }
        let mut dropped = found.dropped;
        dropped.sort();
        Ok(Process {
            access: found.access,
            config: config.clone(),
            recovery_epoch: found.recovery_epoch,
            journal_end: found.journal_end,
            verdicts,
            disk: Arc::new(disk.clone()),
            lanes,
            queue: VecDeque::new(),
            reported: found.flusher.durable().position,
            writer: found.writer,
            flusher: found.flusher,
            maintenance: found.maintenance,
            untold: None,
            commits: VecDeque::new(),
            version: found.checkpoint_version,
            replicas: BTreeMap::new(),
            dropped,
            round: Round::None,
        })
    }

    pub fn ids(&self) -> Vec<TopicPartition> {
        let mut ids: Vec<_> = self.lanes.iter().flat_map(|lane| lane.logs.keys().copied()).collect();
        ids.sort();
        ids
    }

    /// Whether it has such a log.
    pub fn holds(&self, id: TopicPartition) -> bool {
        self.lanes[lane_of(id)].logs.contains_key(&id)
    }

    /// Whether files of a dropped log of that name may still be there, or be deleted: a new one has to wait.
    pub fn is_vanishing(&self, id: TopicPartition) -> bool {
        let lane = &self.lanes[lane_of(id)];
        let going: &[TopicPartition] = match &self.round {
            Round::None => &[],
            Round::Asking(_, all) | Round::Syncing(all, _) | Round::Writing(all) => &all.gone,
            Round::Recycling(all, _) | Round::Telling(_, all, _) => &all.gone,
            Round::Deleting(_, gone) => gone,
        };
        let is_dropped = lane.dropped.iter().any(|hosted| hosted.log.key().partition == id);
        is_dropped || self.dropped.contains(&id) || going.contains(&id)
    }

    pub fn hosted(&mut self, id: TopicPartition) -> &mut Hosted {
        self.lanes[lane_of(id)].logs.get_mut(&id).expect("a log of this process")
    }

    pub fn log(&self, id: TopicPartition) -> &Log {
        &self.lanes[lane_of(id)].logs[&id].log
    }

    /// The ticket of the next entry of a log's lane.
    pub fn ticket(&self, id: TopicPartition) -> u64 {
        self.lanes[lane_of(id)].next_ticket
    }

    /// Makes a log; its creation is to be queued.
    pub fn create(&mut self, id: TopicPartition, config: LogConfig, strict: bool, start: i64) {
        let generation = LogGeneration { recovery_epoch: self.recovery_epoch, counter: 0 };
        let key = ReplicaKey { partition: id, generation };
        let (log, entry) = Log::create(key, config, strict, Offset(start), self.ticket(id));
        self.lanes[lane_of(id)].logs.insert(id, Hosted::new(log));
        self.enqueue(entry);
    }

    /// Queues an entry that carries its lane's next ticket.
    pub fn enqueue(&mut self, entry: JournalEntry) {
        let id = entry.replica.partition;
        let at = lane_of(id);
        let lane = &mut self.lanes[at];
        let ticket = lane.next_ticket;
        lane.next_ticket += 1;
        lane.in_flight.push_back((ticket, entry.replica));
        if let Some(hosted) = lane.logs.get_mut(&id) {
            hosted.uncheckpointed = true;
        }
        self.queue.push_back(Queued { lane: at, ticket, entry });
    }

    /// The log's drop; its lane keeps it until a checkpoint is without it.
    pub fn drop_log(&mut self, id: TopicPartition) {
        let ticket = self.ticket(id);
        let entry = self.hosted(id).log.drop_log(ticket);
        self.enqueue(entry);
        let lane = &mut self.lanes[lane_of(id)];
        let hosted = lane.logs.remove(&id).expect("just dropped");
        lane.dropped.push(hosted);
    }

    pub fn queued_count(&self) -> usize {
        self.queue.len()
    }

    /// Whether the journal's writer has something that the lanes have not heard of.
    pub fn has_untold(&self) -> bool {
        self.untold.is_some()
    }

    /// Writes so many queued entries. Out of space leaves them queued.
    pub fn write(&mut self, count: usize) -> Result<usize, Fault> {
        assert!(self.untold.is_none(), "the writer tells of one write before the next");
        let entries: Vec<JournalEntry> = self.queue.iter().take(count).map(|queued| queued.entry.clone()).collect();
        let receipt = self.writer.write(&entries)?;
        let mut tickets: Vec<(usize, u64)> = Vec::new();
        for queued in self.queue.drain(..entries.len()) {
            match tickets.iter_mut().find(|(lane, _)| *lane == queued.lane) {
                Some((_, ticket)) => *ticket = queued.ticket,
                None => tickets.push((queued.lane, queued.ticket)),
            }
        }
        let span = CommitSpan { start: receipt.start, end: receipt.end };
        self.untold = Some(Commit { sequence: receipt.sequence, end: receipt.end, span, tickets });
        Ok(entries.len())
    }

    /// The commit without entries that follows when nothing else does; whether one was wanted.
    pub fn write_empty(&mut self) -> Result<bool, Fault> {
        if self.untold.is_some() || !self.queue.is_empty() || !self.writer.empty_commit_wanted() {
            return Ok(false);
        }
        let told = self.writer.write_empty_commit()?;
        let span = CommitSpan { start: told.start, end: told.end };
        self.untold = Some(Commit { sequence: told.sequence, end: told.end, span, tickets: Vec::new() });
        Ok(true)
    }

    /// The lanes are told of the last write.
    pub fn tell(&mut self) -> bool {
        let Some(commit) = self.untold.take() else { return false };
        for (lane, last_ticket) in &commit.tickets {
            self.lanes[*lane].signal.push_back(Event::Written { last_ticket: *last_ticket, span: commit.span });
        }
        self.commits.push_back(commit);
        true
    }

    /// One fdatasync of the journal, and the events it allows.
    pub fn sync(&mut self) -> Result<(), Fault> {
        let durable = self.flusher.sync()?;
        let mut newest = [None; LANES_COUNT];
        let mut reported = None;
        while let Some(commit) = self.commits.pop_front_if(|commit| commit.sequence <= durable.sequence) {
            for (lane, ticket) in commit.tickets {
                newest[lane] = Some(ticket);
            }
            reported = Some(commit.end);
        }
        for (lane, ticket) in newest.into_iter().enumerate() {
            if let Some(last_ticket) = ticket {
                self.lanes[lane].signal.push_back(Event::Durable { last_ticket });
            }
        }
        if let Some(end) = reported {
            self.reported = end;
        }
        Ok(())
    }

    /// A lane hears everything that the journal has left for it.
    pub fn hear(&mut self, lane: usize) -> usize {
        let lane = &mut self.lanes[lane];
        let heard = lane.signal.len();
        while let Some(event) = lane.signal.pop_front() {
            match event {
                Event::Written { last_ticket, span } => {
                    while let Some((ticket, replica)) = lane.in_flight.get(lane.in_flight_written).copied()
                        && ticket <= last_ticket
                    {
                        lane.in_flight_written += 1;
                        if let Some(log) = log_of(&mut lane.logs, &mut lane.dropped, replica) {
                            log.on_written(replica.generation, ticket, span);
                        }
                    }
                }
                Event::Durable { last_ticket } => {
                    while let Some((ticket, replica)) =
                        lane.in_flight.pop_front_if(|(ticket, _)| *ticket <= last_ticket)
                    {
                        lane.in_flight_written -= 1;
                        if let Some(log) = log_of(&mut lane.logs, &mut lane.dropped, replica) {
                            log.on_durable(replica.generation, ticket);
                        }
                    }
                }
            }
        }
        heard
    }

    /// Moves a log's flush on by one step: plans, runs, or tells the log.
    pub fn step_flush(&mut self, id: TopicPartition, coverage: &mut Coverage) -> Result<(), Fault> {
        let access = Arc::clone(&self.access);
        let lane = &mut self.lanes[lane_of(id)];
        let dropped = lane.dropped.iter_mut().find(|hosted| hosted.log.key().partition == id);
        let Some(hosted) = lane.logs.get_mut(&id).or(dropped) else { return Ok(()) };
        step_flush(hosted, &access, coverage)
    }

    /// Dropped logs whose flush is still under way.
    pub fn flushing_dropped(&self) -> Option<TopicPartition> {
        let is_flushing = |hosted: &&Hosted| !matches!(hosted.flush, Slot::Idle);
        let mut dropped = self.lanes.iter().flat_map(|lane| lane.dropped.iter());
        dropped.find(is_flushing).map(|hosted| hosted.log.key().partition)
    }

    /// Whether a checkpoint is under way.
    pub fn is_checkpointing(&self) -> bool {
        !matches!(self.round, Round::None)
    }

    /// Moves the checkpoint on by one step, or begins one. After out of space the round is over.
    pub fn step_checkpoint(&mut self, coverage: &mut Coverage) -> Result<(), Fault> {
        self.round = match std::mem::take(&mut self.round) {
            Round::None => {
                Round::Asking(0, Box::new(Contribution { reported: self.reported, ..Contribution::default() }))
            }
            Round::Asking(lane, mut all) => {
                self.hear(lane);
                self.contribute(lane, &mut all);
                if lane + 1 < LANES_COUNT {
                    Round::Asking(lane + 1, all)
                } else {
                    all.gone.append(&mut self.dropped);
                    for id in &all.left {
                        self.replicas.remove(id);
                    }
                    self.dropped.clone_from(&all.gone);
                    for replica in std::mem::take(&mut all.replicas) {
                        self.replicas.insert(replica.replica.partition, replica);
                    }
                    Round::Syncing(all, 0)
                }
            }
            Round::Syncing(all, at) => match all.syncs.get(at) {
                Some(job) => {
                    job.start(&self.access)?;
                    job.run(&self.access)?;
                    Round::Syncing(all, at + 1)
                }
                None => {
                    if !all.syncs.is_empty() {
                        sync_names(&self.access)?;
                    }
                    Round::Writing(all)
                }
            },
            Round::Writing(all) => {
                let checkpoint = Checkpoint {
                    recovery_epoch: self.recovery_epoch,
                    covered_default: all.reported,
                    replicas: self.replicas.values().cloned().collect(),
                };
                self.version += 1;
                checkpoint.write(&*self.disk, Path::new(ROOT), self.version)?;
                coverage.hit("checkpoint written");
                Round::Recycling(all, checkpoint.replay_from())
            }
            Round::Recycling(all, covered) => {
                if self.maintenance.recycle(covered)? > 0 {
                    coverage.hit("journal file recycled");
                }
                Round::Telling(0, all, Vec::new())
            }
            Round::Telling(lane, all, mut deletes) => {
                for (id, generation) in &all.planned {
                    if let Some(hosted) = self.lanes[lane].logs.get_mut(id) {
                        hosted.log.on_checkpointed(*generation);
                        deletes.extend(hosted.log.plan_deletes());
                    }
                }
                if lane + 1 < LANES_COUNT {
                    Round::Telling(lane + 1, all, deletes)
                } else {
                    Round::Deleting(deletes, all.gone)
                }
            }
            Round::Deleting(mut deletes, mut gone) => {
                if let Some(job) = deletes.pop() {
                    job.run(&self.access)?;
                    if let Some(hosted) = self.lanes[lane_of(job.partition)].logs.get_mut(&job.partition) {
                        hosted.log.on_deleted(&job);
                    }
                    coverage.hit("segment files deleted");
                    Round::Deleting(deletes, gone)
                } else if let Some(partition) = gone.pop() {
                    DeleteLogJob { partition }.run(&self.access)?;
                    coverage.hit("dropped log's directory deleted");
                    Round::Deleting(deletes, gone)
                } else {
                    self.dropped.clear();
                    Round::None
                }
            }
        };
        Ok(())
    }

    fn contribute(&mut self, lane: usize, all: &mut Contribution) {
        let lane = &mut self.lanes[lane];
        for hosted in lane.logs.values_mut().chain(&mut lane.dropped) {
            if !hosted.uncheckpointed && !hosted.log.is_checkpoint_open() {
                hosted.log.on_passed_over(all.reported);
                continue;
            }
            if hosted.log.is_gone() {
                continue;
            }
            let Some((state, sync)) = hosted.log.plan_checkpoint(all.reported) else { continue };
            hosted.uncheckpointed = state.covered.is_some() || hosted.log.has_uncovered();
            all.planned.push((hosted.log.key().partition, hosted.log.key().generation));
            all.replicas.push(state);
            all.syncs.extend(sync);
        }
        lane.dropped.retain(|hosted| {
            let is_gone = hosted.log.is_gone();
            if is_gone {
                all.left.push(hosted.log.key().partition);
            }
            let is_removable = is_gone && matches!(hosted.flush, Slot::Idle);
            if is_removable {
                all.gone.push(hosted.log.key().partition);
            }
            !is_removable
        });
    }

    /// Makes a spare journal file if one is wanted.
    pub fn prepare_spare(&mut self) -> Result<bool, Fault> {
        self.maintenance.prepare_spare()
    }

    /// How much of the journal's room is used, in percent.
    pub fn journal_percent(&self) -> u64 {
        let usage = self.maintenance.usage();
        usage.bytes_live * 100 / usage.bytes_max
    }

    /// What holds the journal, for a failure's message.
    pub fn describe(&self) -> String {
        let each = |hosted: &Hosted| {
            let log = &hosted.log;
            let slot = match hosted.flush {
                Slot::Idle => "idle",
                Slot::Planned(_) => "planned",
                Slot::Done(_) => "done",
            };
            let id = log.key().partition;
            let flags = (log.is_changing(), log.has_uncovered(), hosted.uncheckpointed, log.flushable_bytes());
            format!("{id}: flush {slot}, changing, uncovered, uncheckpointed, flushable {flags:?}")
        };
        let lanes = self.lanes.iter().flat_map(|lane| lane.logs.values().chain(&lane.dropped)).map(each);
        let logs: Vec<String> = lanes.collect();
        let lines: Vec<_> = self.replicas.values().map(|r| (r.replica.partition, r.covered)).collect();
        format!("journal {}%, reported {:?}, {logs:#?}, {lines:?}", self.journal_percent(), self.reported)
    }

    /// Runs a read that was planned: runs of batches, or `None` when they have moved.
    pub fn run_read(&self, read: Read) -> Result<Option<Vec<bytes::Bytes>>, Fault> {
        match read {
            Read::Ready(batches, _) => Ok(Some(batches)),
            Read::Job(job) => match job.run(&self.access)? {
                ReadDone::Batches { batches, .. } => Ok(Some(batches)),
                ReadDone::Moved => Ok(None),
                ReadDone::Damaged(hole) => Err(refused(&hole)),
            },
            Read::Damaged(hole) => Err(refused(&hole)),
            Read::Empty | Read::OutOfRange => Ok(Some(Vec::new())),
        }
    }
}

fn step_flush(hosted: &mut Hosted, access: &FileAccess, coverage: &mut Coverage) -> Result<(), Fault> {
    hosted.flush = match std::mem::take(&mut hosted.flush) {
        Slot::Idle => match hosted.log.plan_flush(NOW, true, 0) {
            Some(job) => Slot::Planned(job),
            None => Slot::Idle,
        },
        Slot::Planned(job) => match job.run(access) {
            Ok(done) => Slot::Done(done),
            Err(fault) if fault.is_out_of_space() => {
                coverage.hit("no space for segments");
                let generation = hosted.log.key().generation;
                hosted.log.on_flush_deferred(generation);
                Slot::Idle
            }
            Err(fault) => return Err(fault),
        },
        Slot::Done(done) => {
            let before = hosted.log.segments().len();
            let counted = hosted.log.on_flushed(done);
            coverage.hit(if counted { "flush" } else { "flush that came too late" });
            if hosted.log.segments().len() > before.max(1) {
                coverage.hit("segment rolled");
            }
            if hosted.log.segments().iter().any(|segment| segment.bytes > 2 * (64 << 10)) {
                coverage.hit("segment of several blocks");
            }
            hosted.uncheckpointed = true;
            Slot::Idle
        }
    };
    Ok(())
}

fn log_of<'a>(
    logs: &'a mut BTreeMap<TopicPartition, Hosted>,
    dropped: &'a mut [Hosted],
    replica: ReplicaKey,
) -> Option<&'a mut Log> {
    let dropped = dropped.iter_mut().find(|hosted| hosted.log.key().partition == replica.partition);
    logs.get_mut(&replica.partition).or(dropped).map(|hosted| &mut hosted.log)
}

/// A read that a known hole answers.
fn refused(hole: &stonelog_storage::holes::Hole) -> Fault {
    Fault::Damage { what: "range", path: ROOT.into(), position: 0, detail: format!("{hole:?}") }
}

/// Which lane owns a log.
pub fn lane_of(id: TopicPartition) -> usize {
    id.partition.0 as usize % LANES_COUNT
}
