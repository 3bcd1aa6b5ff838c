//! What is done to a victim, over and over, and what is asked afterwards.

pub mod broker;
pub mod broker_faults;
pub mod cluster;
pub mod faults;
pub mod storage;

use anyhow::{Result, anyhow};

use super::Rig;
use super::image::{FileSystem, Image};
use super::sandbox::Sandbox;
use crate::random::Random;

/// Where a part of a campaign runs, and from which seed.
#[derive(Debug)]
pub struct Place<'a> {
    /// Its mounts.
    pub sandbox: &'a Sandbox,
    /// How the power goes.
    pub rig: Rig,
    /// On what.
    pub file_system: FileSystem,
    /// Chooses everything that is chosen.
    pub seed: u64,
}

impl Place<'_> {
    /// A fresh, mounted image.
    pub(super) fn image(&self, bytes: u64) -> Result<Image> {
        self.image_from(bytes, self.seed)
    }

    /// So many of them; if they are devices, each forgets by a coin of its own.
    pub(super) fn images<const N: usize>(&self, bytes: u64) -> Result<[Image; N]> {
        let images: Vec<Image> =
            (0..N as u64).map(|number| self.image_from(bytes, self.seed ^ number)).collect::<Result<_>>()?;
        images.try_into().map_err(|_| anyhow!("not {N} images"))
    }

    fn image_from(&self, bytes: u64, seed: u64) -> Result<Image> {
        let directory = self.sandbox.fresh()?;
        match self.rig {
            Rig::Shutdown => Image::create(&directory, self.file_system, bytes),
            Rig::Device => Image::create_volatile(&directory, self.file_system, bytes, seed),
        }
    }
}

/// When the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// In the middle of the load.
    UnderLoad,
    /// Just after a SIGKILL and a start, when recovered bytes may be in the page cache only.
    JustStarted,
    /// While the victim starts after a SIGKILL.
    Starting,
}

impl Moment {
    pub(super) fn choose(random: &mut Random) -> Moment {
        match random.below(4) {
            0 => Moment::JustStarted,
            1 => Moment::Starting,
            _ => Moment::UnderLoad,
        }
    }
}
