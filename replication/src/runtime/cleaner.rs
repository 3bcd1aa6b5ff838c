//! The cleaner: compacts the dirtiest log of a directory, then the next, on a thread of its own.
//!
//! One per directory. Its task asks every lane which of its logs is dirtiest, runs the compaction's steps on the
//! directory's cleaner thread, and gives each segment that was written anew to the log's lane; the checkpointer swaps it
//! for what it replaces. The thread runs at the lowest priority and within a [`budget`]. Damage in one log stops that
//! log's compaction until the next start; a failing disk takes the directory offline, as everywhere.
//! Source: `org.apache.kafka.storage.internals.log.{LogCleaner, LogCleanerManager}`.

mod budget;
mod postponed;
mod settings;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::{Offset, TopicPartition};
use stonelog_storage::compaction::{
    CompactJob, CompactionLimits, Mapped, Replacement, Rewriting, Step, SweepJob, Totals,
};
use stonelog_storage::segment::delete::DeleteJob;
use stonelog_storage::{Fault, ReplicaKey};

use super::directory::Directory;
use super::lane::Lane;
use super::lanes::Lanes;
use super::node::Node;
use super::partition::Partition;
use super::priority;
use super::space::Room;
use crate::progress::Role;
pub use budget::Stop;
use budget::{Budget, room};
use postponed::Postponed;
use settings::CleanerSettings;

/// How long the cleaner waits after it found no space.
const NO_SPACE_LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Compacts the logs of one directory for as long as the broker runs and the directory works.
pub struct Cleaner {
    node: Arc<Node>,
    directory: Arc<Directory>,
    lanes: Lanes,
    /// Logs that had no room to be written anew: others may be smaller.
    without_room: Postponed,
}

/// How a compaction ended that met no fault.
#[derive(Clone, Copy, Debug)]
struct Cleaned {
    clean_end: Option<Offset>,
    totals: Totals,
    /// What it would have needed to go on.
    lacks_room: Option<u64>,
}

impl Cleaner {
    /// A cleaner that has not begun.
    pub fn new(node: Arc<Node>, directory: Arc<Directory>, lanes: Lanes) -> Cleaner {
        Cleaner { node, directory, lanes, without_room: Postponed::default() }
    }

    /// Compacts what is due, then rests.
    pub async fn run(mut self) {
        loop {
            let settings = self.settings().await;
            if self.directory.is_offline() {
                return;
            }
            // What it writes comes on top of what it replaces: not while space is short.
            let may_write = settings.is_enabled && self.directory.space.room() == Room::Ample;
            let dirtiest = if may_write { self.dirtiest().await } else { None };
            let rest = match dirtiest {
                Some(id) => self.clean(id, &settings).await,
                None => Some(settings.backoff),
            };
            match rest {
                Some(rest) => tokio::time::sleep(rest).await,
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// As they are now: most of them may change while brokers run.
    async fn settings(&self) -> CleanerSettings {
        let broker = self.lanes.call(0, |lane| std::future::ready(lane.broker_settings())).await;
        CleanerSettings::effective(&broker)
    }

    async fn dirtiest(&mut self) -> Option<TopicPartition> {
        let place = self.directory.place;
        let except = self.without_room.at(self.node.clock.mono(), room(&self.directory));
        let mut dirtiest: Option<(f64, TopicPartition)> = None;
        for lane in 0..self.lanes.count() {
            let except = Arc::clone(&except);
            let found = self.lanes.call(lane, move |lane| std::future::ready(lane.dirtiest_log(place, &except))).await;
            dirtiest = match (dirtiest, found) {
                (Some(known), Some(found)) if found.0 > known.0 => Some(found),
                (known, found) => known.or(found),
            };
        }
        dirtiest.map(|(_, id)| id)
    }

    /// Compacts one log; how long to rest afterwards.
    async fn clean(&mut self, id: TopicPartition, settings: &CleanerSettings) -> Option<Duration> {
        let Some(hash_seeds) = random_seeds() else { return Some(settings.backoff) };
        let limits = CompactionLimits {
            map_bytes_max: settings.map_bytes / self.node.directories.len().max(1) as u64,
            map_load_factor: settings.map_load_factor,
            hash_seeds,
        };
        let owner = self.lanes.owner(id);
        if let Err(fault) = self.sweep(owner, id).await {
            if fault.is_temporary() {
                return Some(NO_SPACE_LOOK_AGAIN);
            }
            self.node.take_offline(&self.directory, &fault);
            return None;
        }
        let planned = self.lanes.call(owner, move |lane| std::future::ready(lane.begin_compaction(id, limits))).await;
        let (job, stop) = planned?;
        let replica = job.replica;
        let rate = settings.bytes_per_second / self.node.directories.len().max(1) as f64;
        let budget = Budget::new(Arc::clone(&self.directory), stop, self.node.clock, rate);
        let ended = self.compact(owner, job, budget).await;
        let clean_end = ended.as_ref().ok().and_then(|cleaned| cleaned.clean_end);
        let failed = matches!(ended, Err(Fault::Damage { .. } | Fault::Foreign { .. }));
        let end = move |lane: Rc<Lane>| {
            lane.end_compaction(replica, clean_end, failed);
            std::future::ready(())
        };
        self.lanes.call(owner, end).await;
        self.directory.flushed.notify_one();
        match ended {
            Ok(Cleaned { clean_end: Some(clean_end), totals, .. }) => {
                tracing::debug!(partition = %id, clean_end = clean_end.0, ?totals, "compacted");
                None
            }
            Ok(Cleaned { lacks_room: Some(bytes), .. }) => {
                tracing::warn!(
                    partition = %id,
                    "is not compacted for now: {bytes} bytes beside it would leave less free than stonelog.free.bytes.min"
                );
                self.without_room.postpone(id, bytes, self.node.clock.mono());
                // It was read whole for nothing: others that are as large would be too, one after the other.
                Some(settings.backoff)
            }
            // Told to stop, or the log has changed: whatever else is due comes first.
            Ok(Cleaned { clean_end: None, .. }) => Some(settings.backoff),
            Err(fault) if failed => {
                tracing::error!(partition = %id, "is not compacted any more until the next start: {fault}");
                None
            }
            Err(fault) if fault.is_temporary() => {
                tracing::warn!(partition = %id, "cannot be compacted now, the log stays as it is: {fault}");
                Some(NO_SPACE_LOOK_AGAIN)
            }
            Err(fault) => {
                self.node.take_offline(&self.directory, &fault);
                None
            }
        }
    }

    /// Once a start, before a log's first compaction: what a crash left of earlier ones goes.
    async fn sweep(&self, owner: usize, id: TopicPartition) -> Result<(), Fault> {
        let planned = self.lanes.call(owner, move |lane| std::future::ready(lane.begin_sweep(id))).await;
        let Some(job) = planned else { return Ok(()) };
        let access = Arc::clone(&self.directory.access);
        let done = self.on_cleaner(move || job.run(&access).map(drop)).await;
        let is_done = done.is_ok();
        self.lanes.call(owner, move |lane| async move { lane.end_sweep(id, is_done) }).await;
        done
    }

    async fn compact(&self, owner: usize, job: CompactJob, mut budget: Budget) -> Result<Cleaned, Fault> {
        let access = Arc::clone(&self.directory.access);
        let first = move || {
            priority::lower_current_thread();
            (job.map_keys(&access, &mut budget), budget)
        };
        let (mapped, mut budget) = self.on_cleaner(first).await;
        let mut rewriting: Box<Rewriting> = match mapped? {
            Mapped::Ready(rewriting) => rewriting,
            Mapped::Stopped => return Ok(Cleaned { clean_end: None, totals: Totals::default(), lacks_room: None }),
        };
        loop {
            let access = Arc::clone(&self.directory.access);
            let next = move || {
                let mut budget = budget;
                let step = rewriting.step(&access, &mut budget);
                (step, rewriting, budget)
            };
            let (step, back, paced) = self.on_cleaner(next).await;
            (rewriting, budget) = (back, paced);
            let totals = rewriting.totals();
            match step? {
                Step::Replace(done) => {
                    if !self.replace(owner, done).await? {
                        return Ok(Cleaned { clean_end: None, totals, lacks_room: None });
                    }
                }
                Step::Done(clean_end) => return Ok(Cleaned { clean_end: Some(clean_end), totals, lacks_room: None }),
                Step::Stopped => return Ok(Cleaned { clean_end: None, totals, lacks_room: None }),
                Step::NoRoom(bytes) => return Ok(Cleaned { clean_end: None, totals, lacks_room: Some(bytes) }),
            }
        }
    }

    /// Gives the log its new segment; whether it took it.
    async fn replace(&self, owner: usize, done: Replacement) -> Result<bool, Fault> {
        let unwanted = DeleteJob { partition: done.replica.partition, segments: vec![done.segment.name()] };
        let taken = self.lanes.call(owner, move |lane| std::future::ready(lane.take_compacted(&done))).await;
        if taken {
            self.directory.flushed.notify_one();
        } else {
            let access = Arc::clone(&self.directory.access);
            self.on_cleaner(move || unwanted.run(&access)).await?;
        }
        Ok(taken)
    }

    /// Runs a job on the cleaner's thread. When it has ended the broker is stopping, and nothing may follow.
    async fn on_cleaner<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        match self.directory.cleaner.run(job).await {
            Ok(done) => done,
            Err(_) => std::future::pending().await,
        }
    }
}

/// Hash seeds that no client can know; `None` when the system gives no random bytes, which it said at the start.
fn random_seeds() -> Option<[u64; 2]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    let both = u128::from_ne_bytes(bytes);
    Some([both as u64, (both >> 64) as u64])
}

impl Lane {
    /// The log of a directory with the greatest dirty share of those that are due, and that share.
    fn dirtiest_log(self: Rc<Self>, place: usize, except: &[TopicPartition]) -> Option<(f64, TopicPartition)> {
        let now = self.node().clock.wall();
        let mut dirtiest: Option<(f64, TopicPartition)> = None;
        for partition in self.partitions().iter().filter(|partition| partition.directory().place == place) {
            let progress = partition.progress();
            if matches!(progress.role, Role::Offline | Role::Removed) || except.contains(&partition.id()) {
                continue;
            }
            let Some(dirt) = partition.replica().log.compaction_due(now, progress.last_stable_offset) else { continue };
            if dirtiest.is_none_or(|(ratio, _)| dirt.ratio() > ratio) {
                dirtiest = Some((dirt.ratio(), partition.id()));
            }
        }
        dirtiest
    }

    fn begin_sweep(self: Rc<Self>, id: TopicPartition) -> Option<SweepJob> {
        let partition = self.partition(id)?;
        let last_stable = partition.progress().last_stable_offset;
        partition.replica_mut().log.plan_sweep(self.node().clock.wall(), last_stable)
    }

    fn end_sweep(self: Rc<Self>, id: TopicPartition, is_done: bool) {
        if let Some(partition) = self.partition(id) {
            partition.replica_mut().log.on_swept(is_done);
        }
    }

    fn begin_compaction(self: Rc<Self>, id: TopicPartition, limits: CompactionLimits) -> Option<(CompactJob, Stop)> {
        let partition = self.partition(id)?;
        let last_stable = partition.progress().last_stable_offset;
        let job = partition.replica_mut().log.plan_compaction(self.node().clock.wall(), last_stable, limits)?;
        let stop = Stop::default();
        *partition.compacting.borrow_mut() = Some(stop.clone());
        Some((job, stop))
    }

    fn take_compacted(self: Rc<Self>, done: &Replacement) -> bool {
        let Some(partition) = self.partition(done.replica.partition) else { return false };
        let taken = partition.replica_mut().log.on_compacted(done);
        partition.uncheckpointed.set(true);
        taken
    }

    fn end_compaction(self: Rc<Self>, replica: ReplicaKey, clean_end: Option<Offset>, failed: bool) {
        let is_it = |partition: &&Rc<Partition>| partition.id() == replica.partition;
        let (present, dropped) = (self.partition(replica.partition), self.dropped.borrow());
        let Some(partition) = present.as_ref().or_else(|| dropped.iter().find(is_it)) else { return };
        *partition.compacting.borrow_mut() = None;
        partition.replica_mut().log.on_compaction_ended(replica, clean_end, failed);
        partition.uncheckpointed.set(true);
    }
}
