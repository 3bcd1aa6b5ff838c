//! Making segments durable before a checkpoint names them.

use super::{SegmentFile, SegmentName, directory_of};
use crate::job::FileAccess;
use crate::{Fault, ReplicaKey};

/// Makes the files of some segments of one log durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncJob {
    /// Whose.
    pub replica: ReplicaKey,
    /// The segments.
    pub segments: Vec<SegmentName>,
    /// A segment was made since the last sync, so the directory has a name that is not durable.
    pub new_names: bool,
}

impl SyncJob {
    /// Starts writing the segments to the device, without waiting: a hint, so that the syncs of many overlap.
    pub fn start(&self, access: &FileAccess) -> Result<(), Fault> {
        for name in &self.segments {
            let id = name.of(self.replica.partition);
            if let Some(log) = access.files().open_existing(access, id, SegmentFile::Log)? {
                log.start_writeback(0, WHOLE_FILE_BYTES);
            }
        }
        Ok(())
    }

    /// Writes the checksums that are pending, syncs `.log` and `.sum` of each, and the names that are new. The
    /// directory's own name is synced by [`sync_names`], once for all logs of a checkpoint. After a
    /// [`Fault::is_out_of_space`] no checkpoint may follow that the logs were not planned anew for, which names the same
    /// files again.
    pub fn run(&self, access: &FileAccess) -> Result<(), Fault> {
        let mut new_names = self.new_names;
        for name in &self.segments {
            let id = name.of(self.replica.partition);
            new_names |= access.pending_sums().write_out(access, id)?;
            if let Some(log) = access.files().open_existing(access, id, SegmentFile::Log)? {
                let path = id.path(SegmentFile::Log);
                log.sync_data().map_err(|source| access.fault("fdatasync", &path, None, source))?;
            }
        }
        if !new_names {
            return Ok(());
        }
        #[cfg(feature = "mutants")]
        if crate::mutants::Guard::SegmentNames.is_off() {
            return Ok(());
        }
        let directory = directory_of(self.replica.partition);
        access
            .disk()
            .sync_dir(&access.path(&directory))
            .map_err(|source| access.fault("fsync directory", &directory, None, source))
    }
}

/// More than any segment has.
const WHOLE_FILE_BYTES: u64 = 1 << 40;

/// Makes the names of new replica directories durable; after the [`SyncJob`]s, before the checkpoint is written.
pub fn sync_names(access: &FileAccess) -> Result<(), Fault> {
    let root = std::path::Path::new("");
    access.disk().sync_dir(&access.path(root)).map_err(|source| access.fault("fsync directory", root, None, source))
}
