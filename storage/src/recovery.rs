//! Starting on a log directory: checkpoint, then the journal behind it, then a verdict per replica.
//!
//! The time it takes is bounded by the journal's size. No segment file is opened: the checkpoint says what they hold,
//! and each read of them checks. Recovery restores every replica it finds and asks nobody's leave (rule 12).

mod replay;
mod verdict;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use stonelog_protocol::{Timestamp, TopicPartition};

pub use crate::log::Contradiction;
pub use verdict::{Loss, Verdict};

use crate::Fault;
use crate::checkpoint::Checkpoint;
use crate::disk::Disk;
use crate::job::FileAccess;
use crate::journal::{
    self, Hurt, JournalFlusher, JournalMaintenance, JournalOptions, JournalWriter, RecoveryEnd, ReplayFrom,
};
use crate::log::{Log, LogConfig};
use crate::segment::directory_of;
use crate::segment::file_cache::FileCache;
use replay::Replay;

/// How to recover a log directory.
#[derive(Clone, Debug)]
pub struct RecoveryOptions {
    /// The journal's directory within the log directory.
    pub journal_name: &'static str,
    /// The journal's limits.
    pub journal: JournalOptions,
    /// What every log is opened with, until [`Log::set_config`].
    pub config: LogConfig,
    /// Whether relaxed replicas are as they were left: a clean-stop marker, or the same kernel boot and mount.
    pub relaxed_survived: bool,
    /// Segment files kept open at most.
    pub open_files_count: usize,
    /// Bytes of indexes of closed segments kept in memory at most.
    pub index_bytes_max: usize,
}

/// A log directory, ready for use.
pub struct RecoveredLogDir {
    /// The replicas found, in no order.
    pub logs: Vec<RecoveredLog>,
    /// Appends to the journal.
    pub writer: JournalWriter,
    /// Makes the journal durable.
    pub flusher: JournalFlusher,
    /// Prepares and recycles journal files.
    pub maintenance: JournalMaintenance,
    /// For the threads that run jobs.
    pub access: Arc<FileAccess>,
    /// This start's epoch.
    pub recovery_epoch: u32,
    /// The version of the checkpoint found, 0 for none; the next one's is greater.
    pub checkpoint_version: u64,
    /// How the journal ended.
    pub journal_end: RecoveryEnd,
    /// Dropped since the checkpoint: their directories may be removed ([`crate::segment::delete::DeleteLogJob`]) after the
    /// next one, where no new log of the same name exists.
    pub dropped: Vec<TopicPartition>,
    /// Journal entries replayed.
    pub entries_count: u64,
}

/// A replica found.
#[derive(Debug)]
pub struct RecoveredLog {
    /// Its log.
    pub log: Log,
    /// What may be claimed of it.
    pub verdict: Verdict,
}

/// Recovers the log directory `root`, whose lock the caller holds. `now` is wall-clock time.
pub fn recover_log_dir(
    disk: &Arc<dyn Disk>,
    root: &Path,
    options: &RecoveryOptions,
    now: Timestamp,
) -> Result<RecoveredLogDir, Fault> {
    let found = Checkpoint::read(&**disk, root)?;
    let (checkpoint, checkpoint_version) = found.map_or_else(Default::default, |found| (found.value, found.version));
    let replay_from = ReplayFrom { position: checkpoint.replay_from(), recovery_epoch: checkpoint.recovery_epoch };
    let files = FileAccess::without_journal(Arc::clone(disk), root.to_owned());
    let mut replay = Replay::from_checkpoint(&checkpoint, options.config.clone(), now, &files);
    let journal_directory = root.join(options.journal_name);
    let journal =
        journal::recover(disk, &journal_directory, options.journal, replay_from, &mut |entry| replay.apply(&entry))?;
    let directories = directories(&**disk, root)?;
    let (found, dropped, entries_count) = replay.finish(journal.recovery_epoch, journal.flusher.durable().position)?;
    let torn = journal.ends.torn_tail.is_some();
    let (all_hurt, hurt) = hurt(&journal.ends);
    let logs = found
        .into_iter()
        .map(|(log, mut loss)| {
            let partition = log.key().partition;
            if all_hurt || hurt.contains(&partition) {
                loss = loss.or(Some(Loss::JournalDamage));
            }
            let is_needed = log.segments().iter().any(|segment| segment.end > log.log_start());
            if is_needed && !directories.contains(directory_of(partition).as_path()) {
                loss = loss.or(Some(Loss::FilesMissing));
            }
            let verdict = Verdict::of(loss, log.is_strict(), options.relaxed_survived, torn);
            RecoveredLog { log, verdict }
        })
        .collect();
    let cache = FileCache::new(options.open_files_count, options.index_bytes_max);
    let access = FileAccess::new(Arc::clone(disk), root.to_owned(), cache, journal.reader);
    Ok(RecoveredLogDir {
        logs,
        writer: journal.writer,
        flusher: journal.flusher,
        maintenance: journal.maintenance,
        access: Arc::new(access),
        recovery_epoch: journal.recovery_epoch,
        checkpoint_version,
        journal_end: journal.ends,
        dropped,
        entries_count,
    })
}

/// The directories in the log directory: one listing, however many replicas there are.
fn directories(disk: &dyn Disk, root: &Path) -> Result<HashSet<std::path::PathBuf>, Fault> {
    let entries = disk.list(root).map_err(|source| Fault::io("list", root, source))?;
    Ok(entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name.into()).collect())
}

fn hurt(end: &RecoveryEnd) -> (bool, HashSet<TopicPartition>) {
    let mut all = false;
    let mut partitions = HashSet::new();
    for damage in &end.damage {
        match &damage.hurt {
            Hurt::All => all = true,
            Hurt::Replicas(keys) => partitions.extend(keys.iter().map(|key| key.partition)),
        }
    }
    (all, partitions)
}
