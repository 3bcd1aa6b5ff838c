//! Where a file's bytes lie on the device, by `filefrag`, and which file is of which class.

use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::device::BLOCK_BYTES;
use crate::random::Random;

/// Classes of files in a log directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileClass {
    /// Journal files in use.
    Journal,
    /// Segments.
    Log,
    /// Block checksums of segments.
    Sums,
    /// Indexes of segments.
    Index,
    /// The checkpoint, either copy.
    Checkpoint,
}

impl FileClass {
    /// All of them.
    pub const ALL: [FileClass; 5] =
        [FileClass::Journal, FileClass::Log, FileClass::Sums, FileClass::Index, FileClass::Checkpoint];

    /// For messages and the ledger.
    pub fn name(self) -> &'static str {
        match self {
            FileClass::Journal => "journal",
            FileClass::Log => "log",
            FileClass::Sums => "sums",
            FileClass::Index => "index",
            FileClass::Checkpoint => "checkpoint",
        }
    }

    fn has(self, name: &str) -> bool {
        match self {
            FileClass::Journal => name.ends_with(".journal"),
            FileClass::Log => name.ends_with(".log"),
            FileClass::Sums => name.ends_with(".sum"),
            FileClass::Index => name.ends_with(".index"),
            FileClass::Checkpoint => name == "checkpoint" || name == "checkpoint.copy",
        }
    }

    /// Whether anything was written to the file: a journal's spares are zeroes.
    fn is_used(self, path: &Path) -> Result<bool> {
        if self != FileClass::Journal {
            return Ok(true);
        }
        let mut magic = [0; 8];
        let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
        Ok(read.is_ok() && magic != [0; 8])
    }

    /// One file of the class in the log directory, if there is one with bytes in it.
    pub(super) fn pick(self, directory: &Path, random: &mut Random) -> Result<Option<PathBuf>> {
        let mut found = Vec::new();
        let mut wanted = vec![directory.to_owned()];
        while let Some(next) = wanted.pop() {
            for entry in std::fs::read_dir(&next)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                // A file may go between the listing and the look at it.
                let Ok(found_there) = entry.metadata() else { continue };
                if found_there.is_dir() {
                    wanted.push(entry.path());
                } else if self.has(&name) && found_there.len() > 0 && self.is_used(&entry.path())? {
                    found.push(entry.path());
                }
            }
        }
        found.sort();
        Ok((!found.is_empty()).then(|| found.swap_remove(random.below(found.len() as u64) as usize)))
    }
}

/// A file's extents, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents {
    /// First block in the file, and blocks on the device.
    runs: Vec<(u64, Range<u64>)>,
    len: u64,
}

impl Extents {
    /// Of the file at `path`, whose bytes have been written back.
    pub fn of(path: &Path) -> Result<Extents> {
        let output = Command::new("filefrag").args(["-s", "-e", "-b4096"]).arg(path).output();
        let output = output.context("cannot run filefrag")?;
        if !output.status.success() {
            bail!("filefrag failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let runs = parse(&String::from_utf8_lossy(&output.stdout));
        Ok(Extents { runs, len: path.metadata()?.len() })
    }

    /// Where byte `at` of the file lies on the device; `None` in a hole.
    pub fn device_byte(&self, at: u64) -> Option<u64> {
        let block = at / BLOCK_BYTES as u64;
        let (logical, run) =
            self.runs.iter().find(|(logical, run)| (*logical..logical + (run.end - run.start)).contains(&block))?;
        Some((run.start + block - logical) * BLOCK_BYTES as u64 + at % BLOCK_BYTES as u64)
    }

    /// The length of the file.
    pub fn len_bytes(&self) -> u64 {
        self.len
    }

    /// The longest run of blocks on the device; `None` for a file without any.
    pub fn longest(&self) -> Option<Range<u64>> {
        self.runs.iter().map(|(_, run)| run.clone()).max_by_key(|run| run.end - run.start)
    }
}

/// Lines like `   0:        0..       9:   22229324..  22229333:     10:             last,eof`.
fn parse(text: &str) -> Vec<(u64, Range<u64>)> {
    let parse_line = |line: &str| {
        let mut fields = line.split(':');
        fields.next()?.trim().parse::<u64>().ok()?;
        let mut range = || {
            let (from, to) = fields.next()?.split_once("..")?;
            Some((from.trim().parse::<u64>().ok()?, to.trim().parse::<u64>().ok()?))
        };
        let ((logical, _), (from, to)) = (range()?, range()?);
        Some((logical, from..to + 1))
    };
    text.lines().filter_map(parse_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_through_the_extents() {
        let text = "Filesystem type is: ef53\n\
            File size of x is 40470 (10 blocks of 4096 bytes)\n \
            ext:     logical_offset:        physical_offset: length:   expected: flags:\n   \
            0:        0..       3:        100..       103:      4:\n   \
            1:        6..       9:        200..       203:      4:        104: last,eof\n\
            x: 2 extents found\n";
        let extents = Extents { runs: parse(text), len: 40_470 };
        assert_eq!(extents.device_byte(4096 + 5), Some(101 * 4096 + 5));
        assert_eq!(extents.device_byte(7 * 4096), Some(201 * 4096));
        assert_eq!(extents.device_byte(4 * 4096), None, "a hole");
        assert_eq!(extents.longest().map(|run| run.end - run.start), Some(4));
    }
}
