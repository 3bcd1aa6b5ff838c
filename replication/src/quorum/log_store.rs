//! openraft's log and vote over the storage journal.
//!
//! Entries live in memory as well, from the last purged one on: the log is short, snapshots see to that. Reads never
//! touch the disk. Everything that must be durable passes through one [`super::journal_thread`], in order.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState as RaftLogState, OptionalSend, RaftLogReader};
use stonelog_protocol::Offset;
use stonelog_storage::Fault;
use stonelog_storage::disk::Disk;
use stonelog_storage::journal::{Change, JournalPosition, ReplayFrom, ReplayedEntry, recover};
use stonelog_storage::small_file::{Envelope, read_small_file, read_two_copies, write_small_file};
use tokio::sync::oneshot;

use super::codec::JournalRecord;
use super::journal_thread::{
    CHECKPOINT_KIND, CHECKPOINT_NAME, Done, JOURNAL_OPTIONS, JournalThread, REWRITE_ABOVE_BYTES, Work, die,
    write_checkpoint,
};
use super::type_config::{Entry, LogId, TypeConfig, Vote};

/// What the journal says, in memory.
#[derive(Debug, Default)]
pub(super) struct LogState {
    vote: Option<Vote>,
    last_purged: Option<LogId>,
    committed: Option<LogId>,
    /// Without holes, beginning after `last_purged`.
    entries: BTreeMap<u64, Entry>,
}

impl LogState {
    /// The records that make this state.
    pub(super) fn to_records(&self) -> Vec<JournalRecord> {
        let vote = self.vote.map(JournalRecord::Vote);
        let purged = self.last_purged.map(JournalRecord::Purged);
        let entries = self.entries.values().cloned().map(JournalRecord::Entry);
        let committed = std::iter::once(JournalRecord::Committed(self.committed));
        vote.into_iter().chain(purged).chain(entries).chain(committed).collect()
    }

    fn replay(&mut self, record: JournalRecord) {
        match record {
            JournalRecord::Vote(vote) => self.vote = Some(vote),
            JournalRecord::Entry(entry) => {
                // An entry that is written anew stands where it stood; one that was purged is not needed.
                if self.last_purged.is_none_or(|purged| entry.log_id.index > purged.index) {
                    self.entries.insert(entry.log_id.index, entry);
                }
            }
            JournalRecord::TruncateAfter(id) => self.truncate_after(id),
            JournalRecord::Purged(id) => self.purge(id),
            JournalRecord::Committed(id) => self.committed = id,
        }
    }

    fn truncate_after(&mut self, id: Option<LogId>) {
        self.entries.split_off(&id.map_or(0, |id| id.index + 1));
    }

    fn purge(&mut self, id: LogId) {
        self.entries = self.entries.split_off(&(id.index + 1));
        self.last_purged = self.last_purged.max(Some(id));
    }

    fn last_id(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.last_purged)
    }

    /// Why the log cannot be used, if it cannot.
    fn hole(&self) -> Option<u64> {
        let first = self.last_purged.map_or(0, |purged| purged.index + 1);
        (first..).zip(self.entries.keys()).find(|(expected, found)| expected != *found).map(|(expected, _)| expected)
    }
}

/// openraft's log.
#[derive(Clone)]
pub struct LogStore {
    state: Arc<Mutex<LogState>>,
    work: Sender<Work>,
}

/// What comes behind an entry.
pub(super) enum Following {
    /// These, as many as are looked at together.
    Entries(Vec<Entry>),
    /// What comes next is in a snapshot only.
    Purged,
    /// There is no such entry.
    Unknown,
}

/// Entries looked at together: handles of what is in memory anyway.
const FOLLOWING_MAX: usize = 256;

/// The journal's thread, to be joined after the last [`LogStore`] said stop.
pub struct LogThread(std::thread::JoinHandle<()>);

impl LogStore {
    /// Opens the log in a directory, which exists, or makes a new one there.
    ///
    /// Damage to anything that had been durable is refused: this voter may have forgotten what it promised, and has to
    /// be replaced.
    pub fn open(disk: &Arc<dyn Disk>, directory: &Path) -> Result<(LogStore, LogThread), Fault> {
        LogStore::open_with(disk, directory, REWRITE_ABOVE_BYTES, |fault| die(fault))
    }

    /// As [`LogStore::open`], with another length above which the journal is written anew. When the journal fails, `ends`
    /// is called, and nobody who waits is told anything.
    pub(super) fn open_with(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        rewrite_above_bytes: u64,
        ends: fn(&Fault),
    ) -> Result<(LogStore, LogThread), Fault> {
        if let Some(said) = read_small_file(&**disk, &directory.join(LOST_NAME))? {
            let position = JournalPosition(0);
            return Err(damaged(
                directory,
                position,
                &format!("at an earlier start: {}", String::from_utf8_lossy(&said)),
            ));
        }
        let mut checkpoint = read_checkpoint(&**disk, directory)?;
        let mut state = LogState::default();
        let mut first: Option<JournalPosition> = None;
        let mut unreadable: Option<(JournalPosition, String)> = None;
        let mut visit = |replayed: ReplayedEntry| {
            first.get_or_insert(replayed.commit_position);
            let Change::Append { batches, .. } = &replayed.entry.change else { return };
            match JournalRecord::decode(batches) {
                Ok(record) => state.replay(record),
                Err(error) => unreadable = unreadable.take().or(Some((replayed.position, error.to_string()))),
            }
        };
        let recovered = recover(disk, directory, JOURNAL_OPTIONS, checkpoint.replay_from, &mut visit)?;
        if let Some(damage) = recovered.ends.damage.first() {
            unreadable = unreadable.or(Some((damage.position, "its checksum does not match".to_owned())));
        }
        if let Some(index) = state.hole() {
            unreadable = unreadable.or(Some((checkpoint.replay_from.position, format!("entry {index} is missing"))));
        }
        if let Some((position, detail)) = unreadable {
            // Files that are missing are not missed again: this start has begun one.
            if let Err(fault) = write_small_file(&**disk, directory, LOST_NAME, detail.as_bytes()) {
                tracing::error!("it cannot be remembered that the metadata log is damaged: {fault}");
            }
            return Err(damaged(directory, position, &detail));
        }
        if let Some(torn) = &recovered.ends.torn_tail {
            tracing::info!(position = torn.position.0, bytes = torn.bytes, "metadata log: torn tail dropped");
        }
        if checkpoint.version == 0 {
            // From here on a log without its files is damaged, and never a new one.
            let position = first.unwrap_or(recovered.writer.position());
            let replay_from = ReplayFrom { position, recovery_epoch: recovered.recovery_epoch };
            checkpoint = Checkpoint { version: 1, replay_from };
            write_checkpoint(&**disk, directory, checkpoint.version, replay_from)?;
        }
        let state = Arc::new(Mutex::new(state));
        let thread = JournalThread {
            disk: disk.clone(),
            directory: directory.to_owned(),
            writer: recovered.writer,
            flusher: recovered.flusher,
            maintenance: recovered.maintenance,
            recovery_epoch: recovered.recovery_epoch,
            checkpoint_version: checkpoint.version,
            state: state.clone(),
            next_offset: Offset::ZERO,
            has_prepared_spare: false,
            later: Default::default(),
            ends,
            rewrite_above_bytes,
        };
        let (work, thread) = thread.spawn().map_err(|source| Fault::Io {
            operation: "spawn",
            path: directory.to_owned(),
            position: None,
            source,
        })?;
        Ok((LogStore { state, work }, LogThread(thread)))
    }

    /// Writes what is queued and ends the thread.
    pub fn stop(&self, thread: LogThread) {
        self.send(Work::Stop);
        // The thread ends the process when it fails, so it cannot have panicked and gone on.
        thread.0.join().expect("the metadata log's thread does not panic");
    }

    /// The last entry there is.
    pub(super) fn last_index(&self) -> Option<u64> {
        self.state().last_id().map(|id| id.index)
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().expect("no holder panics")
    }

    fn send(&self, work: Work) {
        // After stop nobody is listening, and nobody is answered.
        drop(self.work.send(work));
    }

    /// The entries behind `after`, up to one that is known to be applied.
    pub(super) fn following(&self, after: Option<LogId>, upto: LogId) -> Following {
        let state = self.state();
        let is_known = match after {
            None if state.last_purged.is_some() => return Following::Purged,
            None => true,
            Some(id) => match state.last_purged {
                Some(purged) if id.index < purged.index => return Following::Purged,
                Some(purged) if id.index == purged.index => id == purged,
                _ => state.entries.get(&id.index).is_some_and(|entry| entry.log_id == id),
            },
        };
        if !is_known {
            return Following::Unknown;
        }
        let first = after.map_or(0, |id| id.index + 1);
        if first > upto.index {
            return Following::Entries(Vec::new());
        }
        let entries = state.entries.range(first..=upto.index).take(FOLLOWING_MAX);
        Following::Entries(entries.map(|(_, entry)| entry.clone()).collect())
    }

    /// Returns when everything that was handed to the journal is durable.
    pub(super) async fn flushed(&self) -> Result<(), io::Error> {
        if off!(OwnLogFirst) {
            return Ok(());
        }
        self.write_durably(|done| Work::Write { records: Vec::new(), done }).await
    }

    /// Forgets every entry, and begins behind one that a durable snapshot covers; the vote stays.
    pub(super) async fn begin_behind(&self, last: LogId) -> Result<(), io::Error> {
        {
            let mut state = self.state();
            state.truncate_after(None);
            state.purge(last);
        }
        let records = vec![JournalRecord::TruncateAfter(None), JournalRecord::Purged(last)];
        self.write_durably(|done| Work::Write { records, done }).await
    }

    async fn write_durably(&self, work: impl FnOnce(Done) -> Work) -> Result<(), io::Error> {
        let (done, durable) = oneshot::channel();
        self.send(work(Done::Waiter(done)));
        durable.await.map_err(|_| io::Error::other("the metadata log has stopped"))
    }
}

fn damaged(directory: &Path, position: JournalPosition, detail: &str) -> Fault {
    Fault::Damage {
        what: "metadata log",
        path: PathBuf::from(directory),
        position: position.0,
        detail: format!(
            "{detail}; this node may have forgotten what it promised to the quorum: keep a copy of the directory, then \
             remove this voter and let it join anew"
        ),
    }
}

/// Whether there is a log in a directory, be it empty: one that was there once and is not any more is lost.
pub fn exists(disk: &dyn Disk, directory: &Path) -> Result<bool, Fault> {
    match disk.list(directory) {
        Ok(entries) => {
            Ok(entries.iter().any(|entry| entry.name.ends_with(".journal") || entry.name == CHECKPOINT_NAME))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Fault::Io { operation: "list", path: directory.to_owned(), position: None, source }),
    }
}

/// Left in the directory of a log that was found damaged: whatever later starts find, it stays so.
const LOST_NAME: &str = "metadata.lost";

/// Where replay begins.
struct Checkpoint {
    version: u64,
    replay_from: ReplayFrom,
}

/// One copy of `metadata.checkpoint`: its version, and where replay begins.
pub(super) fn decode_checkpoint(bytes: &[u8]) -> Result<(u64, ReplayFrom), String> {
    let (envelope, payload) = Envelope::open(&CHECKPOINT_KIND, bytes).map_err(|error| error.to_string())?;
    let (position, epoch) = payload.split_first_chunk::<8>().ok_or("it is too short")?;
    let epoch = epoch.try_into().map_err(|_| "it has another length")?;
    let position = JournalPosition(u64::from_be_bytes(*position));
    Ok((envelope.version, ReplayFrom { position, recovery_epoch: u32::from_be_bytes(epoch) }))
}

fn read_checkpoint(disk: &dyn Disk, directory: &Path) -> Result<Checkpoint, Fault> {
    let copies = read_two_copies(disk, directory, CHECKPOINT_NAME, decode_checkpoint)?;
    Ok(copies.map_or(Checkpoint { version: 0, replay_from: ReplayFrom::default() }, |copies| Checkpoint {
        version: copies.version,
        replay_from: copies.value,
    }))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.state().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.state().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<RaftLogState<TypeConfig>, io::Error> {
        let state = self.state();
        Ok(RaftLogState { last_purged_log_id: state.last_purged, last_log_id: state.last_id() })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.state().vote = Some(*vote);
        self.write_durably(|done| Work::Write { records: vec![JournalRecord::Vote(*vote)], done }).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // An older value is safe, so it waits for the next flush.
        self.state().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.state().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        {
            let mut state = self.state();
            records.push(JournalRecord::Committed(state.committed));
            for entry in entries {
                let follows = state.last_id().map_or(0, |last| last.index + 1) == entry.log_id.index;
                assert!(follows || state.last_id().is_none(), "an append at {} leaves a hole", entry.log_id);
                records.push(JournalRecord::Entry(entry.clone()));
                state.entries.insert(entry.log_id.index, entry);
            }
        }
        self.send(Work::Write { records, done: Done::Append(callback) });
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.state().truncate_after(last);
        self.send(Work::Write { records: vec![JournalRecord::TruncateAfter(last)], done: Done::Nobody });
        Ok(())
    }

    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        self.state().purge(id);
        self.write_durably(|done| Work::Purge { record: JournalRecord::Purged(id), done }).await
    }
}
