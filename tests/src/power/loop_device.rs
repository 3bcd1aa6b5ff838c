//! Attaching a file to a loop device that lets go of it by itself.
//!
//! The device is attached with autoclear: it detaches when its last user closes it, which is the unmount, or the death
//! of everyone who could unmount. So nothing has to be cleaned up, whatever happens to this process.

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};

use super::device::BLOCK_BYTES;

/// `LOOP_CTL_GET_FREE`.
const GET_FREE: Opcode = 0x4c82;
/// `LOOP_CONFIGURE`.
const CONFIGURE: Opcode = 0x4c0a;
/// `LO_FLAGS_AUTOCLEAR`.
const AUTOCLEAR: u32 = 4;
/// Others may take the free device first.
const ATTEMPTS_COUNT: u32 = 50;
/// `struct loop_config`: file and block size, then `struct loop_info64`, then reserved bytes.
const CONFIG_BYTES: usize = 304;
/// `lo_flags` within it: behind file, block size, five numbers of 8 bytes and three of 4.
const FLAGS_AT: usize = 8 + 5 * 8 + 3 * 4;

/// An attached device that nobody uses yet: it detaches when this is dropped, unless it is mounted by then.
#[derive(Debug)]
pub(super) struct LoopDevice {
    path: PathBuf,
    _open: File,
}

impl LoopDevice {
    /// Attaches `file` with sectors of 4 KiB.
    pub(super) fn attach(file: &Path) -> Result<LoopDevice> {
        let backing = File::options().read(true).write(true).open(file)?;
        let control = File::options().read(true).write(true).open("/dev/loop-control").context("/dev/loop-control")?;
        for _ in 0..ATTEMPTS_COUNT {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument and returns a number.
            let number = unsafe { ioctl(&control, GetFree) }.context("no free loop device")?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let open = File::options().read(true).write(true).open(&path)?;
            let mut config = Box::new([0; CONFIG_BYTES]);
            config[..4].copy_from_slice(&backing.as_raw_fd().to_ne_bytes());
            config[4..8].copy_from_slice(&(BLOCK_BYTES as u32).to_ne_bytes());
            config[FLAGS_AT..FLAGS_AT + 4].copy_from_slice(&AUTOCLEAR.to_ne_bytes());
            // SAFETY: the kernel reads a `struct loop_config`, of the size of this array, which outlives the call.
            match unsafe { ioctl(&open, Configure(config)) } {
                Ok(()) => return Ok(LoopDevice { path, _open: open }),
                Err(Errno::BUSY) => {}
                Err(error) => return Err(error).with_context(|| format!("cannot attach {}", file.display())),
            }
        }
        bail!("every free loop device was taken by another")
    }

    /// Its name in `/dev`.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

struct GetFree;

// SAFETY: the request has no argument; its result is the return value.
unsafe impl Ioctl for GetFree {
    type Output = i32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        GET_FREE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

struct Configure(Box<[u8; CONFIG_BYTES]>);

// SAFETY: the request reads `CONFIG_BYTES` bytes behind the pointer and writes none.
unsafe impl Ioctl for Configure {
    type Output = ();
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        CONFIGURE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}
