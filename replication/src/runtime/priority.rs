//! Asks the scheduler to run the calling thread ahead of others, and says what was granted.
//!
//! The journal's threads wait for the device and then hold everybody's acknowledgement: on a busy machine a normal
//! thread waits a scheduler tick (4 ms) where a real-time one waits microseconds. In a plain container the request is
//! refused, and everything works without it.

use std::fmt;

/// What the scheduler granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// `SCHED_RR`, priority 1.
    RealTime,
    /// A nice value below zero.
    Nice(i32),
    /// Nothing beyond every other thread.
    Normal,
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Granted::RealTime => f.write_str("real-time"),
            Granted::Nice(nice) => write!(f, "nice {nice}"),
            Granted::Normal => f.write_str("normal"),
        }
    }
}

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

/// Asks for real-time priority, then for nice -20, then goes on without.
pub fn raise_current_thread() -> Granted {
    const NICE: i32 = -20;
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: both calls name the calling thread (0) and pass values that live through the call.
    unsafe {
        if libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameters) == 0 {
            return Granted::RealTime;
        }
        if libc::setpriority(libc::PRIO_PROCESS, 0, NICE) == 0 {
            return Granted::Nice(NICE);
        }
    }
    Granted::Normal
}
