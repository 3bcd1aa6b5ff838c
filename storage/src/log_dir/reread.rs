//! Reading a directory that has failed once more, all of it, from the device: what puts it back into use (rule 8).
//!
//! After a failed fsync the page cache may show bytes that the device never took. So each file is synced, dropped from
//! the cache and read past it. What is read is not judged here: the next start's recovery does that for the journal,
//! each read and the scrub for segments. What counts is that the device gives every byte, and takes new ones.

use std::path::{Path, PathBuf};

use super::LogDir;
use crate::Fault;
use crate::disk::aligned::AlignedBuffer;
use crate::disk::{Disk, Open, probe_fsync};

/// Bytes per read.
const CHUNK_BYTES: usize = 1 << 20;

/// Directories in directories are followed this deep: replicas' and the journals' lie right in the log directory.
const DEPTH_MAX: usize = 4;

/// What was read, for whoever shows progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reread {
    /// Files read to their end.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl LogDir {
    /// Reads every file from the device and writes one anew; the first failure ends it. `progress` hears of the amount
    /// from time to time.
    pub fn reread(&self, progress: &mut dyn FnMut(Reread)) -> Result<Reread, Fault> {
        let mut done = Reread::default();
        let mut buffer = AlignedBuffer::zeroed(CHUNK_BYTES);
        reread_in(&*self.disk, &self.path, 0, &mut buffer, &mut done, progress)?;
        probe_fsync(&*self.disk, &self.path, |write_durably| write_durably())
            .map_err(|source| Fault::io("write and fsync a scratch file in", &self.path, source))?;
        Ok(done)
    }
}

fn reread_in(
    disk: &dyn Disk,
    directory: &Path,
    depth: usize,
    buffer: &mut AlignedBuffer,
    done: &mut Reread,
    progress: &mut dyn FnMut(Reread),
) -> Result<(), Fault> {
    disk.sync_dir(directory).map_err(|source| Fault::io("fsync directory", directory, source))?;
    let mut entries = disk.list(directory).map_err(|source| Fault::io("list", directory, source))?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in entries {
        let path = directory.join(&entry.name);
        match entry.is_dir {
            true if depth < DEPTH_MAX => reread_in(disk, &path, depth + 1, buffer, done, progress)?,
            true => {}
            false => reread_file(disk, path, buffer, done, progress)?,
        }
    }
    Ok(())
}

fn reread_file(
    disk: &dyn Disk,
    path: PathBuf,
    buffer: &mut AlignedBuffer,
    done: &mut Reread,
    progress: &mut dyn FnMut(Reread),
) -> Result<(), Fault> {
    let file = disk.open(&path, Open::Read).map_err(|source| Fault::io("open", &path, source))?;
    file.sync_data().map_err(|source| Fault::io("fdatasync", &path, source))?;
    file.drop_cache();
    let mut position = 0;
    loop {
        let read = file.read_device_at(position, buffer);
        let read = read.map_err(|source| Fault::io_at("read from the device", &path, position, source))?;
        position += read as u64;
        done.bytes += read as u64;
        progress(*done);
        if read < buffer.len() {
            break;
        }
    }
    done.files += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stonelog_protocol::{BrokerId, ClusterId, Uuid};

    use super::*;
    use crate::disk::{SimDisk, SimFault, SimOperation};
    use crate::log_dir::{MetaProperties, mark_offline, offline_reason};
    use crate::small_file::write_small_file;

    fn formatted(disk: &SimDisk) -> LogDir {
        let (directory, _) = LogDir::open(Arc::new(disk.clone()), Path::new("/d")).unwrap();
        let meta = MetaProperties {
            cluster_id: ClusterId("c".into()),
            node_id: BrokerId(1),
            directory_id: Uuid([1; 16]),
            broker_epoch: None,
            follows_epoch: None,
            metadata_index: None,
        };
        directory.format(&meta).unwrap();
        directory
    }

    #[test]
    fn every_file_is_read_from_the_device_in_whatever_directory_it_lies() {
        let disk = SimDisk::new();
        let directory = formatted(&disk);
        disk.create_dir(Path::new("/d/journal")).unwrap();
        write_small_file(&disk, Path::new("/d/journal"), "1.journal", &vec![7; CHUNK_BYTES + 5]).unwrap();
        let before = directory.reread(&mut |_| {}).unwrap();
        assert!(before.bytes > CHUNK_BYTES as u64 + 5 && before.files >= 4, "{before:?}");
        disk.fail(SimOperation::ReadDevice, "/d/journal/1.journal", 1, SimFault::InputOutput);
        let fault = directory.reread(&mut |_| {}).unwrap_err();
        assert!(fault.is_device_failure() && fault.to_string().contains("at byte 1048576"), "{fault}");
    }

    #[test]
    fn a_device_that_takes_nothing_stays_offline() {
        let disk = SimDisk::new();
        let directory = formatted(&disk);
        mark_offline(&disk, Path::new("/d"), "fdatasync: EIO").unwrap();
        disk.fail(SimOperation::SyncData, ".probe.tmp", 0, SimFault::InputOutput);
        assert!(directory.reread(&mut |_| {}).is_err());
        assert!(offline_reason(&disk, Path::new("/d")).unwrap().is_some());
        directory.reread(&mut |_| {}).unwrap();
        directory.settle_failure().unwrap();
        assert_eq!(offline_reason(&disk, Path::new("/d")).unwrap(), None);
    }
}
