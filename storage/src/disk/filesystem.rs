//! What the start-up banner says about the file system under a log directory.

use std::io::{self, IoSlice};
use std::path::Path;

use super::{Disk, Open};

/// The kind of file system a path lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its usual name (`ext4`, `xfs`, `tmpfs`, …), or its magic number in hexadecimal.
    pub kind: String,
    /// Whether it forgets everything when the power goes: tmpfs, ramfs, or an overlay, which may lie on one.
    pub volatile: bool,
}

/// Asks the operating system. An overlay's upper directory cannot be seen from here, so each counts as volatile.
pub fn filesystem_of(path: &Path) -> io::Result<FileSystem> {
    let magic = rustix::fs::statfs(path)?.f_type as u32;
    let known = match magic {
        0x0000_ef53 => Some(("ext4", false)),
        0x5846_5342 => Some(("xfs", false)),
        0x9123_683e => Some(("btrfs", false)),
        0x2fc1_2fc1 => Some(("zfs", false)),
        0xf2f5_2010 => Some(("f2fs", false)),
        0x0000_6969 => Some(("nfs", false)),
        0x6573_5546 => Some(("fuse", false)),
        0xca45_1a4e => Some(("bcachefs", false)),
        0x0102_1994 => Some(("tmpfs", true)),
        0x8584_58f6 => Some(("ramfs", true)),
        0x794c_7630 => Some(("overlay", true)),
        _ => None,
    };
    Ok(match known {
        Some((kind, volatile)) => FileSystem { kind: kind.to_owned(), volatile },
        None => FileSystem { kind: format!("0x{magic:x}"), volatile: false },
    })
}

/// Writes 4 KiB into a scratch file of the directory, runs `measured` around making it durable once over already
/// written space, and removes the file. The caller reads its clock inside `measured`.
pub fn probe_fsync(
    disk: &dyn Disk,
    directory: &Path,
    measured: impl FnOnce(&dyn Fn() -> io::Result<()>) -> io::Result<()>,
) -> io::Result<()> {
    const PROBE_NAME: &str = ".probe.tmp";
    let path = directory.join(PROBE_NAME);
    if disk.exists(&path)? {
        disk.remove_file(&path)?;
    }
    let file = disk.open(&path, Open::CreateNew)?;
    let block = [0x5a; 4096];
    let write_durably = || {
        file.write_at(0, &[IoSlice::new(&block)])?;
        file.sync_data()
    };
    let outcome = write_durably().and_then(|()| measured(&write_durably));
    disk.remove_file(&path)?;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn kernel_memory_file_systems_are_volatile() {
        if let Ok(shm) = filesystem_of(Path::new("/dev/shm")) {
            assert_eq!(shm.volatile, shm.kind == "tmpfs" || shm.kind == "overlay");
        }
        assert!(filesystem_of(Path::new("/no/such/path")).is_err());
    }

    #[test]
    fn the_probe_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let mut ran = false;
        probe_fsync(&RealDisk, directory.path(), |write_durably| {
            ran = true;
            write_durably()
        })
        .unwrap();
        assert!(ran);
        assert_eq!(RealDisk.list(directory.path()).unwrap(), []);
    }
}
