//! A file system in memory that loses what a power cut may lose, and fails when told to.
//!
//! It promises no more than POSIX does: a written 4 KiB block is durable once [`DiskFile::sync_data`] returned, a name
//! once [`Disk::sync_dir`] did. [`SimDisk::crash`] keeps a seeded subset of what was not: any un-synced version of each
//! block, a prefix of each directory's changes. Everything is deterministic: same calls and seeds, same bytes.
//! Not here: time. No operation takes any.

mod fault_plan;
mod inode;
mod names;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{DirEntry, DirLock, Disk, DiskFile, Open, Space};
use fault_plan::{FaultPlan, Permit};
pub use fault_plan::{SimFault, SimOperation};
use inode::Inode;
use names::{Directory, World};

/// A simulated file system; clones share it.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<Inner>>,
}

struct Inner {
    world: World,
    plan: FaultPlan,
    /// Raised by each crash: files and locks opened before it are dead.
    incarnation: u64,
    locked: std::collections::BTreeSet<PathBuf>,
}

/// How a power cut treats blocks that were being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tearing {
    /// A 4 KiB block is old or new.
    Blocks,
    /// A 512-byte sector is old or new.
    Sectors,
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty file system of unlimited size with nothing but a root directory.
    pub fn new() -> SimDisk {
        let inner = Inner {
            world: World::new(),
            plan: FaultPlan::default(),
            incarnation: 0,
            locked: std::collections::BTreeSet::new(),
        };
        SimDisk { shared: Arc::new(Mutex::new(inner)) }
    }

    /// Limits the blocks that files may hold together; what would exceed it fails with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner().world.capacity_bytes = bytes;
    }

    /// Operations so far that change something (see [`SimDisk::cut_power_at`]).
    pub fn changes(&self) -> u64 {
        self.inner().plan.changes
    }

    /// Cuts the power in the change of that number, counted from 0 as [`SimDisk::changes`] does: it takes effect as far
    /// as un-synced things do (a sync does not), then it and everything after it fails until [`SimDisk::crash`].
    pub fn cut_power_at(&self, change: u64) {
        self.inner().plan.cut_power_at = Some(change);
    }

    /// Whether the power is cut.
    pub fn is_dead(&self) -> bool {
        self.inner().plan.is_dead
    }

    /// Makes one coming operation fail: the first of its kind, after `skip` others, on a path that contains the text.
    pub fn fail(&self, operation: SimOperation, path_contains: &str, skip: u32, fault: SimFault) {
        self.inner().plan.add(operation, path_contains, skip, fault);
    }

    /// A power cut and the start after it: un-synced writes and names survive as the seed says; open files and locks
    /// are gone; planned faults are forgotten.
    pub fn crash(&self, seed: u64, tearing: Tearing) {
        let mut inner = self.inner();
        inner.incarnation += 1;
        inner.locked.clear();
        inner.plan.reset();
        inner.world.crash(&mut Seeded(seed), tearing);
    }

    /// The death of the process alone: everything written survives in the page cache; open files and locks are gone.
    pub fn kill(&self) {
        let mut inner = self.inner();
        inner.incarnation += 1;
        inner.locked.clear();
        inner.plan.reset();
    }

    /// Flips one bit of a file, on the device and in the cache, as decay does. Panics when there is no such file.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) {
        self.edit(path, byte, 1, |bytes| bytes[0] ^= 1 << (bit % 8));
    }

    /// Overwrites bytes on the device and in the cache, as a misdirected write does. Panics when there is no such file.
    pub fn overwrite(&self, path: &Path, position: u64, bytes: &[u8]) {
        self.edit(path, position, bytes.len(), |old| old.copy_from_slice(bytes));
    }

    /// The bytes of a file as a process sees them. Panics when there is no such file.
    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let mut inner = self.inner();
        let id = inner.world.file_id(path).expect("the file exists");
        let inode = inner.world.inode(id);
        let mut bytes = vec![0; inode.len() as usize];
        inode.read(0, &mut bytes);
        bytes
    }

    fn edit(&self, path: &Path, position: u64, len: usize, change: impl Fn(&mut [u8])) {
        let mut inner = self.inner();
        let id = inner.world.file_id(path).expect("the file exists");
        inner.world.inode(id).edit(position, len, &change);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.lock().expect("no simulated operation panics")
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner();
        let id = match how {
            Open::Read | Open::ReadWrite => {
                inner.plan.enter(SimOperation::Open, path)?.finish()?;
                inner.world.file_id(path)?
            }
            Open::CreateNew => {
                let permit = inner.plan.enter(SimOperation::Create, path)?;
                let id = inner.world.create(path)?;
                permit.finish()?;
                id
            }
        };
        inner.world.inode(id).open_count += 1;
        let incarnation = inner.incarnation;
        let writable = how != Open::Read;
        Ok(Arc::new(SimFile { shared: self.shared.clone(), id, path: path.to_owned(), incarnation, writable }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let permit = inner.plan.enter(SimOperation::Create, path)?;
        inner.world.create_dir(path)?;
        permit.finish()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut inner = self.inner();
        inner.plan.enter(SimOperation::List, path)?.finish()?;
        inner.world.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut inner = self.inner();
        inner.plan.enter(SimOperation::List, path)?.finish()?;
        Ok(inner.world.exists(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let permit = inner.plan.enter(SimOperation::Rename, from)?;
        inner.world.rename(from, to)?;
        permit.finish()
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let permit = inner.plan.enter(SimOperation::Remove, path)?;
        inner.world.remove_file(path)?;
        permit.finish()
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let permit = inner.plan.enter(SimOperation::Remove, path)?;
        inner.world.remove_dir(path)?;
        permit.finish()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let permit = inner.plan.enter(SimOperation::SyncDir, path)?;
        permit.finish()?;
        inner.world.directory(path).map(Directory::sync)?;
        inner.world.collect_garbage();
        Ok(())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut inner = self.inner();
        inner.plan.enter(SimOperation::List, path)?.finish()?;
        Ok(inner.world.space())
    }

    fn lock_dir(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let mut inner = self.inner();
        inner.plan.enter(SimOperation::Open, path)?.finish()?;
        inner.world.directory(path)?;
        let lock_path = path.join(super::real::LOCK_NAME);
        if !inner.world.exists(&lock_path) {
            inner.world.create(&lock_path)?;
        }
        if !inner.locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let incarnation = inner.incarnation;
        Ok(Box::new(SimLock { shared: self.shared.clone(), path: path.to_owned(), incarnation }))
    }
}

struct SimLock {
    shared: Arc<Mutex<Inner>>,
    path: PathBuf,
    incarnation: u64,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut inner = self.shared.lock().expect("no simulated operation panics");
        if inner.incarnation == self.incarnation {
            inner.locked.remove(&self.path);
        }
    }
}

struct SimFile {
    shared: Arc<Mutex<Inner>>,
    id: u64,
    path: PathBuf,
    incarnation: u64,
    writable: bool,
}

impl SimFile {
    fn enter(&self, operation: SimOperation) -> io::Result<(MutexGuard<'_, Inner>, Permit)> {
        let mut inner = self.shared.lock().expect("no simulated operation panics");
        if inner.incarnation != self.incarnation {
            return Err(io::Error::other("the process that opened this file is gone"));
        }
        let permit = inner.plan.enter(operation, &self.path)?;
        Ok((inner, permit))
    }

    fn require_writable(&self) -> io::Result<()> {
        // EBADF, as the real call answers.
        if self.writable { Ok(()) } else { Err(io::Error::from_raw_os_error(9)) }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut inner = self.shared.lock().expect("no simulated operation panics");
        if inner.incarnation == self.incarnation {
            inner.world.inode(self.id).open_count -= 1;
        }
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.require_writable()?;
        let (mut inner, permit) = self.enter(SimOperation::Write)?;
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        inner.world.claim(self.id, position, len as u64)?;
        let mut position = position;
        for slice in slices {
            inner.world.inode(self.id).write(position, slice);
            position += slice.len() as u64;
        }
        permit.finish()
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut inner, _) = self.enter(SimOperation::Read)?;
        Ok(inner.world.inode(self.id).read(position, buffer))
    }

    fn read_device_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut inner, _) = self.enter(SimOperation::ReadDevice)?;
        Ok(inner.world.inode(self.id).read_device(position, buffer))
    }

    fn allocate(&self, position: u64, len: u64) -> io::Result<()> {
        self.require_writable()?;
        let (mut inner, permit) = self.enter(SimOperation::Allocate)?;
        inner.world.claim(self.id, position, len)?;
        let inode = inner.world.inode(self.id);
        if inode.len() < position + len {
            inode.set_len(position + len);
        }
        permit.finish()
    }

    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        self.require_writable()?;
        let (mut inner, permit) = self.enter(SimOperation::Allocate)?;
        inner.world.claim(self.id, position, len)?;
        permit.finish()
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut inner, permit) = self.enter(SimOperation::SyncData)?;
        if permit.loses_bytes() {
            inner.world.inode(self.id).fail_sync();
        }
        permit.finish()?;
        inner.world.inode(self.id).sync();
        Ok(())
    }

    fn start_writeback(&self, _position: u64, _len: u64) {}

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.require_writable()?;
        let (mut inner, permit) = self.enter(SimOperation::SetLen)?;
        inner.world.inode(self.id).set_len(len);
        permit.finish()
    }

    fn len(&self) -> io::Result<u64> {
        let (mut inner, _) = self.enter(SimOperation::List)?;
        Ok(inner.world.inode(self.id).len())
    }
}

/// The seeded choices of a crash (splitmix64).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
