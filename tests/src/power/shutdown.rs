//! The shutdown ioctl of ext4 and XFS: from here on nothing reaches the device, not even the file system's own log.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::ioctl::{Setter, ioctl, opcode};

/// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN` are the same number, `_IOR('X', 125, __u32)`.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// Do not flush the log: `EXT4_GOING_FLAGS_NOLOGFLUSH`, `XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`.
const NO_LOG_FLUSH: u32 = 2;

/// Shuts the file system mounted at `mount_point` down and drops what it had not written.
pub(super) fn without_flush(mount_point: &Path) -> Result<()> {
    let directory = File::open(mount_point)?;
    // SAFETY: the kernel reads one u32 behind the pointer, which `Setter` holds for the time of the call; both file
    // systems know this number, and any other answers ENOTTY.
    let outcome = unsafe { ioctl(&directory, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
    outcome.with_context(|| format!("the file system at {} cannot be shut down", mount_point.display()))
}
