//! `sync_file_range`: a hint to begin writing dirty pages, which no safe wrapper among our dependencies offers.

use std::ffi::{c_int, c_uint};
use std::os::fd::{AsRawFd, OwnedFd};

const SYNC_FILE_RANGE_WRITE: c_uint = 2;

unsafe extern "C" {
    fn sync_file_range(fd: c_int, offset: i64, nbytes: i64, flags: c_uint) -> c_int;
}

/// Starts writing the range to the device without waiting. Says nothing about durability, so its result is ignored:
/// whatever is wrong with the file, the next `fdatasync` reports.
pub(super) fn start(fd: &OwnedFd, position: u64, len: u64) {
    let (Ok(position), Ok(len)) = (i64::try_from(position), i64::try_from(len)) else {
        return;
    };
    // SAFETY: the descriptor is open for the whole call, and the call takes no pointers.
    let _ = unsafe { sync_file_range(fd.as_raw_fd(), position, len, SYNC_FILE_RANGE_WRITE) };
}
