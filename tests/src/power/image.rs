//! A file that holds a file system, attached to a loop device and mounted. Dropping it detaches both, also in a panic.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

/// Sparse; a journal of its default size and some segments fit.
const IMAGE_BYTES: u64 = 3 << 30;

/// File systems that know the shutdown ioctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

impl FileSystem {
    fn make_command(self) -> [&'static str; 2] {
        match self {
            FileSystem::Ext4 => ["mkfs.ext4", "-qF"],
            FileSystem::Xfs => ["mkfs.xfs", "-qf"],
        }
    }
}

/// A mounted image.
#[derive(Debug)]
pub struct Image {
    device: PathBuf,
    mount_point: PathBuf,
    is_mounted: bool,
}

impl Image {
    /// Makes an image of its own in `directory` and mounts it there.
    pub fn create(directory: &Path, file_system: FileSystem) -> Result<Image> {
        let file = directory.join("disk.image");
        File::create_new(&file)?.set_len(IMAGE_BYTES)?;
        let [program, options] = file_system.make_command();
        run(program, [OsStr::new(options), file.as_os_str()])?;
        let mount_point = directory.join("mounted");
        fs::create_dir(&mount_point)?;
        let device = run("losetup", [OsStr::new("--find"), OsStr::new("--show"), file.as_os_str()])?;
        let mut image = Image { device: PathBuf::from(device.trim()), mount_point, is_mounted: false };
        image.mount()?;
        Ok(image)
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Unmounts and mounts again, which replays the file system's log. Nobody has a file open there.
    pub fn remount(&mut self) -> Result<()> {
        run("umount", [&self.mount_point])?;
        self.is_mounted = false;
        self.mount()
    }

    fn mount(&mut self) -> Result<()> {
        run("mount", [&self.device, &self.mount_point])?;
        self.is_mounted = true;
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Lazily: a panic may come while a broker still has files open. The device goes when its last user does.
        if self.is_mounted
            && let Err(error) = run("umount", [OsStr::new("--lazy"), self.mount_point.as_os_str()])
        {
            eprintln!("{error:#}");
        }
        if let Err(error) = run("losetup", [OsStr::new("--detach"), self.device.as_os_str()]) {
            eprintln!("{error:#}");
        }
    }
}

/// Why no image can be made here, if none can.
pub fn obstacle(file_system: FileSystem) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("loop devices and mounts need root".to_owned());
    }
    let [program, _] = file_system.make_command();
    if !Command::new(program).arg("-V").output().is_ok_and(|output| output.status.success()) {
        return Some(format!("{program} is not installed"));
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("there are no loop devices".to_owned());
    }
    let try_one = || -> Result<()> {
        let directory = tempfile::tempdir()?;
        Image::create(directory.path(), file_system).map(drop)
    };
    try_one().err().map(|error| format!("an image cannot be mounted: {error:#}"))
}

fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
