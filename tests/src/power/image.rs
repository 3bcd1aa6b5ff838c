//! A file system on a loop device, on a plain file or on a device that forgets what was not flushed.
//!
//! Dropping it unmounts, also in a panic; the loop device detaches with the unmount, and the file goes too.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::device::Device;
use super::fuse::FuseFile;
use super::loop_device::LoopDevice;
use crate::clock;

/// A process that was killed lets go of its files a moment later.
const UNMOUNTED_WITHIN: std::time::Duration = std::time::Duration::from_secs(20);

/// File systems that know the shutdown ioctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

impl FileSystem {
    /// Its name, as `mount` knows it.
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    fn make(self, file: &Path) -> Result<()> {
        let (program, options): (_, &[&str]) = match self {
            // Everything is written now, so that nothing is written behind the back of a cut.
            FileSystem::Ext4 => (
                "mkfs.ext4",
                &["-qF", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", "-m", "0"],
            ),
            FileSystem::Xfs => ("mkfs.xfs", &["-qfK", "-s", "size=4096"]),
        };
        run(program, options.iter().map(OsStr::new).chain([file.as_os_str()])).map(drop)
    }
}

/// What the loop device is attached to.
#[derive(Debug)]
enum Backing {
    Plain(PathBuf),
    Volatile(FuseFile),
}

/// A mounted image.
#[derive(Debug)]
pub struct Image {
    // The order of the fields is that of dropping; see `Drop`.
    file_system: FileSystem,
    mount_point: PathBuf,
    is_mounted: bool,
    backing: Backing,
}

impl Image {
    /// Makes an image of `bytes` in `directory` and mounts it there. It keeps whatever was written to it.
    pub fn create(directory: &Path, file_system: FileSystem, bytes: u64) -> Result<Image> {
        let file = directory.join("disk.image");
        File::create_new(&file)?.set_len(bytes)?;
        Image::format(directory, file_system, Backing::Plain(file))
    }

    /// Makes an image of `bytes` on a device with a volatile cache, and mounts it in `directory`.
    pub fn create_volatile(directory: &Path, file_system: FileSystem, bytes: u64, seed: u64) -> Result<Image> {
        let file = directory.join("device");
        File::create_new(&file)?;
        let device = FuseFile::serve(&file, Device::new(usize::try_from(bytes)?, seed))?;
        Image::format(directory, file_system, Backing::Volatile(device))
    }

    fn format(directory: &Path, file_system: FileSystem, backing: Backing) -> Result<Image> {
        let mount_point = directory.join("mounted");
        fs::create_dir(&mount_point)?;
        let mut image = Image { file_system, mount_point, is_mounted: false, backing };
        file_system.make(image.file())?;
        image.mount()?;
        Ok(image)
    }

    fn file(&self) -> &Path {
        match &self.backing {
            Backing::Plain(file) => file,
            Backing::Volatile(file) => file.path(),
        }
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The device with the volatile cache. Panics for an image that has none.
    pub fn device(&self) -> std::sync::MutexGuard<'_, Device> {
        match &self.backing {
            Backing::Plain(_) => panic!("an image on a plain file has no device"),
            Backing::Volatile(file) => file.device(),
        }
    }

    /// Unmounts and mounts again, which replays the file system's log. Whoever had a file open there is dead.
    pub fn remount(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Unmounts; the loop device detaches. Whoever had a file open there is dead.
    pub fn unmount(&mut self) -> Result<()> {
        let deadline = clock::now() + UNMOUNTED_WITHIN;
        loop {
            match unmount(&self.mount_point, UnmountFlags::empty()) {
                Ok(()) => break,
                Err(Errno::BUSY) if clock::now() < deadline => std::thread::sleep(std::time::Duration::from_millis(1)),
                Err(error) => return Err(error).context("cannot unmount"),
            }
        }
        self.is_mounted = false;
        Ok(())
    }

    /// Mounts.
    pub fn mount(&mut self) -> Result<()> {
        let device = LoopDevice::attach(self.file())?;
        mount(device.path(), &self.mount_point, self.file_system.name(), MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {} on {}", self.file_system.name(), device.path().display()))?;
        self.is_mounted = true;
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Lazily: a panic may come while a process still has files open. The device goes when its last user does.
        if self.is_mounted
            && let Err(error) = unmount(&self.mount_point, UnmountFlags::DETACH)
        {
            eprintln!("cannot unmount {}: {error}", self.mount_point.display());
        }
        // Its room goes with its last user. The file of a device holds nothing.
        if let Backing::Plain(file) = &self.backing
            && let Err(error) = fs::remove_file(file)
        {
            eprintln!("cannot remove {}: {error}", file.display());
        }
    }
}

/// Why no image can be made here, if none can.
pub fn obstacle(file_system: FileSystem, directory: &Path, volatile: bool) -> Option<String> {
    let try_one = || -> Result<()> {
        fs::create_dir_all(directory)?;
        let bytes = 320 << 20;
        if volatile {
            Image::create_volatile(directory, file_system, bytes, 1).map(drop)
        } else {
            Image::create(directory, file_system, bytes).map(drop)
        }
    };
    let found = try_one().err().map(|error| format!("an image cannot be mounted: {error:#}"));
    let _ = fs::remove_dir_all(directory);
    found
}

fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
