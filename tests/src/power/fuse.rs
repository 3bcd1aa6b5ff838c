//! A [`Device`] as a file, served to the kernel over `/dev/fuse`: what a loop device is then attached to.
//!
//! The mount is one regular file, not a directory, so that a dozen requests are all there is to answer. Reads and writes
//! go past the page cache (`FOPEN_DIRECT_IO`), and an fsync is the device's flush: the loop driver sends one for each
//! barrier of the file system. The protocol is that of `linux/fuse.h`, version 7.31, in the machine's byte order.

use std::fs::File;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::device::{BLOCK_BYTES, Device, Operation};

/// The largest write the kernel may send.
const WRITE_BYTES_MAX: usize = 1 << 20;
const IN_HEADER_BYTES: usize = 40;
const OUT_HEADER_BYTES: usize = 16;
const MODE: u32 = 0o100_600;
/// Hole or zeroed range: `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE`.
const ZEROING: u32 = 0x02 | 0x10;

mod opcode {
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const SETATTR: u32 = 4;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const STATFS: u32 = 17;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FSYNC: u32 = 20;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const DESTROY: u32 = 38;
    pub(super) const BATCH_FORGET: u32 = 42;
    pub(super) const FALLOCATE: u32 = 43;
}

/// A device that the kernel can use. Dropping it unmounts it.
#[derive(Debug)]
pub struct FuseFile {
    path: PathBuf,
    device: Arc<Mutex<Device>>,
    server: Option<JoinHandle<()>>,
}

impl FuseFile {
    /// Serves `device` at `path`, a file that exists.
    pub fn serve(path: &Path, device: Device) -> Result<FuseFile> {
        let channel = File::options().read(true).write(true).open("/dev/fuse").context("cannot open /dev/fuse")?;
        let data = format!("fd={},rootmode={MODE:o},user_id=0,group_id=0", channel.as_raw_fd());
        let data = std::ffi::CString::new(data)?;
        mount("stonelog-power", path, "fuse", MountFlags::NOSUID | MountFlags::NODEV, Some(data.as_c_str()))
            .context("cannot mount a FUSE file")?;
        let device = Arc::new(Mutex::new(device));
        let served = Arc::clone(&device);
        let server = std::thread::Builder::new().name("fuse".to_owned()).spawn(move || {
            if let Err(error) = serve(&channel, &served) {
                eprintln!("the FUSE file ends: {error}");
            }
        })?;
        Ok(FuseFile { path: path.to_owned(), device, server: Some(server) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device, for verbs. Nobody reads or writes meanwhile.
    pub fn device(&self) -> MutexGuard<'_, Device> {
        lock(&self.device)
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        // Forced: whoever still uses the device gets errors, and the server ends.
        if let Err(error) = unmount(&self.path, UnmountFlags::FORCE | UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {error}", self.path.display());
            return;
        }
        if let Some(server) = self.server.take() {
            // A panic in there has already been printed.
            let _ = server.join();
        }
    }
}

fn lock(device: &Mutex<Device>) -> MutexGuard<'_, Device> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(channel: &File, device: &Mutex<Device>) -> io::Result<()> {
    let mut request = vec![0; WRITE_BYTES_MAX + 4096];
    loop {
        let len = match (&*channel).read(&mut request) {
            Ok(len) => len,
            Err(error) => match Errno::from_io_error(&error) {
                // Unmounted.
                Some(Errno::NODEV) => return Ok(()),
                // A request that was taken back, or a signal.
                Some(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
                _ => return Err(error),
            },
        };
        let request = Request { bytes: &request[..len] };
        let answer = match request.opcode() {
            opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => continue,
            _ => answer(&request, device),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno.raw_os_error(), Vec::new()),
        };
        let mut head = Vec::with_capacity(OUT_HEADER_BYTES);
        put_u32(&mut head, (OUT_HEADER_BYTES + body.len()) as u32);
        head.extend_from_slice(&error.to_ne_bytes());
        head.extend_from_slice(&request.unique().to_ne_bytes());
        match (&*channel).write_vectored(&[IoSlice::new(&head), IoSlice::new(&body)]) {
            Ok(_) => {}
            // The request was interrupted, or the mount is gone: the next read tells.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::NODEV)) => {}
            Err(error) => return Err(error),
        }
    }
}

struct Request<'a> {
    bytes: &'a [u8],
}

impl Request<'_> {
    fn u32_at(&self, at: usize) -> u32 {
        let bytes = self.bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_ne_bytes(bytes.expect("the kernel sends whole requests"))
    }

    fn u64_at(&self, at: usize) -> u64 {
        let bytes = self.bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        u64::from_ne_bytes(bytes.expect("the kernel sends whole requests"))
    }

    fn opcode(&self) -> u32 {
        self.u32_at(4)
    }

    fn unique(&self) -> u64 {
        self.u64_at(8)
    }

    /// A field of the request's own part.
    fn body_u32(&self, at: usize) -> u32 {
        self.u32_at(IN_HEADER_BYTES + at)
    }

    fn body_u64(&self, at: usize) -> u64 {
        self.u64_at(IN_HEADER_BYTES + at)
    }
}

fn answer(request: &Request<'_>, device: &Mutex<Device>) -> std::result::Result<Vec<u8>, Errno> {
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let wait = |operation: Operation| {
        let delay = lock(device).delay(operation);
        if let Some(delay) = delay {
            std::thread::sleep(delay);
        }
    };
    match request.opcode() {
        opcode::INIT => Ok(init(request)),
        opcode::GETATTR | opcode::SETATTR => Ok(attributes(lock(device).len_bytes())),
        opcode::OPEN => {
            let mut body = vec![0; 8];
            put_u32(&mut body, 1); // FOPEN_DIRECT_IO
            put_u32(&mut body, 0);
            Ok(body)
        }
        opcode::READ => {
            wait(Operation::Read);
            let (at, len) = (request.body_u64(8), request.body_u32(16) as usize);
            lock(device).read(at, len).map(<[u8]>::to_vec).map_err(errno)
        }
        opcode::WRITE => {
            wait(Operation::Write);
            let (at, len) = (request.body_u64(8), request.body_u32(16) as usize);
            let data =
                request.bytes.get(IN_HEADER_BYTES + 40..).and_then(|data| data.get(..len)).ok_or(Errno::INVAL)?;
            lock(device).write(at, data).map_err(errno)?;
            let mut body = Vec::with_capacity(8);
            put_u32(&mut body, len as u32);
            put_u32(&mut body, 0);
            Ok(body)
        }
        opcode::FSYNC => {
            wait(Operation::Flush);
            lock(device).flush().map(|()| Vec::new()).map_err(errno)
        }
        opcode::FALLOCATE => {
            let (at, len, mode) = (request.body_u64(8), request.body_u64(16), request.body_u32(24));
            if mode & ZEROING == 0 {
                return Err(Errno::OPNOTSUPP);
            }
            lock(device).zero(at, len as usize).map(|()| Vec::new()).map_err(errno)
        }
        opcode::STATFS => Ok(vec![0; 80]),
        opcode::RELEASE | opcode::FLUSH | opcode::DESTROY => Ok(Vec::new()),
        _ => Err(Errno::NOSYS),
    }
}

fn init(request: &Request<'_>) -> Vec<u8> {
    const ASYNC_READ: u32 = 1;
    const BIG_WRITES: u32 = 1 << 5;
    const MAX_PAGES: u32 = 1 << 22;
    let offered = request.body_u32(12);
    let mut body = Vec::with_capacity(64);
    put_u32(&mut body, 7);
    put_u32(&mut body, 31);
    put_u32(&mut body, request.body_u32(8)); // max_readahead, as offered
    put_u32(&mut body, offered & (ASYNC_READ | BIG_WRITES | MAX_PAGES));
    body.extend_from_slice(&64_u16.to_ne_bytes()); // max_background
    body.extend_from_slice(&48_u16.to_ne_bytes()); // congestion_threshold
    put_u32(&mut body, WRITE_BYTES_MAX as u32);
    put_u32(&mut body, 1); // time_gran
    body.extend_from_slice(&((WRITE_BYTES_MAX / BLOCK_BYTES) as u16).to_ne_bytes()); // max_pages
    body.resize(64, 0);
    body
}

fn attributes(len: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(104);
    body.extend_from_slice(&3_600_u64.to_ne_bytes()); // valid for this long
    put_u32(&mut body, 0);
    put_u32(&mut body, 0);
    for number in [1, len, len / 512, 0, 0, 0] {
        body.extend_from_slice(&number.to_ne_bytes()); // inode, size, blocks, times
    }
    for number in [0, 0, 0, MODE, 1, 0, 0, 0, BLOCK_BYTES as u32, 0] {
        put_u32(&mut body, number); // nanoseconds, mode, links, owner, device, block size, flags
    }
    body
}

fn put_u32(to: &mut Vec<u8>, number: u32) {
    to.extend_from_slice(&number.to_ne_bytes());
}
