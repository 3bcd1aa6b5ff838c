//! A file system in memory that loses what a power cut may lose, and fails when told to.
//!
//! It promises no more than POSIX does: a written 4 KiB block is durable once [`DiskFile::sync_data`] returned, a name
//! once [`Disk::sync_dir`] did. [`SimDisk::crash`] keeps a seeded subset of what was not: any un-synced version of each
//! block, a prefix of each directory's changes. Everything is deterministic: same calls and seeds, same bytes.
//! [`SimDisk::record_images`] keeps the disk as it is in each change, so that one run shows every place to crash.
//! Not here: time. Slow operations are jobs that whoever runs them begins and ends at different moments.

mod fault_plan;
mod inode;
mod names;
mod survival;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{DirEntry, DirLock, Disk, DiskFile, Open, Space};
use fault_plan::{EIO, FaultPlan, Permit, power_is_cut};
pub use fault_plan::{SimFault, SimOperation};
use inode::Inode;
use names::{Directory, World};
use survival::Fate;
pub use survival::Survival;

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
    /// One per change since they are recorded.
    images: Option<Vec<SimImage>>,
    /// Which reads find all their bytes in the page cache; all do without it.
    cached: Option<Seeded>,
}

impl Inner {
    fn over(world: World) -> Inner {
        Inner {
            world,
            plan: FaultPlan::default(),
            incarnation: 0,
            locked: std::collections::BTreeSet::new(),
            images: None,
            cached: None,
        }
    }
}

impl Inner {
    /// Whether an operation may begin.
    fn begin(&mut self, operation: SimOperation, path: &Path) -> io::Result<Permit> {
        self.plan.enter(operation, path)
    }

    /// The same of an operation that changes nothing, and has no end of its own.
    fn look(&mut self, operation: SimOperation, path: &Path) -> io::Result<()> {
        self.begin(operation, path).map(|_| ())
    }

    /// Ends a change: called when an un-synced change has been made, and before a sync takes effect.
    fn end(&mut self, permit: Permit, operation: SimOperation, path: &Path) -> io::Result<()> {
        if let Some(images) = &mut self.images {
            let change = self.plan.changes - 1;
            images.push(SimImage { change, operation, path: path.to_owned(), world: self.world.clone() });
        }
        match permit {
            Permit::PowerCut => Err(power_is_cut()),
            Permit::Fails(SimFault::LosesBytes | SimFault::Short) => Err(io::Error::from_raw_os_error(EIO)),
            Permit::Granted | Permit::Fails(_) => Ok(()),
        }
    }
}

/// The disk as it was in the middle of one change.
pub struct SimImage {
    /// The change's number, as [`SimDisk::changes`] counts.
    pub change: u64,
    /// What was being done.
    pub operation: SimOperation,
    /// To which file or directory.
    pub path: PathBuf,
    world: World,
}

impl SimImage {
    /// A disk of its own that went on as [`Survival`] says after a power cut there.
    pub fn after(&self, survival: Survival) -> SimDisk {
        let mut world = self.world.clone();
        world.crash(&mut Fate::new(survival));
        SimDisk { shared: Arc::new(Mutex::new(Inner::over(world))) }
    }
}

/// How a power cut treats blocks that were being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tearing {
    /// A 4 KiB block is old or new.
    Blocks,
    /// A 512-byte sector is old or new.
    Sectors,
    /// A 512-byte sector is old, new, or holds neither. What was synced survives only where nobody writes to a block again
    /// of which a part is to stay: in journals.
    Garbage,
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty file system of unlimited size with nothing but a root directory.
    pub fn new() -> SimDisk {
        SimDisk { shared: Arc::new(Mutex::new(Inner::over(World::new()))) }
    }

    /// A disk of its own with the same contents, synced and not; nothing is open on it.
    pub fn fork(&self) -> SimDisk {
        let mut world = self.inner().world.clone();
        world.files().for_each(|inode| inode.open_count = 0);
        SimDisk { shared: Arc::new(Mutex::new(Inner::over(world))) }
    }

    /// From here on keeps an image of the disk in every change.
    pub fn record_images(&self) {
        self.inner().images = Some(Vec::new());
    }

    /// The images since [`SimDisk::record_images`], and no more of them.
    pub fn take_images(&self) -> Vec<SimImage> {
        self.inner().images.take().unwrap_or_default()
    }

    /// Limits the blocks that files may hold together; what would exceed it fails with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner().world.capacity_bytes = bytes;
    }

    /// The blocks that files hold together, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.inner().world.used_bytes()
    }

    /// From now on the seed says which of the reads that do not wait find their bytes in the page cache.
    pub fn seed_page_cache(&self, seed: u64) {
        self.inner().cached = Some(Seeded(seed));
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

    /// Makes one coming operation fail: the first of its kind, after `skip` others, on a path that contains the
    /// text; with stars in it, its parts in their order.
    pub fn fail(&self, operation: SimOperation, path_contains: &str, skip: u32, fault: SimFault) {
        self.inner().plan.add(operation, path_contains, skip, fault);
    }

    /// Planned faults that have not struck yet.
    pub fn waiting_faults(&self) -> usize {
        self.inner().plan.waiting_count()
    }

    /// A power cut and the start after it: un-synced writes and names survive as the seed says; open files and locks
    /// are gone; planned faults are forgotten.
    pub fn crash(&self, seed: u64, tearing: Tearing) {
        self.crash_to(Survival::Some { seed, tearing });
    }

    /// A power cut after which exactly this is left.
    pub fn crash_to(&self, survival: Survival) {
        let mut inner = self.inner();
        inner.incarnation += 1;
        inner.locked.clear();
        inner.plan.reset();
        inner.world.crash(&mut Fate::new(survival));
    }

    /// Memory pressure, or an administrator: clean pages go, and with them what only the cache showed.
    pub fn drop_caches(&self) {
        self.inner().world.files().for_each(inode::Inode::drop_cache);
    }

    /// The death of the process alone: everything written survives in the page cache; open files and locks are gone.
    pub fn kill(&self) {
        let mut inner = self.inner();
        inner.incarnation += 1;
        inner.locked.clear();
        inner.plan.reset();
        inner.world.files().for_each(|inode| inode.open_count = 0);
        inner.world.collect_garbage();
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
                inner.look(SimOperation::Open, path)?;
                inner.world.file_id(path)?
            }
            Open::CreateNew => {
                let permit = inner.begin(SimOperation::Create, path)?;
                let id = inner.world.create(path)?;
                inner.end(permit, SimOperation::Create, path)?;
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
        let permit = inner.begin(SimOperation::Create, path)?;
        inner.world.create_dir(path)?;
        inner.end(permit, SimOperation::Create, path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut inner = self.inner();
        inner.look(SimOperation::List, path)?;
        inner.world.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut inner = self.inner();
        inner.look(SimOperation::List, path)?;
        Ok(inner.world.exists(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let permit = inner.begin(SimOperation::Rename, from)?;
        inner.world.rename(from, to)?;
        inner.end(permit, SimOperation::Rename, from)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let permit = inner.begin(SimOperation::Remove, path)?;
        inner.world.remove_file(path)?;
        inner.end(permit, SimOperation::Remove, path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let permit = inner.begin(SimOperation::Remove, path)?;
        inner.world.remove_dir(path)?;
        inner.end(permit, SimOperation::Remove, path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let permit = inner.begin(SimOperation::SyncDir, path)?;
        inner.end(permit, SimOperation::SyncDir, path)?;
        if permit == Permit::Fails(SimFault::Ignored) {
            return Ok(());
        }
        inner.world.directory(path).map(Directory::sync)?;
        inner.world.collect_much_garbage();
        Ok(())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut inner = self.inner();
        inner.look(SimOperation::List, path)?;
        Ok(inner.world.space())
    }

    fn lock_dir(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let mut inner = self.inner();
        inner.look(SimOperation::Open, path)?;
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
        let permit = inner.begin(operation, &self.path)?;
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
        let gathered: Vec<u8>;
        let bytes: &[u8] = match slices {
            [one] => one,
            several => {
                gathered = several.iter().map(|slice| &**slice).collect::<Vec<&[u8]>>().concat();
                &gathered
            }
        };
        inner.world.claim(self.id, position, bytes.len() as u64)?;
        let inode = inner.world.inode(self.id);
        match permit {
            Permit::Fails(SimFault::Short) => inode.write(position, &bytes[..bytes.len() / 2]),
            Permit::Fails(SimFault::Lost) => inode.write_to_cache(position, bytes),
            Permit::Fails(SimFault::Misdirected { blocks }) => {
                inode.write_to_cache(position, bytes);
                inode.write_to_device(position + blocks * inode::BLOCK as u64, bytes);
            }
            _ => inode.write(position, bytes),
        }
        inner.end(permit, SimOperation::Write, &self.path)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut inner, _) = self.enter(SimOperation::Read)?;
        Ok(inner.world.inode(self.id).read(position, buffer))
    }

    fn read_now_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (mut inner, _) = self.enter(SimOperation::Read)?;
        let is_cached = inner.cached.as_mut().is_none_or(|seeded| seeded.below(2) == 0);
        if is_cached && inner.world.inode(self.id).read(position, buffer) == buffer.len() {
            return Ok(());
        }
        Err(io::ErrorKind::WouldBlock.into())
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
        inner.end(permit, SimOperation::Allocate, &self.path)
    }

    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        self.require_writable()?;
        let (mut inner, permit) = self.enter(SimOperation::Allocate)?;
        inner.world.claim(self.id, position, len)?;
        inner.end(permit, SimOperation::Allocate, &self.path)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut inner, permit) = self.enter(SimOperation::SyncData)?;
        if permit == Permit::Fails(SimFault::LosesBytes) {
            inner.world.inode(self.id).fail_sync();
        }
        inner.end(permit, SimOperation::SyncData, &self.path)?;
        if permit != Permit::Fails(SimFault::Ignored) {
            inner.world.inode(self.id).sync();
        }
        Ok(())
    }

    fn start_writeback(&self, _position: u64, _len: u64) {}

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.require_writable()?;
        let (mut inner, permit) = self.enter(SimOperation::SetLen)?;
        inner.world.inode(self.id).set_len(len);
        inner.end(permit, SimOperation::SetLen, &self.path)
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
