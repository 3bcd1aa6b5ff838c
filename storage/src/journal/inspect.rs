//! Reads a journal without opening it: nothing is synced, removed, repaired or begun. For tools.
//!
//! The walk is recovery's own ([`super::scan`]), so that a check says what a start would.

use std::path::{Path, PathBuf};

use super::JournalPosition;
use super::file::{FILE_HEADER_BYTES, HeaderCopy, LiveFile, header_copies, is_file_name};
use super::found::{FoundFile, judge};
use super::recover::{RecoveryEnd, ReplayFrom, ReplayedEntry};
use super::scan::Scan;
use super::spare::PREPARING_SUFFIX;
use crate::Fault;
use crate::disk::{Disk, Open};

/// What one file of a journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalFileState {
    /// In use: a start walks it.
    Live,
    /// Everything in it lies before what the checkpoint covers.
    Covered,
    /// Zeroes, never used.
    Spare,
    /// Being zero-written; the next start removes it.
    Preparing,
    /// Neither copy of its header is intact, and its first commit does not tell them.
    Damaged,
}

/// The header of a journal file that was put into use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalFileHeader {
    /// Raised by one with each file put into use.
    pub generation: u64,
    /// The start that put it into use.
    pub recovery_epoch: u32,
    /// The journal position of its first byte.
    pub base: JournalPosition,
    /// Its length in bytes.
    pub len: u64,
    /// Sequence of the last commit before it.
    pub previous_sequence: u64,
    /// Checksum of that commit.
    pub previous_checksum: u32,
    /// Where that commit ends.
    pub previous_end: JournalPosition,
    /// Newest sequence known to be durable when it was put into use.
    pub durable_sequence: u64,
    /// How many of the two copies of this header are damaged; with both, the file's first commit tells it.
    pub copies_damaged: usize,
}

/// One file of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// What it is.
    pub state: JournalFileState,
    /// Its header, where one is intact.
    pub header: Option<JournalFileHeader>,
}

/// A journal as a start would find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// All files; those in use in the order of their generations, then the others by name.
    pub files: Vec<JournalFile>,
    /// Sequence of the last whole commit; 0 for none.
    pub sequence: u64,
    /// Where that commit ends.
    pub end: JournalPosition,
    /// How the journal ends.
    pub ends: RecoveryEnd,
}

/// Walks the journal in `directory` as a start with `replay_from` would. A directory that does not exist holds none.
pub fn inspect(
    disk: &dyn Disk,
    directory: &Path,
    replay_from: ReplayFrom,
    visit: &mut dyn FnMut(ReplayedEntry),
) -> Result<Inspection, Fault> {
    let mut live = Vec::new();
    let mut others = Vec::new();
    if disk.exists(directory).map_err(|e| Fault::io("stat", directory, e))? {
        let mut entries = disk.list(directory).map_err(|e| Fault::io("list", directory, e))?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries.iter().filter(|entry| !entry.is_dir) {
            let path = directory.join(&entry.name);
            let other = |state| JournalFile { path: path.clone(), bytes: entry.len, state, header: None };
            if entry.name.ends_with(PREPARING_SUFFIX) {
                others.push(other(JournalFileState::Preparing));
            } else if is_file_name(&entry.name) {
                let file = disk.open(&path, Open::Read).map_err(|e| Fault::io("open", &path, e))?;
                match judge(&*file, &path)? {
                    FoundFile::Used(header) => live.push(LiveFile { file, path, header }),
                    FoundFile::Unused => others.push(other(JournalFileState::Spare)),
                    FoundFile::Damaged => others.push(other(JournalFileState::Damaged)),
                }
            }
        }
    }
    live.sort_by_key(|file| file.header.generation);
    let newest = live.last().map(|file| file.header.generation);
    let is_walked =
        |file: &LiveFile| file.header.end() > replay_from.position || Some(file.header.generation) == newest;
    let (walked, covered): (Vec<LiveFile>, Vec<LiveFile>) = live.into_iter().partition(is_walked);
    let (chain, ends) = Scan::run(&walked, replay_from, visit)?;
    let mut files = Vec::with_capacity(walked.len() + covered.len() + others.len());
    for (found, state) in [(&walked, JournalFileState::Live), (&covered, JournalFileState::Covered)] {
        for file in found {
            files.push(described(file, state)?);
        }
    }
    files.append(&mut others);
    Ok(Inspection { files, sequence: chain.sequence, end: chain.end, ends })
}

/// Walks one journal file by itself, from its first commit; also one that is covered by now.
pub fn inspect_file(disk: &dyn Disk, path: &Path, visit: &mut dyn FnMut(ReplayedEntry)) -> Result<Inspection, Fault> {
    let file = disk.open(path, Open::Read).map_err(|e| Fault::io("open", path, e))?;
    let bytes = file.len().map_err(|e| Fault::io("stat", path, e))?;
    let nothing = |state| Inspection {
        files: vec![JournalFile { path: path.to_owned(), bytes, state, header: None }],
        sequence: 0,
        end: JournalPosition::default(),
        ends: RecoveryEnd::default(),
    };
    match judge(&*file, path)? {
        FoundFile::Unused => Ok(nothing(JournalFileState::Spare)),
        FoundFile::Damaged => Ok(nothing(JournalFileState::Damaged)),
        FoundFile::Used(header) => {
            let live = [LiveFile { file, path: path.to_owned(), header }];
            let begins = JournalPosition(header.base.0 + FILE_HEADER_BYTES);
            let from = ReplayFrom { position: begins, recovery_epoch: header.recovery_epoch };
            let (chain, ends) = Scan::run(&live, from, visit)?;
            let files = vec![described(&live[0], JournalFileState::Live)?];
            Ok(Inspection { files, sequence: chain.sequence, end: chain.end, ends })
        }
    }
}

fn described(live: &LiveFile, state: JournalFileState) -> Result<JournalFile, Fault> {
    let header = &live.header;
    let copies = header_copies(&*live.file, &live.path)?;
    let is_used = copies.iter().any(|copy| matches!(copy, HeaderCopy::Intact(_)));
    // One that was never written is of a header that the power interrupted, unless there is no other.
    let is_damaged = |copy: &&HeaderCopy| match copy {
        HeaderCopy::Intact(_) => false,
        HeaderCopy::Blank => !is_used,
        HeaderCopy::OfOtherLength | HeaderCopy::Damaged => true,
    };
    let copies_damaged = copies.iter().filter(is_damaged).count();
    let described = JournalFileHeader {
        generation: header.generation,
        recovery_epoch: header.recovery_epoch,
        base: header.base,
        len: header.len,
        previous_sequence: header.previous.sequence,
        previous_checksum: header.previous.checksum,
        previous_end: header.previous.end,
        durable_sequence: header.durable_sequence,
        copies_damaged,
    };
    Ok(JournalFile { path: live.path.clone(), bytes: header.len, state, header: Some(described) })
}
