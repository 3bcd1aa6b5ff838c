//! The operating system's file system behind [`Disk`].
//!
//! Errors come back verbatim. Nothing is retried except interrupted calls and short writes, and `fdatasync` never is:
//! after a failed one the kernel forgets the bytes and says OK the second time.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Advice, AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::aligned::{ALIGNMENT, AlignedBuffer, is_aligned};
use super::writeback;
use super::{DirEntry, DirLock, Disk, DiskFile, Open, Space};

/// The lock file's name (Kafka's `LogManager.LOCK_FILE_NAME`, so that two products never share a directory).
pub const LOCK_NAME: &str = ".lock";

/// Slices handed to one `pwritev` (Linux's `UIO_MAXIOV`).
const SLICES_PER_CALL_MAX: usize = 1024;

/// Bytes read at once through an aligned buffer when the caller's own is not aligned.
const BOUNCE_BYTES: usize = 1 << 20;

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let flags = match how {
            Open::Read => OFlags::RDONLY,
            Open::ReadWrite => OFlags::RDWR,
            Open::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let fd = with_descriptor(|| rustix::fs::open(path, flags | OFlags::CLOEXEC, mode))?;
        Ok(Arc::new(RealFile { fd, path: path.to_owned(), direct: OnceLock::new() }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))?)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let directory = open_dir(path)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                // Names we write are ASCII; one that is no text at all is not ours and cannot be named further on.
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e.into()),
            };
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let len = if is_dir { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
            entries.push(DirEntry { name: name.to_owned(), is_dir, len });
        }
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match rustix::fs::lstat(path) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::rename(from, to)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlink(path)?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::rmdir(path)?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::fsync(open_dir(path)?)?)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { total_bytes: bytes(stat.f_blocks), usable_bytes: bytes(stat.f_bavail) })
    }

    fn lock_dir(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let fd = retry(|| rustix::fs::open(path.join(LOCK_NAME), flags, Mode::RUSR | Mode::WUSR))?;
        retry(|| rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive))?;
        Ok(Box::new(RealLock { _fd: fd }))
    }
}

/// Released by closing the file, also when the process dies.
struct RealLock {
    _fd: OwnedFd,
}

impl DirLock for RealLock {}

struct RealFile {
    fd: OwnedFd,
    path: PathBuf,
    /// The same file opened past the page cache at the first device read; `None` where that is not possible.
    direct: OnceLock<Option<OwnedFd>>,
}

impl RealFile {
    fn direct(&self) -> Option<&OwnedFd> {
        let open = || {
            // Opened through the first descriptor, not by name: the file may have been renamed meanwhile.
            let by_descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.fd));
            let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
            match rustix::fs::open(by_descriptor, flags, Mode::empty()) {
                Ok(fd) => Some(fd),
                Err(e) => {
                    tracing::debug!(path = %self.path.display(), error = %e, "no direct reads here");
                    None
                }
            }
        };
        self.direct.get_or_init(open).as_ref()
    }

    /// Reads aligned bytes past the page cache; `None` when the file system refuses.
    fn read_direct(&self, position: u64, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let fd = self.direct()?;
        match read_full_direct(fd, position, buffer) {
            Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => None,
            other => Some(other),
        }
    }

    fn read_device_bounced(&self, position: u64, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let mut bounce = AlignedBuffer::zeroed(BOUNCE_BYTES.min(buffer.len() + 2 * ALIGNMENT));
        let mut done = 0;
        while done < buffer.len() {
            let at = position + done as u64;
            let skip = (at % ALIGNMENT as u64) as usize;
            let wanted = (skip + buffer.len() - done).next_multiple_of(ALIGNMENT).min(bounce.len());
            let read = match self.read_direct(at - skip as u64, &mut bounce[..wanted])? {
                Ok(read) => read,
                Err(e) => return Some(Err(e)),
            };
            let usable = read.saturating_sub(skip).min(buffer.len() - done);
            buffer[done..done + usable].copy_from_slice(&bounce[skip..skip + usable]);
            done += usable;
            if read < wanted {
                break;
            }
        }
        Some(Ok(done))
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut position = position;
        let mut next = 0;
        while next < slices.len() {
            let end = slices.len().min(next + SLICES_PER_CALL_MAX);
            let wrote = retry(|| rustix::io::pwritev(&self.fd, &slices[next..end], position))?;
            position += wrote as u64;
            let mut left = wrote;
            while next < end && left >= slices[next].len() {
                left -= slices[next].len();
                next += 1;
            }
            if left > 0 {
                // A short write inside a slice: finish that slice alone, then go on behind it.
                let rest = &slices[next][left..];
                write_rest(&self.fd, position, rest)?;
                position += rest.len() as u64;
                next += 1;
            } else if wrote == 0 && next < end {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_full(&self.fd, position, buffer)
    }

    fn read_now_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let wanted = buffer.len();
        let mut slices = [IoSliceMut::new(buffer)];
        // One call: a short read has met the first page that is not in memory, or the end.
        match rustix::io::preadv2(&self.fd, &mut slices, position, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == wanted => Ok(()),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn read_device_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let direct = if is_aligned(position, buffer) {
            self.read_direct(position, buffer)
        } else {
            self.read_device_bounced(position, buffer)
        };
        if let Some(result) = direct {
            return result;
        }
        rustix::fs::fdatasync(&self.fd)?;
        let len = std::num::NonZeroU64::new(buffer.len() as u64);
        rustix::fs::fadvise(&self.fd, position, len, Advice::DontNeed)?;
        read_full(&self.fd, position, buffer)
    }

    fn allocate(&self, position: u64, len: u64) -> io::Result<()> {
        match retry(|| rustix::fs::fallocate(&self.fd, FallocateFlags::empty(), position, len)) {
            Err(e) if e.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
                // Nothing can be reserved here: give the file its length; the caller's zeroes will claim the space.
                let end = position + len;
                if self.len()? < end { self.set_len(end) } else { Ok(()) }
            }
            other => other,
        }
    }

    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        match retry(|| rustix::fs::fallocate(&self.fd, FallocateFlags::KEEP_SIZE, position, len)) {
            Err(e) if e.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Ok(()),
            other => other,
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.fd)?)
    }

    fn start_writeback(&self, position: u64, len: u64) {
        writeback::start(&self.fd, position, len);
    }

    fn drop_cache(&self) {
        let _ = rustix::fs::fadvise(&self.fd, 0, None, Advice::DontNeed);
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        retry(|| rustix::fs::ftruncate(&self.fd, len))
    }

    fn len(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&self.fd)?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    with_descriptor(|| rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()))
}

/// Opens something. While the process or the system has no descriptor left, waits for one: they come back when
/// connections close, and a step that is half done (a name not yet synced) cannot be left there.
fn with_descriptor<T>(mut open: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    const TRIES_MAX: u32 = 500;
    const WAIT: std::time::Duration = std::time::Duration::from_millis(10);
    let mut tries = 0;
    loop {
        match retry(&mut open) {
            Err(e) if tries < TRIES_MAX && is_out_of_descriptors(&e) => {
                if tries == 0 {
                    tracing::error!("too many open files: {e}; a disk operation waits for a descriptor");
                }
                tries += 1;
                std::thread::sleep(WAIT);
            }
            result => return result,
        }
    }
}

/// Whether an error says that there is no file descriptor left, of the process or of the system.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(code) if code == Errno::MFILE.raw_os_error() || code == Errno::NFILE.raw_os_error())
}

fn read_full(fd: &OwnedFd, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match retry(|| rustix::io::pread(fd, &mut buffer[done..], position + done as u64))? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

/// Like [`read_full`], but a read that ends inside a block has met the end of the file: asking again from there would
/// not be aligned.
fn read_full_direct(fd: &OwnedFd, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() && done.is_multiple_of(ALIGNMENT) {
        match retry(|| rustix::io::pread(fd, &mut buffer[done..], position + done as u64))? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

fn write_rest(fd: &OwnedFd, position: u64, bytes: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match retry(|| rustix::io::pwrite(fd, &bytes[done..], position + done as u64))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            wrote => done += wrote,
        }
    }
    Ok(())
}

/// Repeats a call that a signal interrupted; every other error is the caller's.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
