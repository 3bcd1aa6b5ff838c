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
}

impl SyncJob {
    /// Syncs `.log` and `.sum` of each, and their names. The directory's own name is synced by
    /// [`sync_names`], once for all logs of a checkpoint.
    pub fn run(&self, access: &FileAccess) -> Result<(), Fault> {
        for name in &self.segments {
            let id = name.of(self.replica.partition);
            for file in [SegmentFile::Log, SegmentFile::Sums] {
                if let Some(open) = access.files().open_existing(access, id, file)? {
                    open.sync_data().map_err(|source| access.fault("fdatasync", &id.path(file), None, source))?;
                }
            }
        }
        let directory = directory_of(self.replica.partition);
        access
            .disk()
            .sync_dir(&access.path(&directory))
            .map_err(|source| access.fault("fsync directory", &directory, None, source))
    }
}

/// Makes the names of new replica directories durable; after the [`SyncJob`]s, before the checkpoint is written.
pub fn sync_names(access: &FileAccess) -> Result<(), Fault> {
    let root = std::path::Path::new("");
    access.disk().sync_dir(&access.path(root)).map_err(|source| access.fault("fsync directory", root, None, source))
}
