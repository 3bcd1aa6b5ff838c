//! The one thread that writes the metadata journal: votes, entries, truncations and purges, in the order they came.
//!
//! It takes everything that is queued, writes it at once, syncs once, then reports in order. Now and then it writes
//! what still matters anew at the end of the journal and gives the files before it back.
//!
//! The journal belongs to one pseudo-replica whose batches are the records of [`super::codec`].

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::IOFlushed;
use stonelog_protocol::{Offset, PartitionIndex, TopicPartition, Uuid};
use stonelog_storage::disk::Disk;
use stonelog_storage::journal::{
    Change, JournalEntry, JournalFlusher, JournalMaintenance, JournalOptions, JournalPosition, JournalWriter,
    ReplayFrom,
};
use stonelog_storage::log_dir;
use stonelog_storage::small_file::{Envelope, EnvelopeKind, write_two_copies};
use stonelog_storage::{Fault, LogGeneration, ReplicaKey};
use tokio::sync::oneshot;

use super::codec::JournalRecord;
use super::log_store::LogState;
use super::type_config::TypeConfig;

/// Sizes of the metadata journal. The first file is small, so that a first start does not wait for zeroes.
pub(super) const JOURNAL_OPTIONS: JournalOptions =
    JournalOptions { file_bytes: 8 << 20, first_file_bytes: 256 << 10, commit_bytes_max: 4 << 20, bytes_max: 1 << 30 };

/// The longest encoded entry: fits a journal file with room to spare.
pub(crate) const ENTRY_BYTES_MAX: usize = 6 << 20;

/// Live journal above this is written anew, so that every start and every purge leaves a short journal.
pub(super) const REWRITE_ABOVE_BYTES: u64 = 32 << 20;

/// How long nothing was asked of the journal when it sees to its spare file, since starting is over by then, and names
/// what is durable.
const QUIET: Duration = Duration::from_secs(1);

/// How long a full disk is left alone before it is tried again.
const FULL_LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where replay begins is kept in two copies of this file.
pub(super) const CHECKPOINT_NAME: &str = "metadata.checkpoint";
/// What that file is.
pub(super) const CHECKPOINT_KIND: EnvelopeKind =
    EnvelopeKind { magic: *b"SLMETACP", format: 1, what: "metadata checkpoint" };

/// The replica all records belong to: no topic has this id, for it is not random.
pub(super) const METADATA_PARTITION: TopicPartition =
    TopicPartition { topic_id: Uuid(*b"stonelogmetadata"), partition: PartitionIndex(0) };

/// What to do when records are durable.
pub(super) enum Done {
    /// Nothing.
    Nobody,
    /// Somebody waits for it.
    Waiter(oneshot::Sender<()>),
    /// openraft counts it.
    Append(IOFlushed<TypeConfig>),
}

/// Work for the thread.
pub(super) enum Work {
    /// Write these, in order.
    Write { records: Vec<JournalRecord>, done: Done },
    /// As [`Work::Write`], and see whether the journal has become too long.
    Purge { record: JournalRecord, done: Done },
    /// Everything before is written; end.
    Stop,
}

/// The thread's end of the journal.
pub(super) struct JournalThread {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) writer: JournalWriter,
    pub(super) flusher: JournalFlusher,
    pub(super) maintenance: JournalMaintenance,
    pub(super) recovery_epoch: u32,
    /// The version of the last checkpoint written.
    pub(super) checkpoint_version: u64,
    pub(super) state: Arc<Mutex<LogState>>,
    pub(super) next_offset: Offset,
    /// Whether the spare of this start was seen to.
    pub(super) has_prepared_spare: bool,
    /// What came while there was no space for what came before.
    pub(super) later: VecDeque<Work>,
    /// What becomes of the process when the journal fails: [`die`], but in tests of the disk's faults.
    pub(super) ends: fn(&Fault),
    /// [`REWRITE_ABOVE_BYTES`], but in the same tests.
    pub(super) rewrite_above_bytes: u64,
}

impl JournalThread {
    /// Starts the thread; dropping the sender ends it too.
    pub(super) fn spawn(mut self) -> std::io::Result<(Sender<Work>, std::thread::JoinHandle<()>)> {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("metadata-log".to_owned()).spawn(move || {
            let _ends = EndsWithPanic;
            if let Err(fault) = self.run(&receiver) {
                self.mark_offline(&fault);
                (self.ends)(&fault);
            }
        })?;
        Ok((sender, thread))
    }

    fn run(&mut self, work: &Receiver<Work>) -> Result<(), Fault> {
        self.rewrite_if_long()?;
        while let Some(first) = self.next(work)? {
            let mut entries = Vec::new();
            let mut dones = Vec::new();
            let mut is_purge = false;
            let mut is_stop = false;
            let later = std::mem::take(&mut self.later);
            for item in std::iter::once(first).chain(later).chain(work.try_iter()) {
                match item {
                    Work::Write { records, done } => {
                        entries.extend(records.iter().map(|record| self.entry(record.encode())));
                        dones.push(done);
                    }
                    Work::Purge { record, done } => {
                        entries.push(self.entry(record.encode()));
                        dones.push(done);
                        is_purge = true;
                    }
                    Work::Stop => {
                        is_stop = true;
                        break;
                    }
                }
            }
            if !self.write(&entries, work)? {
                return Ok(());
            }
            self.flusher.sync()?;
            // Everything asked is durable, and nobody will ask more: naming it is for damage that may come later.
            if is_stop && let Err(fault) = self.name_durable() {
                tracing::warn!("the end of the metadata log is not named by a later commit: {fault}");
            }
            for done in dones {
                match done {
                    Done::Nobody => {}
                    // Whoever waited may have gone; the record is durable all the same.
                    Done::Waiter(waiter) => drop(waiter.send(())),
                    Done::Append(callback) => callback.io_completed(Ok(())),
                }
            }
            if is_stop {
                return Ok(());
            }
            if is_purge {
                self.rewrite_if_long()?;
            }
        }
        Ok(())
    }

    /// Writes the entries, when there is space for them: metadata waits for it rather than end the process. `false` when
    /// the thread is to stop meanwhile; nobody has been told anything then.
    fn write(&mut self, entries: &[JournalEntry], work: &Receiver<Work>) -> Result<bool, Fault> {
        let mut said = false;
        loop {
            match self.writer.write(entries) {
                Ok(_) => return Ok(true),
                Err(fault) if fault.is_temporary() => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::error!("the metadata log waits: {fault}; free some, and it goes on by itself");
                    }
                }
                Err(fault) => return Err(fault),
            }
            match work.recv_timeout(FULL_LOOK_AGAIN) {
                Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Ok(later) => self.later.push_back(later),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// The metadata log lies in a log directory, which is not to be used again until it has been read anew (rule 8).
    fn mark_offline(&self, fault: &Fault) {
        let Some(log_dir) = self.directory.parent() else { return };
        if let Err(second) = log_dir::mark_offline(&*self.disk, log_dir, &fault.to_string()) {
            tracing::error!("{} does not take the marker that it is offline: {second}", log_dir.display());
        }
    }

    /// The next work, or `None` when there will be none. The first quiet moment goes to preparing a spare file, so that
    /// a later start finds one to begin with even when the disk is full by then (rule 8); each one to naming what is durable.
    fn next(&mut self, work: &Receiver<Work>) -> Result<Option<Work>, Fault> {
        if let Some(later) = self.later.pop_front() {
            return Ok(Some(later));
        }
        if !self.has_prepared_spare || self.writer.empty_commit_wanted() {
            match work.recv_timeout(QUIET) {
                Ok(first) => return Ok(Some(first)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    self.prepare_spare()?;
                    self.name_durable()?;
                }
            }
            self.has_prepared_spare = true;
        }
        Ok(work.recv().ok())
    }

    /// Writes a commit without entries, durably, if the last one with entries is named by none yet: without it damage to
    /// that one, which may hold a vote, would pass for a torn tail. `false` when there was no space for it.
    fn name_durable(&mut self) -> Result<bool, Fault> {
        if !self.writer.empty_commit_wanted() {
            return Ok(true);
        }
        match self.writer.write_empty_commit() {
            Err(fault) if fault.is_temporary() => return Ok(false),
            written => written?,
        };
        self.flusher.sync()?;
        Ok(true)
    }

    fn entry(&mut self, batches: Bytes) -> JournalEntry {
        let base_offset = self.next_offset;
        self.next_offset = base_offset.next();
        let generation = LogGeneration { recovery_epoch: self.recovery_epoch, counter: 0 };
        JournalEntry {
            replica: ReplicaKey { partition: METADATA_PARTITION, generation },
            change: Change::Append { base_offset, end_offset: self.next_offset, batches },
        }
    }

    /// Writes what still matters at the end of the journal, then frees everything before it.
    ///
    /// What is in memory may be newer than what was asked to be written; it is then durable earlier than it had to be,
    /// in an order that replays to the same state.
    fn rewrite_if_long(&mut self) -> Result<(), Fault> {
        if self.maintenance.usage().bytes_live <= self.rewrite_above_bytes {
            return Ok(());
        }
        let records = self.state.lock().expect("no holder panics").to_records();
        let first_offset = self.next_offset;
        let entries: Vec<_> = records.iter().map(|record| self.entry(record.encode())).collect();
        let start = match self.writer.write(&entries) {
            // It is long for the time being; the next purge tries again.
            Err(fault) if fault.is_temporary() => {
                self.next_offset = first_offset;
                return Ok(());
            }
            written => written?.start,
        };
        self.flusher.sync()?;
        // From here on the journal may hold nothing but this one commit.
        if !self.name_durable()? {
            return Ok(());
        }
        match self.write_checkpoint(start) {
            Err(fault) if fault.is_temporary() => return Ok(()),
            written => written?,
        }
        let freed = self.maintenance.recycle(start)?;
        tracing::debug!(freed, records = records.len(), "metadata journal written anew");
        Ok(())
    }

    fn write_checkpoint(&mut self, position: JournalPosition) -> Result<(), Fault> {
        self.checkpoint_version += 1;
        let replay_from = ReplayFrom { position, recovery_epoch: self.recovery_epoch };
        write_checkpoint(&*self.disk, &self.directory, self.checkpoint_version, replay_from)
    }

    fn prepare_spare(&self) -> Result<(), Fault> {
        match self.maintenance.prepare_spare() {
            Err(fault) if fault.is_temporary() => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// Makes durable where replay begins.
pub(super) fn write_checkpoint(
    disk: &dyn Disk,
    directory: &Path,
    version: u64,
    replay_from: ReplayFrom,
) -> Result<(), Fault> {
    let mut payload = replay_from.position.0.to_be_bytes().to_vec();
    payload.extend_from_slice(&replay_from.recovery_epoch.to_be_bytes());
    write_two_copies(disk, directory, CHECKPOINT_NAME, &Envelope::seal(&CHECKPOINT_KIND, version, &payload))
}

/// Ends the process when the thread that has it panics: without its journal a voter would go on saying that it lives.
struct EndsWithPanic;

impl Drop for EndsWithPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            die(&"its thread has panicked");
        }
    }
}

/// The metadata log cannot be written any more: what this process would say from here on could not be trusted.
pub(crate) fn die(fault: &dyn std::fmt::Display) -> ! {
    tracing::error!(%fault, "the metadata log cannot be written; the process ends");
    std::process::abort()
}
