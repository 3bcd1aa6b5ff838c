//! Removing segment files that no checkpoint names any more.

use std::io;

use stonelog_protocol::TopicPartition;

use super::{SegmentFile, SegmentName, directory_of};
use crate::Fault;
use crate::job::FileAccess;

/// Removes the files of some segments of one log. Readers that have one open go on reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteJob {
    /// Whose.
    pub partition: TopicPartition,
    /// The segments.
    pub segments: Vec<SegmentName>,
}

impl DeleteJob {
    /// Renames each `.log` to `.log.deleted`, then removes the files, that one last: a reader that misses one of them
    /// finds the `.log` gone too, and a crash in between leaves files that nothing believes. What is gone already is
    /// passed over.
    pub fn run(&self, access: &FileAccess) -> Result<(), Fault> {
        for name in &self.segments {
            let id = name.of(self.partition);
            let log = id.path(SegmentFile::Log);
            let mut deleted = log.clone();
            deleted.set_extension("log.deleted");
            match access.disk().rename(&access.path(&log), &access.path(&deleted)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(|source| access.fault("rename", &log, None, source))?,
            }
            access.files().forget(id);
            access.pending_sums().forget(id);
            for file in [SegmentFile::Index, SegmentFile::Sums] {
                remove(access, &id.path(file))?;
            }
            remove(access, &deleted)?;
        }
        Ok(())
    }
}

/// Removes a dropped log's directory with all that is in it. Only after a checkpoint without the log is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteLogJob {
    /// Whose.
    pub partition: TopicPartition,
}

impl DeleteLogJob {
    /// Removes the files, then the directory, which may never have been made. A directory in it is somebody else's: it
    /// stays, and so does what it lies in.
    pub fn run(&self, access: &FileAccess) -> Result<(), Fault> {
        let directory = directory_of(self.partition);
        access.files().forget_all(self.partition);
        access.pending_sums().forget_all(self.partition);
        // A second time for what a reader that came late has left, an index.
        for _ in 0..2 {
            let entries = match access.disk().list(&access.path(&directory)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(source) => return Err(access.fault("list", &directory, None, source)),
            };
            for entry in entries.iter().filter(|entry| !entry.is_dir) {
                remove(access, &directory.join(&entry.name))?;
            }
            match access.disk().remove_dir(&access.path(&directory)) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                result => return result.map_err(|source| access.fault("rmdir", &directory, None, source)),
            }
        }
        // Somebody else's: not ours to remove, and no fault of the device.
        tracing::warn!(
            "{} holds something that is not Stonelog's and stays; its log was deleted",
            access.path(&directory).display()
        );
        Ok(())
    }
}

fn remove(access: &FileAccess, path: &std::path::Path) -> Result<(), Fault> {
    match access.disk().remove_file(&access.path(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| access.fault("unlink", path, None, source)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use stonelog_protocol::{PartitionIndex, Uuid};

    use super::*;
    use crate::disk::{Disk, Open, SimDisk};

    #[test]
    fn a_strangers_directory_among_the_segments_stays_and_is_no_fault() {
        let disk = SimDisk::new();
        let partition = TopicPartition { topic_id: Uuid([3; 16]), partition: PartitionIndex(0) };
        let directory = Path::new("/").join(directory_of(partition));
        disk.create_dir(&directory).unwrap();
        disk.create_dir(&directory.join("lost+found")).unwrap();
        disk.open(&directory.join("00000000000000000000.log"), Open::CreateNew).unwrap();
        let access = FileAccess::without_journal(Arc::new(disk.clone()), "/".into());
        DeleteLogJob { partition }.run(&access).unwrap();
        let left: Vec<_> = disk.list(&directory).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(left, ["lost+found"]);
        disk.remove_dir(&directory.join("lost+found")).unwrap();
        DeleteLogJob { partition }.run(&access).unwrap();
        assert!(!disk.exists(&directory).unwrap());
    }
}
