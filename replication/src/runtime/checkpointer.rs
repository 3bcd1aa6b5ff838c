//! Checkpoints: what frees the journal, and what a restart begins from.
//!
//! One round: note how far the journal has reported; ask every lane what changed; sync the segment files named; write
//! the checkpoint; only then free journal files and tell the lanes, who may now delete what it no longer names. A crash
//! between any two steps leaves the older checkpoint and the journal it needs.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::TopicPartition;
use stonelog_storage::checkpoint::{Checkpoint, ReplicaCheckpoint};
use stonelog_storage::journal::JournalPosition;
use stonelog_storage::segment::delete::{DeleteJob, DeleteLogJob};
use stonelog_storage::segment::sync::{SyncJob, sync_names};
use stonelog_storage::{Fault, LogGeneration};

use super::directory::Directory;
use super::lane::Lane;
use super::lanes::Lanes;
use super::node::Node;

/// Parts that a checkpoint's syncs are split into; fewer than there are writers, so that flushes go on meanwhile.
const SYNCS_AT_ONCE: usize = 3;
/// How long after a checkpoint that had no space the next one is tried.
const NO_SPACE_LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Keeps the directory's checkpoint. One per directory, on one lane.
pub struct Checkpointer {
    node: Arc<Node>,
    directory: Arc<Directory>,
    lanes: Lanes,
    /// Of the last checkpoint written or read; the next one's is one more.
    version: u64,
    /// How far the journal had reported when the last round began.
    reported: JournalPosition,
    /// What the last checkpoint said, replica by replica.
    replicas: BTreeMap<TopicPartition, ReplicaCheckpoint>,
    /// Files that no checkpoint names any more.
    deletes: Vec<DeleteJob>,
    /// Replicas that were dropped, whose files go after the next checkpoint that is written.
    dropped: Vec<TopicPartition>,
    /// A replica has come back whose files could not go yet: another round follows.
    is_awaited: bool,
}

/// What one lane contributes to a checkpoint.
#[derive(Default)]
struct Contribution {
    replicas: Vec<ReplicaCheckpoint>,
    syncs: Vec<SyncJob>,
    /// Dropped for good: the checkpoint that covers the drop must not name them.
    left: Vec<TopicPartition>,
    /// Those whose files may go after it.
    gone: Vec<TopicPartition>,
    /// Those whose lanes are told when it is written.
    planned: Vec<(TopicPartition, LogGeneration)>,
    /// Somebody waits for files that cannot go yet.
    is_awaited: bool,
}

impl Checkpointer {
    /// Begins after a recovery: every log is reported anew by its lane. `version` is that of the checkpoint recovery
    /// read, `dropped` are the replicas dropped since it.
    pub fn new(
        node: Arc<Node>,
        directory: Arc<Directory>,
        lanes: Lanes,
        version: u64,
        dropped: Vec<TopicPartition>,
    ) -> Checkpointer {
        let reported = JournalPosition::default();
        Checkpointer {
            node,
            directory,
            lanes,
            version,
            reported,
            replicas: BTreeMap::new(),
            deletes: Vec::new(),
            dropped,
            is_awaited: false,
        }
    }

    /// Writes a checkpoint some time after segments were written, for as long as the broker runs.
    pub async fn run(mut self) {
        loop {
            self.directory.flushed.notified().await;
            self.directory.wait_unless_room_is_wanted(self.node.settings.checkpoint_after).await;
            if self.directory.is_offline() {
                return;
            }
            if let Err(fault) = self.round().await {
                if fault.is_temporary() {
                    if fault.is_out_of_space() {
                        self.directory.space.on_allocation_failed(&fault);
                    }
                    tracing::warn!("no checkpoint for now, the journal holds on: {fault}");
                    // Nobody else asks again: a full journal has no flush to come.
                    tokio::time::sleep(NO_SPACE_LOOK_AGAIN).await;
                    self.directory.flushed.notify_one();
                    continue;
                }
                self.node.take_offline(&self.directory, &fault);
                return;
            }
            let is_more_durable = self.directory.journal.reported() > self.reported;
            if self.is_awaited || is_more_durable && self.directory.wants_room() {
                // The rest became durable meanwhile, and a full journal waits for it to be covered.
                self.directory.flushed.notify_one();
            }
        }
    }

    /// One checkpoint.
    pub async fn round(&mut self) -> Result<(), Fault> {
        let reported = self.directory.journal.reported();
        self.reported = reported;
        let place = self.directory.place;
        let mut all = Contribution::default();
        let asks: Vec<_> = (0..self.lanes.count())
            .map(|lane| self.lanes.call(lane, move |lane| std::future::ready(lane.contribute(place, reported))))
            .collect();
        for ask in asks {
            let one = ask.await;
            all.replicas.extend(one.replicas);
            all.syncs.extend(one.syncs);
            all.left.extend(one.left);
            all.gone.extend(one.gone);
            all.planned.extend(one.planned);
            all.is_awaited |= one.is_awaited;
        }
        self.is_awaited = all.is_awaited;
        all.gone.append(&mut self.dropped);
        for partition in &all.left {
            self.replicas.remove(partition);
        }
        // Until their files are gone: a round that fails leaves them to the next.
        self.dropped.clone_from(&all.gone);
        for replica in all.replicas {
            self.replicas.insert(replica.replica.partition, replica);
        }
        let checkpoint = Checkpoint {
            recovery_epoch: self.directory.recovery_epoch,
            covered_default: reported,
            replicas: self.replicas.values().cloned().collect(),
        };
        self.version += 1;
        self.sync(all.syncs).await?;
        self.write(checkpoint).await?;
        let planned: Arc<[_]> = all.planned.into();
        for lane in 0..self.lanes.count() {
            let planned = Arc::clone(&planned);
            let jobs = self.lanes.call(lane, move |lane| std::future::ready(lane.checkpointed(&planned))).await;
            self.deletes.extend(jobs);
        }
        self.delete(self.deletes.clone(), all.gone.clone()).await?;
        let deleted: Arc<[_]> = std::mem::take(&mut self.deletes).into();
        for lane in (0..self.lanes.count()).filter(|_| !deleted.is_empty()) {
            let deleted = Arc::clone(&deleted);
            self.lanes.call(lane, move |lane| async move { lane.deleted(&deleted) }).await;
        }
        self.dropped.clear();
        let gone: Arc<[_]> = all.gone.into();
        for lane in (0..self.lanes.count()).filter(|_| !gone.is_empty()) {
            let gone = Arc::clone(&gone);
            self.lanes.call(lane, move |lane| async move { lane.on_files_gone(place, &gone) }).await;
        }
        Ok(())
    }

    async fn write(&self, checkpoint: Checkpoint) -> Result<(), Fault> {
        let (directory, version) = (Arc::clone(&self.directory), self.version);
        let job = move || {
            let covered = checkpoint.replay_from();
            let under_way = &directory.space.under_way;
            under_way.during(|| checkpoint.write(&*directory.disk, &directory.path, version))?;
            under_way.during(|| directory.journal.maintenance().recycle(covered))?;
            Ok(())
        };
        self.on_writer(job).await
    }

    /// Syncs segment files, several at a time: the device takes independent flushes together. All that was begun has
    /// ended when this returns; after a failure the logs name everything to the next round again.
    async fn sync(&self, syncs: Vec<SyncJob>) -> Result<(), Fault> {
        if syncs.is_empty() {
            return Ok(());
        }
        let each = syncs.len().div_ceil(SYNCS_AT_ONCE);
        let running: Vec<_> = syncs
            .chunks(each)
            .map(|part| {
                let (directory, part) = (Arc::clone(&self.directory), part.to_vec());
                self.on_writer(move || {
                    // One after the other: together they may take long on a device that does not hang.
                    let under_way = &directory.space.under_way;
                    part.iter().try_for_each(|sync| under_way.during(|| sync.start(&directory.access)))?;
                    part.iter().try_for_each(|sync| under_way.during(|| sync.run(&directory.access)))
                })
            })
            .collect();
        let mut done = Ok(());
        for part in running {
            let part = part.await;
            done = done.and(part);
        }
        if done.is_ok() {
            let directory = Arc::clone(&self.directory);
            let job = move || directory.space.under_way.during(|| sync_names(&directory.access));
            done = self.on_writer(job).await;
        }
        done
    }

    /// Runs a job on the writers. When they have ended the broker is stopping, and what was to come after the job must
    /// not: it may not have run.
    fn on_writer<J>(&self, job: J) -> impl Future<Output = Result<(), Fault>> + use<J>
    where
        J: FnOnce() -> Result<(), Fault> + Send + 'static,
    {
        let run = self.directory.writers.run(job);
        async move {
            match run.await {
                Ok(done) => done,
                Err(_) => std::future::pending().await,
            }
        }
    }

    async fn delete(&self, deletes: Vec<DeleteJob>, gone: Vec<TopicPartition>) -> Result<(), Fault> {
        if deletes.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let directory = Arc::clone(&self.directory);
        let job = move || {
            let under_way = &directory.space.under_way;
            for delete in &deletes {
                under_way.during(|| delete.run(&directory.access))?;
            }
            for partition in gone {
                under_way.during(|| DeleteLogJob { partition }.run(&directory.access))?;
            }
            Ok(())
        };
        self.on_writer(job).await
    }
}

impl Lane {
    /// What changed here since the last checkpoint of a directory.
    fn contribute(self: Rc<Self>, place: usize, reported: JournalPosition) -> Contribution {
        // Whatever was reported lies in this lane's signal by now; the plan below depends on having heard it.
        self.hear_journal(place);
        let mut contribution = Contribution::default();
        for partition in self.partitions().iter().chain(&*self.dropped.borrow()) {
            if partition.directory().place != place {
                continue;
            }
            let log = &mut partition.replica_mut().log;
            if !partition.uncheckpointed.get() && !log.is_checkpoint_open() {
                log.on_passed_over(reported);
                continue;
            }
            if log.is_gone() {
                continue;
            }
            let Some((state, sync)) = log.plan_checkpoint(reported) else { continue };
            partition.uncheckpointed.set(state.covered.is_some() || log.has_uncovered());
            contribution.planned.push((partition.id(), log.key().generation));
            contribution.replicas.push(state);
            contribution.syncs.extend(sync);
        }
        self.dropped.borrow_mut().retain(|partition| {
            if partition.directory().place != place {
                return true;
            }
            let is_gone = partition.replica().log.is_gone();
            if is_gone {
                contribution.left.push(partition.id());
            }
            // A flush or a compaction on its way would meet a directory half removed.
            let is_busy = partition.flushing.get() || partition.compacting.borrow().is_some();
            let is_removable = is_gone && !is_busy;
            if is_removable {
                contribution.gone.push(partition.id());
            } else {
                contribution.is_awaited |= self.absent.borrow().contains(&partition.id());
            }
            !is_removable
        });
        contribution
    }

    /// The checkpoint is durable: what files may go now.
    fn checkpointed(self: Rc<Self>, planned: &[(TopicPartition, LogGeneration)]) -> Vec<DeleteJob> {
        let mut deletes = Vec::new();
        for (id, generation) in planned {
            let Some(partition) = self.partition(*id) else { continue };
            let log = &mut partition.replica_mut().log;
            log.on_checkpointed(*generation);
            deletes.extend(log.plan_deletes());
        }
        deletes
    }

    /// The files are gone: what waited for that may be flushed.
    fn deleted(self: Rc<Self>, deleted: &[DeleteJob]) {
        for job in deleted {
            if let Some(partition) = self.partition(job.partition) {
                partition.replica_mut().log.on_deleted(job);
            }
        }
    }
}
