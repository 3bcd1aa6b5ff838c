//! Starting on a log directory: checkpoint, then the journal behind it, then a verdict per replica.
//!
//! The time it takes is bounded by the journal's size. Of segment files only presence and length are looked at: the
//! checkpoint says what they hold, and each read of them checks. Recovery restores every replica it finds and asks nobody's leave (rule 12).

mod files;
mod progress;
mod replay;
mod verdict;

use std::path::Path;
use std::sync::Arc;

use stonelog_protocol::{Timestamp, TopicPartition};

pub use crate::log::Contradiction;
pub use progress::{RecoveryCounts, RecoveryProgress};
pub use verdict::{Loss, Verdict};

use crate::Fault;
use crate::checkpoint::Checkpoint;
use crate::disk::{Disk, Open};
use crate::job::FileAccess;
use crate::journal::{
    self, Hurt, JournalFlusher, JournalMaintenance, JournalOptions, JournalPosition, JournalWriter, RecoveryEnd,
    ReplayFrom,
};
use crate::log::{Log, LogConfig};
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
    /// Where it says how far it has come.
    pub progress: Arc<RecoveryProgress>,
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
    let progress = &options.progress;
    progress.found_journal(journal_bytes(&**disk, &journal_directory)?);
    let mut reached = replay_from.position;
    let journal = journal::recover(disk, &journal_directory, options.journal, replay_from, &mut |entry| {
        progress.replayed(entry.commit_position.0.saturating_sub(reached.0));
        reached = reached.max(entry.commit_position);
        replay.apply(&entry);
    })?;
    let (found, dropped, entries_count) = replay.finish(journal.recovery_epoch, journal.flusher.durable().position)?;
    let torn = journal.ends.torn_tail.is_some();
    let everyone_hurt_at = everyone_hurt_at(&journal.ends);
    progress.found_replicas(found.len());
    let mut logs = Vec::with_capacity(found.len());
    for mut found in found {
        if everyone_hurt_at.is_some_and(|position| position > found.end_known_at) {
            found.loss = found.loss.or(Some(Loss::JournalDamage));
        }
        files::check(&mut found.log, &files)?;
        progress.checked_replica();
        let log = found.log;
        let has_holes = !log.holes().is_empty();
        let verdict = Verdict::of(found.loss, has_holes, log.is_strict(), options.relaxed_survived, torn);
        logs.push(RecoveredLog { log, verdict });
    }
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

/// Bytes of the journal's files, those in use and those kept for later. None when there is no journal yet.
fn journal_bytes(disk: &dyn Disk, directory: &Path) -> Result<u64, Fault> {
    if !disk.exists(directory).map_err(|source| Fault::io("stat", directory, source))? {
        return Ok(0);
    }
    let mut bytes = 0;
    for entry in disk.list(directory).map_err(|source| Fault::io("list", directory, source))? {
        if !entry.is_dir && entry.name.ends_with(".journal") {
            let path = directory.join(&entry.name);
            let file = disk.open(&path, Open::Read).map_err(|source| Fault::io("open", &path, source))?;
            bytes += file.len().map_err(|source| Fault::io("fstat", &path, source))?;
        }
    }
    Ok(bytes)
}

/// The last place where anybody's entries may be lost. A log of which a later entry says where it ended has holes for
/// what it lost before; the others may have lost their ends.
fn everyone_hurt_at(end: &RecoveryEnd) -> Option<JournalPosition> {
    let everyones = end.damage.iter().filter(|damage| damage.hurt == Hurt::All);
    everyones.map(|damage| damage.position).max()
}
