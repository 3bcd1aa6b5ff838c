//! Journal files that are ready but not in use: written once with zeroes, or recycled.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Fault;
use crate::disk::{Disk, DiskFile, Open};

/// Spares made ahead of need: one for the writer's next file and one for the next recovery (rule 8), which must find
/// room on a full disk. The writer leaves the last one alone. Files that a checkpoint frees are spares too, as many as
/// the journal's limit allows.
pub(super) const SPARES_WANTED: usize = 2;

/// Zeroes per write while a file is prepared.
const ZEROES_PER_WRITE: usize = 1 << 20;

/// Ends the name of a file that is still being prepared; recovery removes those.
pub(super) const PREPARING_SUFFIX: &str = ".new";

/// A file ready to be put into use.
pub(super) struct Spare {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) len: u64,
}

/// Makes a file of `len` zeroes, durable under its name. Running out of space is reported as a failed `allocate`,
/// wherever it happens, and leaves nothing behind. `goes_on` is called after each part.
pub(super) fn make_spare(
    disk: &dyn Disk,
    directory: &Path,
    name: &str,
    len: u64,
    goes_on: &mut dyn FnMut(),
) -> Result<Spare, Fault> {
    let path = directory.join(name);
    let preparing = directory.join(format!("{name}{PREPARING_SUFFIX}"));
    let file = disk.open(&preparing, Open::CreateNew).map_err(|e| allocate_or("create", &preparing, e))?;
    let filled = fill(&*file, &preparing, len, goes_on).and_then(|()| {
        disk.rename(&preparing, &path).map_err(|e| allocate_or("rename", &preparing, e))?;
        disk.sync_dir(directory).map_err(|e| Fault::io("fsync", directory, e))
    });
    match filled {
        Ok(()) => Ok(Spare { file, path, len }),
        Err(fault) => {
            if fault.is_out_of_space() {
                disk.remove_file(&preparing).map_err(|e| Fault::io("remove", &preparing, e))?;
            }
            Err(fault)
        }
    }
}

fn fill(file: &dyn DiskFile, path: &Path, len: u64, goes_on: &mut dyn FnMut()) -> Result<(), Fault> {
    file.allocate(0, len).map_err(|e| Fault::io("allocate", path, e))?;
    let zeroes = vec![0; ZEROES_PER_WRITE.min(len as usize)];
    let mut position = 0;
    while position < len {
        let bytes = (len - position).min(zeroes.len() as u64);
        file.write_at(position, &[IoSlice::new(&zeroes[..bytes as usize])])
            .map_err(|e| allocate_or("write", path, e))?;
        file.start_writeback(position, bytes);
        position += bytes;
        goes_on();
    }
    // Where nothing can be reserved it is only now that space runs out. The file is thrown away, not synced again.
    file.sync_data().map_err(|e| allocate_or("fdatasync", path, e))
}

/// Names a failure for lack of space an allocation: nothing is stored in a file that is only being prepared.
fn allocate_or(operation: &'static str, path: &Path, error: io::Error) -> Fault {
    let space = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    Fault::io(if space { "allocate" } else { operation }, path, error)
}
