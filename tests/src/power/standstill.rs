//! Stops processes and waits until none of their threads runs, so that no system call of theirs is under way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock;

/// A thread inside an fsync stops only when that is over.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// Sends SIGSTOP to all processes, and then waits until all their threads are stopped.
pub(super) fn stop(pids: impl Iterator<Item = Pid>) -> Result<()> {
    let pids: Vec<Pid> = pids.collect();
    for pid in &pids {
        kill_process(*pid, Signal::STOP)?;
    }
    let deadline = clock::now() + STOPPED_WITHIN;
    for pid in pids {
        let tasks = PathBuf::from(format!("/proc/{}/task", pid.as_raw_nonzero()));
        while !all_stopped(&tasks)? {
            if clock::now() > deadline {
                bail!("process {pid:?} still runs {STOPPED_WITHIN:?} after SIGSTOP");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

fn all_stopped(tasks: &Path) -> Result<bool> {
    for task in std::fs::read_dir(tasks)? {
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else {
            // The thread ended between the listing and the reading.
            continue;
        };
        if state(&stat).context("no thread state")? != 'T' {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The state letter of a `stat` line: the first after the name, which stands in brackets and may hold anything.
fn state(stat: &str) -> Option<char> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_name_with_brackets_and_states_does_not_mislead() {
        assert_eq!(state("12 (a) R (b)) T 1 2 3"), Some('T'));
        assert_eq!(state("12 (journal-write) S 1 2"), Some('S'));
        assert_eq!(state("nonsense"), None);
    }
}
