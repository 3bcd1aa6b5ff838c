//! A node whose disk is slow: a control group of version 1 that limits what its process may write.
//!
//! The group is made for one slow spell and removed after it; one that a killed run leaves behind is empty and limits
//! nobody.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const GROUPS: &str = "/sys/fs/cgroup/blkio";
/// What a slow disk writes in a second.
const SLOW_BYTES_PER_SECOND: u64 = 256 << 10;

/// A process that writes slowly until this is dropped.
#[derive(Debug)]
pub struct SlowDisk {
    group: PathBuf,
    process: u32,
}

impl SlowDisk {
    /// Whether this machine can slow a disk down under `directory`.
    pub fn is_possible(directory: &Path) -> bool {
        SlowDisk::begin(directory, std::process::id()).is_ok()
    }

    /// Slows down what a process writes to the device that `directory` is on.
    pub fn begin(directory: &Path, process: u32) -> Result<SlowDisk> {
        let group = Path::new(GROUPS).join(format!("stonelog-{}-{process}", std::process::id()));
        fs::create_dir(&group).context("no control groups for disks")?;
        let slow = SlowDisk { group, process };
        let device = fs::metadata(directory)?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let limit = format!("{major}:{minor} {SLOW_BYTES_PER_SECOND}");
        fs::write(slow.group.join("blkio.throttle.write_bps_device"), limit).context("this device takes no limit")?;
        fs::write(slow.group.join("cgroup.procs"), process.to_string())?;
        Ok(slow)
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // The process may have ended, which empties the group too.
        let _ = fs::write(Path::new(GROUPS).join("cgroup.procs"), self.process.to_string());
        let _ = fs::remove_dir(&self.group);
    }
}
