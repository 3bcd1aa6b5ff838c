//! Opens a journal: makes what is there durable, replays it, and begins a new file with a new recovery epoch.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stonelog_protocol::Offset;

use super::commit::BLOCK_BYTES;
use super::file::{
    ChainEnd, FILE_HEADER_BYTES, FileHeader, LiveFile, file_name, is_file_name, number_in, put_into_use,
};
use super::flusher::{Durable, JournalFlusher};
use super::found::{FoundFile, judge};
use super::options::JournalOptions;
use super::reader::JournalReader;
use super::recycle::JournalMaintenance;
use super::scan::Scan;
use super::shared::Shared;
use super::spare::{PREPARING_SUFFIX, SPARES_WANTED, Spare, make_spare};
use super::writer::JournalWriter;
use super::{JournalEntry, JournalPosition};
use crate::disk::{Disk, Open};
use crate::{Fault, ReplicaKey};

/// Where replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReplayFrom {
    /// Entries of commits before this position are covered by a checkpoint and are not visited.
    pub position: JournalPosition,
    /// The checkpoint's recovery epoch; the new one is greater also when the journal itself is gone.
    pub recovery_epoch: u32,
}

/// An entry found in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedEntry {
    /// Its own place; rises from entry to entry and lies before its commit's end.
    pub position: JournalPosition,
    /// Where its commit begins.
    pub commit_position: JournalPosition,
    /// Its commit's sequence.
    pub sequence: u64,
    /// Where its batches lie, for [`JournalReader::read`].
    pub payload_position: JournalPosition,
    /// The entry. Its batches are a slice of a read buffer of some MiB: copy what is to be kept.
    pub entry: JournalEntry,
    /// It is an append whose batches fail their checksum: none are given. What its head says is intact.
    pub batches_damaged: bool,
}

/// How the journal that was found ended (rules 6 and 11). Neither: the chain is proved unbroken to its end.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RecoveryEnd {
    /// Commits that had been durable and are not whole, in order.
    pub damage: Vec<JournalDamage>,
    /// The last thing begun, which nothing shows to have been durable; dropped.
    pub torn_tail: Option<TornTail>,
}

impl RecoveryEnd {
    /// Whether some damage does not say whose entries it held.
    pub fn hurts_everyone(&self) -> bool {
        self.damage.iter().any(|damage| damage.hurt == Hurt::All)
    }

    /// Whether the chain is unbroken to its end.
    pub fn is_proved(&self) -> bool {
        self.damage.is_empty() && self.torn_tail.is_none()
    }
}

/// Commits that are lost although they were durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalDamage {
    /// Where the loss begins.
    pub position: JournalPosition,
    /// The file it begins in, and the byte there; `None` when no file holds that position.
    pub place: Option<(PathBuf, u64)>,
    /// Whose entries it held.
    pub hurt: Hurt,
}

/// The appends of one replica in a damaged commit: one range, since nothing lies between two appends of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HurtRange {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    /// Its first offset.
    pub start: Offset,
    /// The first offset behind it.
    pub end: Offset,
}

/// Whom damage concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hurt {
    /// What the commit's intact header names: the appends of each replica, in order.
    Ranges(Vec<HurtRange>),
    /// Nobody can say: every replica of the directory.
    All,
}

/// A commit that was being written when the power went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub path: PathBuf,
    /// Where it begins.
    pub position: JournalPosition,
    /// How far its remains, and those of commits behind it, reach.
    pub bytes: u64,
}

/// An open journal.
pub struct Recovered {
    /// Appends commits.
    pub writer: JournalWriter,
    /// Makes them durable.
    pub flusher: JournalFlusher,
    /// Reads entries in place.
    pub reader: Arc<JournalReader>,
    /// Prepares and recycles files.
    pub maintenance: JournalMaintenance,
    /// This start's epoch: greater than any before it in this directory, from 1.
    pub recovery_epoch: u32,
    /// How the journal that was found ended.
    pub ends: RecoveryEnd,
}

/// Opens the journal in `directory`, or makes a new one when there is none, visiting in order every entry at or after
/// `replay_from`. One process at a time: the caller holds the directory's lock.
///
/// What is visited is durable: each file is synced and then read past the page cache (rule 7). Entries of a damaged
/// commit whose header is intact are visited too, appends without their batches; of damage that hurts everyone the
/// caller learns when this returns, before anything is published. Out of space for the new file is reported as such.
pub fn recover(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    options: JournalOptions,
    replay_from: ReplayFrom,
    visit: &mut dyn FnMut(ReplayedEntry),
) -> Result<Recovered, Fault> {
    options.assert_legal();
    make_directory(&**disk, directory)?;
    let mut found = Found::list(&**disk, directory)?;
    found.sort_out(&options, replay_from);
    for path in &found.surplus {
        disk.remove_file(path).map_err(|e| Fault::io("remove", path, e))?;
    }
    let (chain, mut ends) = Scan::run(&found.files, replay_from, visit)?;
    for path in &found.damaged {
        tracing::error!(path = %path.display(), "a journal file's header and first commit are damaged");
        let place = Some((path.clone(), 0));
        ends.damage.push(JournalDamage { position: chain.end, place, hurt: Hurt::All });
    }
    let current = Arc::new(begin_file(&**disk, directory, &options, replay_from, &mut found, chain)?);
    let recovery_epoch = current.header.recovery_epoch;
    let mut live = BTreeMap::new();
    for file in found.files {
        if file.header.end() > replay_from.position {
            live.insert(file.header.base.0, Arc::new(file));
        }
    }
    live.insert(current.header.base.0, current.clone());
    let begins = JournalPosition(current.header.base.0 + FILE_HEADER_BYTES);
    let durable = Durable { sequence: chain.sequence, position: begins };
    let shared = Shared::new(disk.clone(), directory.to_owned(), options, live, found.spares, durable);
    shared.state().last_file_number = found.number_max;
    if !found.damaged.is_empty() {
        shared.state().damaged = Some((begins, found.damaged));
    }
    let shared = Arc::new(shared);
    let writer = JournalWriter {
        shared: shared.clone(),
        current,
        offset: FILE_HEADER_BYTES,
        last: chain,
        last_entries_sequence: chain.sequence,
        named_sequence: chain.sequence,
        header: Vec::new(),
        plan: Vec::new(),
    };
    Ok(Recovered {
        writer,
        flusher: JournalFlusher { shared: shared.clone() },
        reader: Arc::new(JournalReader { shared: shared.clone() }),
        maintenance: JournalMaintenance { shared },
        recovery_epoch,
        ends,
    })
}

fn make_directory(disk: &dyn Disk, directory: &Path) -> Result<(), Fault> {
    if disk.exists(directory).map_err(|e| Fault::io("stat", directory, e))? {
        return Ok(());
    }
    disk.create_dir(directory).map_err(|e| Fault::io("create", directory, e))?;
    match directory.parent() {
        Some(parent) => disk.sync_dir(parent).map_err(|e| Fault::io("fsync", parent, e)),
        None => Ok(()),
    }
}

/// The files of a journal, by what their headers say.
#[derive(Default)]
struct Found {
    /// With an intact header, in the order of their generations.
    files: Vec<LiveFile>,
    spares: Vec<Spare>,
    damaged: Vec<PathBuf>,
    /// Covered or never finished; to be removed.
    surplus: Vec<PathBuf>,
    generation_max: u64,
    recovery_epoch_max: u32,
    end_max: JournalPosition,
    number_max: u64,
}

impl Found {
    fn list(disk: &dyn Disk, directory: &Path) -> Result<Found, Fault> {
        let mut found = Found::default();
        let mut entries = disk.list(directory).map_err(|e| Fault::io("list", directory, e))?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries.iter().filter(|entry| !entry.is_dir) {
            let path = directory.join(&entry.name);
            found.number_max = found.number_max.max(number_in(&entry.name).unwrap_or(0));
            if entry.name.ends_with(PREPARING_SUFFIX) {
                found.surplus.push(path);
            } else if is_file_name(&entry.name) {
                found.add(disk, path)?;
            }
        }
        disk.sync_dir(directory).map_err(|e| Fault::io("fsync", directory, e))?;
        found.files.sort_by_key(|file| file.header.generation);
        Ok(found)
    }

    fn add(&mut self, disk: &dyn Disk, path: PathBuf) -> Result<(), Fault> {
        let file = disk.open(&path, Open::ReadWrite).map_err(|e| Fault::io("open", &path, e))?;
        file.sync_data().map_err(|e| Fault::io("fdatasync", &path, e))?;
        match judge(&*file, &path)? {
            FoundFile::Used(header) => {
                self.generation_max = self.generation_max.max(header.generation);
                self.recovery_epoch_max = self.recovery_epoch_max.max(header.recovery_epoch);
                self.end_max = self.end_max.max(header.end());
                self.files.push(LiveFile { file, path, header });
            }
            FoundFile::Unused => {
                let len = file.len().map_err(|e| Fault::io("stat", &path, e))?;
                self.spares.push(Spare { file, path, len });
            }
            FoundFile::Damaged => self.damaged.push(path),
        }
        Ok(())
    }

    /// Takes the covered files out of the walk; the newest file stays in it, since it knows the last sequence.
    fn sort_out(&mut self, options: &JournalOptions, replay_from: ReplayFrom) {
        let newest = self.generation_max;
        let is_walked = |file: &LiveFile| file.header.end() > replay_from.position || file.header.generation == newest;
        let (walked, covered) = std::mem::take(&mut self.files).into_iter().partition(is_walked);
        self.files = walked;
        let covered: Vec<LiveFile> = covered;
        self.spares.extend(covered.into_iter().map(|live| Spare {
            len: live.header.len,
            file: live.file,
            path: live.path,
        }));
        // As many as a running journal keeps, and one for the new file.
        let mut held: u64 = self.files.iter().map(|file| file.header.len).sum();
        let mut kept = Vec::new();
        for spare in self.spares.drain(..) {
            let fits = held + spare.len <= options.bytes_max || kept.len() <= SPARES_WANTED;
            if spare.len == options.file_bytes && fits {
                held += spare.len;
                kept.push(spare);
            } else {
                self.surplus.push(spare.path);
            }
        }
        self.spares = kept;
    }
}

/// Begins the file of this recovery: whatever it names as written before it is durable.
fn begin_file(
    disk: &dyn Disk,
    directory: &Path,
    options: &JournalOptions,
    replay_from: ReplayFrom,
    found: &mut Found,
    chain: ChainEnd,
) -> Result<LiveFile, Fault> {
    let spare = match found.spares.pop() {
        Some(spare) => spare,
        None => {
            found.number_max += 1;
            make_spare(disk, directory, &file_name(found.number_max), options.first_file_bytes, &mut || ())?
        }
    };
    let base = found.end_max.max(replay_from.position).0.next_multiple_of(BLOCK_BYTES);
    let recovery_epoch = found.recovery_epoch_max.max(replay_from.recovery_epoch).checked_add(1).ok_or_else(|| {
        let exhausted = io::Error::new(io::ErrorKind::InvalidData, "recovery epochs are used up");
        Fault::io("recover", directory, exhausted)
    })?;
    let header = FileHeader {
        generation: found.generation_max + 1,
        recovery_epoch,
        base: JournalPosition(base),
        len: spare.len,
        previous: chain,
        durable_sequence: chain.sequence,
    };
    put_into_use(spare.file, spare.path, header)
}
