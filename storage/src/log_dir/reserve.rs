//! Space held back for the time when there is none: an allocated file that is given up so that a checkpoint finds room,
//! without which nothing that retention wants gone could go.

use std::io;
use std::path::Path;

use crate::Fault;
use crate::disk::{Disk, Open};

/// The reserve's name.
pub const RESERVE_NAME: &str = ".stonelog_reserve";
/// Its size: two checkpoints of some ten thousand replicas, and small files.
pub const RESERVE_BYTES: u64 = 16 << 20;

/// What [`probe_space`] tries to allocate.
const PROBE_BYTES: u64 = 1 << 20;
const PROBE_NAME: &str = ".stonelog_probe.tmp";

/// Whether the reserve is there. A directory that cannot be asked has none.
pub fn has_reserve(disk: &dyn Disk, directory: &Path) -> bool {
    disk.exists(&directory.join(RESERVE_NAME)).unwrap_or(false)
}

/// Sets space aside; nothing is left behind when there is none.
pub fn make_reserve(disk: &dyn Disk, directory: &Path) -> Result<(), Fault> {
    allocate(disk, &directory.join(RESERVE_NAME), RESERVE_BYTES)
}

/// Gives the space up.
pub fn release_reserve(disk: &dyn Disk, directory: &Path) -> Result<(), Fault> {
    remove(disk, &directory.join(RESERVE_NAME))
}

/// Whether something can be allocated at all: free space alone does not say so where there are quotas.
pub fn probe_space(disk: &dyn Disk, directory: &Path) -> Result<(), Fault> {
    let path = directory.join(PROBE_NAME);
    remove(disk, &path)?;
    allocate(disk, &path, PROBE_BYTES)?;
    remove(disk, &path)
}

fn allocate(disk: &dyn Disk, path: &Path, bytes: u64) -> Result<(), Fault> {
    let file = disk.open(path, Open::CreateNew).map_err(|e| Fault::io("allocate", path, e))?;
    let allocated = file.allocate(0, bytes).map_err(|e| Fault::io("allocate", path, e));
    if allocated.is_err() {
        remove(disk, path)?;
    }
    allocated
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<(), Fault> {
    match disk.remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Fault::io("remove", path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;

    #[test]
    fn the_reserve_is_room_that_comes_back_when_it_is_given_up() {
        let (disk, root) = (SimDisk::new(), Path::new("/"));
        disk.set_capacity(Some(RESERVE_BYTES + PROBE_BYTES / 2));
        assert!(!has_reserve(&disk, root));
        make_reserve(&disk, root).unwrap();
        assert!(has_reserve(&disk, root));
        assert!(probe_space(&disk, root).unwrap_err().is_out_of_space());
        release_reserve(&disk, root).unwrap();
        probe_space(&disk, root).unwrap();
        disk.set_capacity(Some(PROBE_BYTES));
        assert!(make_reserve(&disk, root).unwrap_err().is_out_of_space());
        assert!(!has_reserve(&disk, root), "nothing is left behind");
    }
}
