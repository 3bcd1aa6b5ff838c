//! What is done to a victim, over and over, and what is asked afterwards.

pub mod broker;
pub mod broker_faults;
pub mod faults;
pub mod storage;

use std::path::PathBuf;

use super::Rig;
use super::image::{FileSystem, Image};
use super::sandbox::Sandbox;

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
    /// A fresh, mounted image, and the directory it lies in.
    pub(super) fn image(&self, bytes: u64) -> anyhow::Result<(Image, PathBuf)> {
        let directory = self.sandbox.fresh()?;
        let image = match self.rig {
            Rig::Shutdown => Image::create(&directory, self.file_system, bytes)?,
            Rig::Device => Image::create_volatile(&directory, self.file_system, bytes, self.seed)?,
        };
        Ok((image, directory))
    }
}
