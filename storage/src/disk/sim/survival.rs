//! What a power cut leaves of un-synced bytes and names.

use super::{Seeded, Tearing};

/// What survives a power cut beside what was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Everything, as when only the process died.
    Everything,
    /// All names, and no bytes: new files are empty, renamed ones hold what they held.
    Names,
    /// All bytes, and no names.
    Bytes,
    /// What a seed says: any un-synced version of each block, a prefix of each directory's changes.
    Some {
        /// The seed.
        seed: u64,
        /// Whether blocks tear.
        tearing: Tearing,
    },
}

/// The choices of one power cut.
pub(super) struct Fate {
    survival: Survival,
    seeded: Seeded,
}

impl Fate {
    pub(super) fn new(survival: Survival) -> Fate {
        let seed = if let Survival::Some { seed, .. } = survival { seed } else { 0 };
        Fate { survival, seeded: Seeded(seed) }
    }

    /// Which of so many un-synced versions is kept, from 1; 0 for none.
    pub(super) fn kept_bytes(&mut self, versions: usize) -> usize {
        match self.survival {
            Survival::Nothing | Survival::Names => 0,
            Survival::Everything | Survival::Bytes => versions,
            Survival::Some { .. } => self.seeded.below(versions + 1),
        }
    }

    /// How many of so many changes of names are kept, from the first on.
    pub(super) fn kept_names(&mut self, changes: usize) -> usize {
        match self.survival {
            Survival::Nothing | Survival::Bytes => 0,
            Survival::Everything | Survival::Names => changes,
            Survival::Some { .. } => self.seeded.below(changes + 1),
        }
    }

    /// Puts bytes that nobody wrote into a sector that was being written, where the tearing allows it.
    pub(super) fn garbage(&mut self, sector: &mut [u8]) {
        if self.tearing() == Tearing::Garbage && self.seeded.below(4) == 0 {
            sector.iter_mut().for_each(|byte| *byte = self.seeded.below(256) as u8);
        }
    }

    pub(super) fn tearing(&self) -> Tearing {
        if let Survival::Some { tearing, .. } = self.survival { tearing } else { Tearing::Blocks }
    }
}
