//! One log directory in use by one thread: what a lane, the journal's threads and the checkpointer do, in a row.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicPartition, Uuid};
use stonelog_storage::checkpoint::Checkpoint;
use stonelog_storage::disk::{DirLock, Disk, RealDisk};
use stonelog_storage::job::FileAccess;
use stonelog_storage::journal::{
    JournalEntry, JournalFlusher, JournalMaintenance, JournalOptions, JournalPosition, JournalWriter,
};
use stonelog_storage::log::{CommitSpan, FIRST_TICKET, Log, LogConfig, Truncation};
use stonelog_storage::recovery::{RecoveryOptions, Verdict, recover_log_dir};
use stonelog_storage::segment::sync::sync_names;
use stonelog_storage::{Fault, LogGeneration, ReplicaKey};

use super::batch::Origin;

/// Small, so that files roll, fill and are recycled many times between two cuts.
const JOURNAL: JournalOptions = JournalOptions {
    file_bytes: 512 << 10,
    first_file_bytes: 64 << 10,
    commit_bytes_max: 96 << 10,
    bytes_max: 4 << 20,
};

const TOPIC: Uuid = Uuid([7; 16]);

/// The directory, its logs, and what waits for the journal.
pub(super) struct Directory {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    pub(super) logs: Vec<Log>,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) access: Arc<FileAccess>,
    writer: JournalWriter,
    flusher: JournalFlusher,
    maintenance: JournalMaintenance,
    recovery_epoch: u32,
    checkpoint_version: u64,
    ticket: u64,
    queue: Vec<(u64, JournalEntry)>,
    /// The last written and not yet durable ticket of each log.
    written: Vec<(TopicPartition, LogGeneration, u64)>,
    durable: JournalPosition,
    _lock: Box<dyn DirLock>,
}

impl Directory {
    /// Recovers `root`, and makes the logs that are missing: those of `strict`, in order, by partition number.
    pub(super) fn open(root: &Path, strict: &[bool]) -> Result<Directory, Fault> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let lock = disk.lock_dir(root).map_err(|source| Fault::io("lock", root, source))?;
        let config = LogConfig { segment_bytes: 150 << 10, retention_ms: None, ..LogConfig::default() };
        let options = RecoveryOptions {
            journal_name: "journal",
            journal: JOURNAL,
            config: config.clone(),
            relaxed_survived: false,
            open_files_count: 6,
            index_bytes_max: 1 << 20,
            progress: Default::default(),
        };
        let found = recover_log_dir(&disk, root, &options, Timestamp(1))?;
        let mut logs: Vec<(Log, Verdict)> = found.logs.into_iter().map(|found| (found.log, found.verdict)).collect();
        logs.sort_by_key(|(log, _)| log.key().partition.partition);
        let (logs, verdicts): (Vec<_>, Vec<_>) = logs.into_iter().unzip();
        let mut directory = Directory {
            disk,
            root: root.to_owned(),
            logs,
            verdicts,
            access: found.access,
            durable: found.flusher.durable().position,
            writer: found.writer,
            flusher: found.flusher,
            maintenance: found.maintenance,
            recovery_epoch: found.recovery_epoch,
            checkpoint_version: found.checkpoint_version,
            ticket: FIRST_TICKET,
            queue: Vec::new(),
            written: Vec::new(),
            _lock: lock,
        };
        for (partition, strict) in strict.iter().enumerate() {
            let id = TopicPartition { topic_id: TOPIC, partition: PartitionIndex(partition as i32) };
            if directory.logs.iter().all(|log| log.key().partition != id) {
                let generation = LogGeneration { recovery_epoch: directory.recovery_epoch, counter: 0 };
                let ticket = directory.next_ticket();
                let key = ReplicaKey { partition: id, generation };
                let (log, entry) = Log::create(key, config.clone(), *strict, Offset::ZERO, ticket);
                directory.queue.push((ticket, entry));
                directory.logs.insert(partition, log);
                directory.verdicts.insert(partition, Verdict::Proved);
            }
        }
        Ok(directory)
    }

    fn next_ticket(&mut self) -> u64 {
        self.ticket += 1;
        self.ticket
    }

    /// Appends a batch to the log at `at`, unless something stands in the way.
    pub(super) fn append(&mut self, at: usize, seed: u64, life: i32, stamp: i64) -> bool {
        if self.logs[at].is_changing() {
            return false;
        }
        let ticket = self.next_ticket();
        let log = &mut self.logs[at];
        let origin = Origin { seed, partition: at as i32, base: log.log_end(), life, stamp };
        let bytes = origin.batch();
        let header = BatchHeader::read(&bytes).expect("our own batch");
        let appended = log.append_as_leader(bytes, &header, LeaderEpoch(life), Timestamp(stamp), ticket);
        let appended = appended.unwrap_or_else(|reject| panic!("partition {at} refuses its next batch: {reject:?}"));
        self.queue.push((ticket, appended.entry.expect("the next in sequence is no duplicate")));
        true
    }

    /// Cuts the log at `at` back to `end`, which everyone may know to be acknowledged.
    pub(super) fn truncate(&mut self, at: usize, end: Offset) -> Result<(), Fault> {
        if self.logs[at].is_changing() {
            return Ok(());
        }
        let ticket = self.next_ticket();
        let entry = match self.logs[at].truncate_to(end, ticket) {
            Truncation::Nothing => None,
            Truncation::Done(entry) => Some(entry),
            Truncation::Rebuild(job) => {
                let rebuilt = job.run(&self.access)?;
                self.logs[at].truncate_into_segments(rebuilt, ticket)
            }
        };
        self.queue.extend(entry.map(|entry| (ticket, entry)));
        Ok(())
    }

    /// Deletes what lies below `to`.
    pub(super) fn advance_log_start(&mut self, at: usize, to: Offset) {
        let ticket = self.next_ticket();
        let entry = self.logs[at].advance_log_start(to, ticket);
        self.queue.extend(entry.map(|entry| (ticket, entry)));
    }

    /// Writes what is queued. Out of space, it stays queued.
    pub(super) fn write(&mut self) -> Result<(), Fault> {
        if self.queue.is_empty() {
            return Ok(());
        }
        let entries: Vec<JournalEntry> = self.queue.iter().map(|(_, entry)| entry.clone()).collect();
        let receipt = self.writer.write(&entries)?;
        let queue = std::mem::take(&mut self.queue);
        let span = CommitSpan { start: receipt.start, end: receipt.end };
        for log in &mut self.logs {
            let partition = log.key().partition;
            let newest = queue.iter().filter(|(_, entry)| entry.replica.partition == partition).max_by_key(|(t, _)| *t);
            if let Some((ticket, entry)) = newest {
                log.on_written(entry.replica.generation, *ticket, span);
                self.written.push((partition, entry.replica.generation, *ticket));
            }
        }
        Ok(())
    }

    /// Makes what is written durable.
    pub(super) fn sync(&mut self) -> Result<(), Fault> {
        self.durable = self.flusher.sync()?.position;
        for (partition, generation, ticket) in std::mem::take(&mut self.written) {
            if let Some(log) = self.logs.iter_mut().find(|log| log.key().partition == partition) {
                log.on_durable(generation, ticket);
            }
        }
        Ok(())
    }

    /// An empty commit where one would tell a torn tail from damage.
    pub(super) fn idle(&mut self) -> Result<(), Fault> {
        if self.queue.is_empty() && self.writer.empty_commit_wanted() {
            self.writer.write_empty_commit()?;
            self.sync()?;
        }
        Ok(())
    }

    /// Moves durable batches of one log into segments.
    pub(super) fn flush(&mut self, at: usize) -> Result<(), Fault> {
        let Some(job) = self.logs[at].plan_flush(Timestamp(1), true, 0) else { return Ok(()) };
        let generation = self.logs[at].key().generation;
        match job.run(&self.access) {
            Ok(done) => {
                self.logs[at].on_flushed(done);
                Ok(())
            }
            Err(fault) => {
                if fault.is_out_of_space() {
                    self.logs[at].on_flush_deferred(generation);
                }
                Err(fault)
            }
        }
    }

    /// A checkpoint, and what it allows: recycling journal files and deleting segments.
    pub(super) fn checkpoint(&mut self) -> Result<(), Fault> {
        let durable = self.durable;
        let (mut replicas, mut any) = (Vec::new(), false);
        for log in &mut self.logs {
            let Some((state, sync)) = log.plan_checkpoint(durable) else { continue };
            replicas.push(state);
            if let Some(sync) = sync {
                sync.run(&self.access)?;
                any = true;
            }
        }
        if any {
            sync_names(&self.access)?;
        }
        let checkpoint = Checkpoint { recovery_epoch: self.recovery_epoch, covered_default: durable, replicas };
        self.checkpoint_version += 1;
        checkpoint.write(&*self.disk, &self.root, self.checkpoint_version)?;
        for log in &mut self.logs {
            let generation = log.key().generation;
            log.on_checkpointed(generation);
        }
        self.maintenance.recycle(checkpoint.replay_from())?;
        for log in &mut self.logs {
            if let Some(job) = log.plan_deletes() {
                job.run(&self.access)?;
                log.on_deleted(&job);
            }
        }
        Ok(())
    }

    /// Makes a spare journal file if one is wanted.
    pub(super) fn prepare_spare(&mut self) -> Result<(), Fault> {
        self.maintenance.prepare_spare().map(drop)
    }

    /// Whether more than half of the journal is in use, or something waits for room in it.
    pub(super) fn wants_room(&self) -> bool {
        let usage = self.maintenance.usage();
        usage.bytes_live * 2 > usage.bytes_max
    }
}
