//! Files that say whether a cut was one: a synced one that must survive, and one that was not synced and must not.
//!
//! Each has a name that was never used before, so that it cannot be a leftover. The synced one is made well before
//! the cut, lest its fsync carry others' bytes to the device. The other is written just before it: into the page cache,
//! or, for a device with a cache of its own, past it and into that cache.

use std::fs::{self, File};
use std::io::{ErrorKind, IoSlice, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Mode, OFlags};
use stonelog_storage::disk::aligned::AlignedBuffer;

/// Written and not synced: more than a journal block, so that it cannot hide in the inode.
const EXPOSED_BYTES: usize = 64 << 10;
/// What the second file holds before it is written again.
const BEFORE: u8 = 0x11;
const AFTER: u8 = 0xca;

/// A canary that is synced.
#[derive(Debug)]
pub struct Canary {
    number: u64,
    in_device: bool,
}

/// A canary whose second file waits for the cut.
#[derive(Debug)]
pub struct ExposedCanary {
    number: u64,
    in_device: bool,
}

impl Canary {
    /// Writes the file that must survive, and syncs it and its directory. `number` was never used in this image.
    /// With `in_device` the second file exists already, and what must not survive is its new bytes.
    pub fn plant(mount_point: &Path, number: u64, in_device: bool) -> Result<Canary> {
        let mut file = File::create_new(mount_point.join(kept(number)))?;
        file.write_all(&number.to_be_bytes())?;
        file.sync_all()?;
        if in_device {
            let mut file = File::create_new(mount_point.join(exposed(number)))?;
            file.write_all(&vec![BEFORE; EXPOSED_BYTES])?;
            file.sync_all()?;
        }
        File::open(mount_point)?.sync_all()?;
        Ok(Canary { number, in_device })
    }

    /// Writes what must vanish.
    pub(super) fn expose(self, mount_point: &Path) -> Result<ExposedCanary> {
        let path = mount_point.join(exposed(self.number));
        if self.in_device {
            let direct = rustix::fs::open(&path, OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty())?;
            let mut bytes = AlignedBuffer::zeroed(EXPOSED_BYTES);
            bytes.fill(AFTER);
            let written = rustix::io::pwritev(&direct, &[IoSlice::new(&bytes)], 0)?;
            if written != EXPOSED_BYTES {
                bail!("a short write of the canary");
            }
        } else {
            File::create_new(path)?.write_all(&vec![AFTER; EXPOSED_BYTES])?;
        }
        Ok(ExposedCanary { number: self.number, in_device: self.in_device })
    }
}

impl ExposedCanary {
    /// Whether the cut lost of what was not synced. Fails when it lost what was: then the machine is not fit for this
    /// test. Removes both files.
    pub(super) fn judge(self, mount_point: &Path) -> Result<bool> {
        let name = kept(self.number);
        let found =
            fs::read(mount_point.join(&name)).with_context(|| format!("the synced file {name} did not survive"))?;
        if found != self.number.to_be_bytes() {
            bail!("the synced file {name} came back with other bytes");
        }
        let path = mount_point.join(exposed(self.number));
        let lost = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => !self.in_device,
            Err(error) => return Err(error.into()),
            Ok(_) if !self.in_device => false,
            Ok(file) => {
                let mut bytes = vec![0; EXPOSED_BYTES];
                file.read_exact_at(&mut bytes, 0).context("the second synced file is too short")?;
                if let Some(at) = bytes.iter().position(|byte| ![BEFORE, AFTER].contains(byte)) {
                    bail!("byte {at} of the second synced file is {}", bytes[at]);
                }
                bytes.contains(&BEFORE)
            }
        };
        for file in [mount_point.join(name), path] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(lost)
    }
}

fn kept(number: u64) -> String {
    format!("canary-{number}-kept")
}

fn exposed(number: u64) -> String {
    format!("canary-{number}-exposed")
}
