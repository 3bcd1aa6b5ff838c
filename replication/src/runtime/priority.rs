//! Asks the scheduler to run the calling thread after all others.
//!
//! No thread asks to run ahead of others (decision 0012).

/// Puts the calling thread behind all others, for the processor and, where the scheduler heeds it, for the disk.
pub fn lower_current_thread() {
    const NICE: libc::c_int = 19;
    /// `IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7)`: not the idle class, which may wait for ever and hold up a journal of the
    /// same file system.
    const IO_PRIORITY: libc::c_int = (2 << 13) | 7;
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: both calls name the calling thread (0) and pass numbers. A refusal changes nothing.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IO_PRIORITY);
    }
}
