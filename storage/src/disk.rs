//! The seam to the disk: everything this crate does to files goes through [`Disk`] and [`DiskFile`].
//!
//! One conformance suite runs on every implementation. The trait promises nothing that POSIX does not: written bytes
//! are durable only after [`DiskFile::sync_data`] returned, a new or renamed name only after [`Disk::sync_dir`].

pub mod aligned;
mod descriptors;
pub mod filesystem;
pub mod real;
pub mod sim;
mod writeback;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use descriptors::raise_descriptor_limit;
pub use filesystem::{FileSystem, filesystem_of, probe_fsync};
pub use real::RealDisk;
pub use sim::{SimDisk, SimFault, SimImage, SimOperation, Survival, Tearing};

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A file that must not exist yet, for reading and writing.
    CreateNew,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without its directory.
    pub name: String,
    /// Whether it is itself a directory.
    pub is_dir: bool,
    /// Length in bytes (0 for directories).
    pub len: u64,
}

/// How much room a file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What this process may still use; a quota may allow less.
    pub usable_bytes: u64,
}

/// Held while a directory is in use; dropping it releases the lock.
pub trait DirLock: Send + Sync {}

/// A file system.
pub trait Disk: Send + Sync + 'static {
    /// Opens one file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a directory; its parent exists. Not durable before the parent's [`Disk::sync_dir`].
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Whether a file or directory of that name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Renames a file or directory, replacing a file of the new name. Not durable before [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Not durable before [`Disk::sync_dir`].
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// How much room there is where a directory lies.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Locks a directory against other processes by a lock file in it; `WouldBlock` when another holds it.
    fn lock_dir(&self, path: &Path) -> io::Result<Box<dyn DirLock>>;
}

/// An open file. Positions are explicit, so one file serves several threads.
#[expect(clippy::len_without_is_empty, reason = "a length is asked for, emptiness never is")]
pub trait DiskFile: Send + Sync {
    /// Writes all the slices one after the other from `position`; an error may have written some.
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()>;
    /// Fills the buffer from `position`; fewer bytes only at the end of the file.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Fills the whole buffer from `position` if that needs no wait for the device; `WouldBlock` if it does, if the file
    /// ends before, or if the file system cannot tell. Whoever gets it reads with [`DiskFile::read_at`], where waiting
    /// hurts nobody.
    fn read_now_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Like [`DiskFile::read_at`], but from the device, not from the page cache: what a power cut would leave.
    /// Where the file system has no direct reads: sync, drop the cache, read.
    fn read_device_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Reserves space so that later writes in the range cannot run out of it.
    fn allocate(&self, position: u64, len: u64) -> io::Result<()>;
    /// Reserves space behind the end without moving it: writes in the range cannot run out of space. Nothing happens
    /// where the file system cannot.
    fn reserve(&self, position: u64, len: u64) -> io::Result<()>;
    /// Makes written bytes and the length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Starts writing dirty bytes of the range to the device without waiting; a hint.
    fn start_writeback(&self, position: u64, len: u64);
    /// Forgets what the page cache holds of the file and has been written, so that later reads ask the device; a hint.
    fn drop_cache(&self) {}
    /// Sets the length; cut bytes and what was reserved behind the end are gone, added bytes are zero.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
}
