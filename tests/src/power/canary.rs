//! Two files that say whether a cut was one: a synced file that must survive, and one that was not synced and must not.
//!
//! Both have names that were never used before, so that neither can be a leftover. The synced one is made well before
//! the cut, lest its fsync carry others' bytes to the device.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Written and not synced: more than a journal block, so that it cannot hide in the inode.
const EXPOSED_BYTES: usize = 64 << 10;

/// A canary that is synced.
#[derive(Debug)]
pub struct Canary {
    number: u64,
}

/// A canary whose second file waits for the cut.
#[derive(Debug)]
pub struct ExposedCanary {
    number: u64,
}

impl Canary {
    /// Writes the file that must survive, and syncs it and its directory. `number` was never used in this image.
    pub fn plant(mount_point: &Path, number: u64) -> Result<Canary> {
        let mut file = File::create_new(mount_point.join(kept(number)))?;
        file.write_all(&number.to_be_bytes())?;
        file.sync_all()?;
        File::open(mount_point)?.sync_all()?;
        Ok(Canary { number })
    }

    /// Writes the file that must vanish. Nothing else writes or syncs any more.
    pub(super) fn expose(self, mount_point: &Path) -> Result<ExposedCanary> {
        let mut file = File::create_new(mount_point.join(exposed(self.number)))?;
        file.write_all(&vec![0xca; EXPOSED_BYTES])?;
        Ok(ExposedCanary { number: self.number })
    }
}

impl ExposedCanary {
    /// Whether the cut lost what was not synced. Fails when it lost what was: then the machine is not fit for this test.
    pub(super) fn judge(self, mount_point: &Path) -> Result<bool> {
        let name = kept(self.number);
        let found =
            fs::read(mount_point.join(&name)).with_context(|| format!("the synced file {name} did not survive"))?;
        if found != self.number.to_be_bytes() {
            bail!("the synced file {name} came back with other bytes");
        }
        match fs::read(mount_point.join(exposed(self.number))) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(false),
        }
    }
}

fn kept(number: u64) -> String {
    format!("canary-{number}-kept")
}

fn exposed(number: u64) -> String {
    format!("canary-{number}-exposed")
}
