//! What jobs run over: the files of one log directory.
//!
//! Jobs are values that a [`crate::log::Log`] plans on its lane; the journal thread, the segment writers and the read
//! pool run them with `job.run(&access)`, and pass what they return back to the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::Fault;
use crate::disk::Disk;
use crate::journal::{JournalPosition, JournalReader};
use crate::segment::SegmentId;
use crate::segment::file_cache::{FileCache, OPEN_FILES_COUNT};
use crate::segment::pending_sums::PendingSums;

/// The files of one log directory, for the threads that run jobs.
pub struct FileAccess {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    files: FileCache,
    pending_sums: PendingSums,
    /// Missing only while recovery replays, when nothing is read from the journal in place.
    journal: Option<Arc<JournalReader>>,
}

impl FileAccess {
    /// Access to the log directory `root`, whose recovered journal `journal` reads.
    pub fn new(disk: Arc<dyn Disk>, root: PathBuf, files: FileCache, journal: Arc<JournalReader>) -> FileAccess {
        FileAccess { disk, root, files, pending_sums: PendingSums::default(), journal: Some(journal) }
    }

    /// Access to segments only, for recovery.
    pub(crate) fn without_journal(disk: Arc<dyn Disk>, root: PathBuf) -> FileAccess {
        let files = FileCache::new(OPEN_FILES_COUNT, 0);
        FileAccess { disk, root, files, pending_sums: PendingSums::default(), journal: None }
    }

    /// The disk.
    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// The open segment files.
    pub fn files(&self) -> &FileCache {
        &self.files
    }

    /// Block checksums on their way to their files.
    pub(crate) fn pending_sums(&self) -> &PendingSums {
        &self.pending_sums
    }

    /// Whether checksums of a segment are on their way to its `.sum` file, so that the file alone does not tell.
    pub fn has_pending_sums(&self, id: SegmentId) -> bool {
        self.pending_sums.has(id)
    }

    /// The full path of a file or directory in the log directory.
    pub fn path(&self, relative: &Path) -> PathBuf {
        self.root.join(relative)
    }

    /// Batches that are only in the journal.
    pub fn read_journal(&self, position: JournalPosition, len: u32) -> Result<Bytes, Fault> {
        let journal = self.journal.as_ref().expect("recovery is over before anything is read in place");
        journal.read(position, len as usize)
    }

    /// A failed operation on a file of the log directory.
    pub(crate) fn fault(
        &self,
        operation: &'static str,
        relative: &Path,
        position: Option<u64>,
        source: io::Error,
    ) -> Fault {
        Fault::Io { operation, path: self.path(relative), position, source }
    }
}
