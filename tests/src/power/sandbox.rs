//! A place where nothing has to be cleaned up: mounts of its own, in memory, that go when this process is gone.
//!
//! The process leaves the machine's mount namespace, so that its mounts are its own; loop devices detach with the last
//! of them; children die with it ([`bound_to_us`]). Whatever ends a run (an error, Ctrl-C, SIGKILL), the kernel takes
//! everything back. What is to be kept after a failure lies in a directory outside.

use std::cell::Cell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Memory that images on plain files may use.
const MEMORY_OPTIONS: &std::ffi::CStr = c"size=6g,mode=700";

/// A directory in memory, seen by this process and its children only.
#[derive(Debug)]
pub struct Sandbox {
    directory: tempfile::TempDir,
    memory: PathBuf,
    /// Directories handed out.
    count: Cell<u32>,
    /// Holds the namespace a little longer than this process: its FUSE channel is closed before the mounts go, so that
    /// no unmount waits for an answer that nobody will give.
    holder: Child,
}

impl Sandbox {
    /// Leaves the machine's mount namespace. Before the process has a second thread.
    pub fn enter() -> Result<Sandbox> {
        // SAFETY: no file descriptor table is unshared, and there is one thread yet, so none keeps the old namespace.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("mounts of our own need root")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let directory = tempfile::Builder::new().prefix("stonelog-power-").tempdir()?;
        let memory = directory.path().join("memory");
        std::fs::create_dir(&memory)?;
        mount("stonelog-power", &memory, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(MEMORY_OPTIONS))?;
        let holder = bound_to_us("sleep").arg("infinity").stdin(Stdio::null()).spawn().context("cannot run setpriv")?;
        Ok(Sandbox { directory, memory, count: Cell::new(0), holder })
    }

    /// A fresh directory in memory, for images and mount points.
    pub fn fresh(&self) -> Result<PathBuf> {
        self.count.set(self.count.get() + 1);
        let path = self.memory.join(self.count.get().to_string());
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    /// A directory on the machine's own disk, for histories.
    pub fn outside(&self) -> &Path {
        self.directory.path()
    }

    /// Keeps [`Sandbox::outside`] and says where it is.
    pub fn keep(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        self.directory.path()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.memory, UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {error}", self.memory.display());
        }
        let _ = std::fs::remove_dir(&self.memory);
        // It may have been killed already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A command whose process the kernel kills when this one, or the thread that starts it, ends.
pub fn bound_to_us(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}
