//! One flipped bit in what a node has on its disk of partitions: segments with their checksums and indexes, and the
//! journal. The metadata log has its own ([`Place::in_metadata`]).
//!
//! A flip is done through the page cache, synced, and dropped from it: who reads afterwards reads the device.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use rustix::fs::{Advice, fadvise};

use crate::random::Random;

/// Bytes of a block, of checksums as of devices.
const BLOCK_BYTES: usize = 4 << 10;
/// Bits of a journal are flipped so near its end: what lies farther back is in segments, and nobody reads it again.
const JOURNAL_BLOCKS: usize = 1_024;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Records.
    Log,
    /// Checksums of their blocks.
    Sum,
    /// Where records are: a cache.
    Index,
    /// The ordered history of the directory.
    Journal,
}

impl Class {
    const fn extension(self) -> &'static str {
        match self {
            Class::Log => "log",
            Class::Sum => "sum",
            Class::Index => "index",
            Class::Journal => "journal",
        }
    }
}

/// A bit of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bit {
    /// The file.
    pub path: PathBuf,
    /// The byte.
    pub position: u64,
    /// Which of its bits.
    pub bit: u8,
}

impl Bit {
    /// Flips it, on the device.
    pub fn flip(&self) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.position)?;
        byte[0] ^= 1 << self.bit;
        file.write_all_at(&byte, self.position)?;
        file.sync_data()?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    }
}

/// The files of a node whose bits may be flipped.
#[derive(Debug)]
pub struct Place {
    /// With their sizes.
    files: Vec<(Class, PathBuf, u64)>,
    /// Blocks of the journal's newest file that have been written, the last ones.
    journal: Vec<u64>,
    flipped: BTreeSet<Bit>,
}

impl Place {
    /// All partition data of a node that does not run; of a running one, segments that are sealed: what is still being
    /// written lies in its memory.
    pub fn in_partitions(data: &Path, is_running: bool) -> Result<Place> {
        let mut files = Vec::new();
        for directory in partitions(data)? {
            let names = names(&directory)?;
            let newest = names.iter().filter_map(|name| base(name)).max();
            for name in names.iter().filter(|name| !is_running || base(name) < newest) {
                let class = [Class::Log, Class::Sum, Class::Index].into_iter();
                let class = class.into_iter().find(|class| name.ends_with(&format!(".{}", class.extension())));
                let path = directory.join(name);
                if let (Some(class), Ok(status)) = (class, path.metadata())
                    && status.len() > 0
                {
                    files.push((class, path, status.len()));
                }
            }
        }
        let mut journal = Vec::new();
        if !is_running {
            let newest = newest_journal(&data.join("journal"))?;
            journal = written_blocks(&newest)?;
            files.push((Class::Journal, newest, 0));
        }
        Ok(Place { files, journal, flipped: BTreeSet::new() })
    }

    /// The newest file of a node's metadata log.
    pub fn in_metadata(data: &Path) -> Result<Place> {
        let newest = newest_journal(&data.join("metadata"))?;
        let journal = written_blocks(&newest)?;
        Ok(Place { files: vec![(Class::Journal, newest, 0)], journal, flipped: BTreeSet::new() })
    }

    /// A bit that was not flipped yet. Two of three lie in records, in proportion to the files' sizes.
    pub fn choose(&mut self, random: &mut Random) -> Result<(Class, Bit)> {
        loop {
            let wanted = match random.below(12) {
                0 | 1 => Class::Journal,
                2 => Class::Sum,
                3 => Class::Index,
                _ => Class::Log,
            };
            let class = if self.files.iter().any(|(class, ..)| *class == wanted) { wanted } else { self.common()? };
            let of_class: Vec<&(Class, PathBuf, u64)> = self.files.iter().filter(|file| file.0 == class).collect();
            let bytes = of_class.iter().map(|(_, _, bytes)| bytes).sum();
            let mut at = random.below(bytes);
            let mut found = of_class[0];
            for file in of_class {
                found = file;
                if at < file.2 {
                    break;
                }
                at -= file.2;
            }
            if class == Class::Journal {
                let block = random.below(self.journal.len() as u64) as usize;
                at = self.journal.get(block).context("an empty journal")? + random.below(BLOCK_BYTES as u64);
            }
            let bit = Bit { path: found.1.clone(), position: at, bit: random.below(8) as u8 };
            if self.flipped.insert(bit.clone()) {
                return Ok((class, bit));
            }
        }
    }

    /// The class to take instead of one that has no file: records, if there are any.
    fn common(&self) -> Result<Class> {
        self.files.iter().map(|(class, ..)| *class).min().context("no file to damage")
    }
}

/// Directories of replicas: `<topic id>-<partition>`.
pub(super) fn partitions(data: &Path) -> Result<Vec<PathBuf>> {
    let of_replica = |name: &str| {
        let parts = name.rsplit_once('-');
        parts.is_some_and(|(topic, partition)| topic.len() == 22 && partition.parse::<u32>().is_ok())
    };
    Ok(names(data)?.iter().filter(|name| of_replica(name)).map(|name| data.join(name)).collect())
}

/// Names in a directory, in order.
pub(super) fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The base offset that a segment's file is named by, in digits.
fn base(name: &str) -> Option<&str> {
    name.split('.').next().filter(|base| base.len() == 20)
}

fn newest_journal(directory: &Path) -> Result<PathBuf> {
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    for name in names(directory)?.iter().filter(|name| name.ends_with(".journal")) {
        let path = directory.join(name);
        let written = path.metadata()?.modified()?;
        newest = newest.max(Some((written, path)));
    }
    Ok(newest.with_context(|| format!("no journal in {}", directory.display()))?.1)
}

/// Positions of the last blocks of a file that are not all zeroes.
fn written_blocks(path: &Path) -> Result<Vec<u64>> {
    let file = File::open(path)?;
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    file.read_exact_at(&mut bytes, 0)?;
    let blocks = bytes.chunks(BLOCK_BYTES).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
    let mut written: Vec<u64> = blocks.map(|(place, _)| (place * BLOCK_BYTES) as u64).collect();
    let passed = written.len().saturating_sub(JOURNAL_BLOCKS);
    Ok(written.split_off(passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_segments_only_of_a_running_node_and_everything_of_a_stopped_one() {
        let data = tempfile::tempdir().unwrap();
        let replica = data.path().join("fqZyoj2fQXKvIJVzwmrNQw-0");
        let journal = data.path().join("journal");
        for directory in [&replica, &journal, &data.path().join("metadata")] {
            std::fs::create_dir(directory).unwrap();
        }
        let (old, new) = (replica.join("00000000000000000000.log"), replica.join("00000000000000000007.log"));
        for path in [&old, &new, &journal.join("00000000000000000002.journal")] {
            std::fs::write(path, vec![1; 64]).unwrap();
        }
        let mut random = Random::new(1);
        let mut chosen = |is_running: bool| {
            let mut place = Place::in_partitions(data.path(), is_running).unwrap();
            (0..40).map(|_| place.choose(&mut random).unwrap().1.path).collect::<BTreeSet<_>>()
        };
        assert_eq!(chosen(true), BTreeSet::from([old.clone()]));
        assert_eq!(chosen(false).len(), 3);
        let bit = Bit { path: old.clone(), position: 3, bit: 2 };
        bit.flip().unwrap();
        assert_eq!(std::fs::read(old).unwrap()[..5], [1, 1, 1, 5, 1]);
    }
}
