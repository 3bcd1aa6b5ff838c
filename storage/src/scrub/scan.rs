//! Reads one segment past the page cache, a step at a time, through a [`SegmentCheck`].
//!
//! A step is small, so that whoever paces the reading can rest between two. A read that fails is repeated block by
//! block: one bad sector hurts its own block only.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stonelog_protocol::{Offset, TopicPartition};

use super::segment_check::{Depth, SegmentCheck, SegmentReport, Wrong};
use crate::Fault;
use crate::checkpoint::{PartialBlock, ReplicaCheckpoint};
use crate::disk::aligned::{ALIGNMENT, AlignedBuffer};
use crate::disk::{Disk, DiskFile, Open};
use crate::segment::{BLOCK_BYTES, Segment, SegmentFile, SegmentId};

/// Read in one step: small beside what a device does in a moment.
pub const STEP_BYTES: u64 = 4 * BLOCK_BYTES;

/// A segment as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentTarget {
    /// Whose, and what names its files.
    pub id: SegmentId,
    /// The offset after its last.
    pub end: Offset,
    /// Bytes that count.
    pub bytes: u64,
    /// The checksum of its last, partial block where the `.sum` file does not hold it: it is the active one.
    pub last_block: Option<PartialBlock>,
}

impl SegmentTarget {
    /// A segment that does not grow any more.
    pub fn sealed(partition: TopicPartition, segment: &Segment) -> SegmentTarget {
        SegmentTarget { id: segment.id(partition), end: segment.end, bytes: segment.bytes, last_block: None }
    }

    /// The segments that a checkpoint names and that must be there, oldest first.
    pub fn of_checkpoint(replica: &ReplicaCheckpoint) -> Vec<SegmentTarget> {
        let count = replica.segments.len();
        let ends = replica.segments.iter().skip(1).map(|next| next.base).chain([replica.end]);
        let targets = replica.segments.iter().zip(ends).enumerate().map(|(at, (segment, end))| SegmentTarget {
            id: SegmentId { partition: replica.replica.partition, base: segment.base, version: segment.version },
            end,
            bytes: segment.bytes,
            last_block: (at + 1 == count).then_some(replica.last_block),
        });
        targets.filter(|target| target.end > replica.log_start).collect()
    }
}

/// One segment being read. See the module's comment.
pub struct SegmentScan {
    target: SegmentTarget,
    path: PathBuf,
    log: Arc<dyn DiskFile>,
    check: SegmentCheck,
    buffer: AlignedBuffer,
    /// What is wrong with the `.sum` file as a whole, if anything.
    sums_wrong: Option<&'static str>,
    ended: bool,
}

impl SegmentScan {
    /// Opens a segment in the log directory `root`; `None` when its `.log` is not there.
    pub fn open(
        disk: &dyn Disk,
        root: &Path,
        target: SegmentTarget,
        depth: Depth,
    ) -> Result<Option<SegmentScan>, Fault> {
        let path = root.join(target.id.path(SegmentFile::Log));
        let log = match disk.open(&path, Open::Read) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Fault::io("open", &path, error)),
        };
        let (sums, sums_wrong) = read_sums(disk, root, &target)?;
        let check = SegmentCheck::new(target.id.base, target.end, target.bytes, sums, depth);
        let buffer = AlignedBuffer::zeroed(STEP_BYTES as usize);
        Ok(Some(SegmentScan { target, path, log, check, buffer, sums_wrong, ended: false }))
    }

    /// Its `.log`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with its `.sum` file as a whole: every block behind it counts as damaged.
    pub fn sums_wrong(&self) -> Option<&'static str> {
        self.sums_wrong
    }

    /// Reads and checks the next bytes; how many, 0 at the end.
    pub fn step(&mut self) -> u64 {
        let position = self.check.fed();
        let left = self.target.bytes - position;
        if left == 0 || self.ended {
            return 0;
        }
        let len = left.min(STEP_BYTES);
        let wanted = (len as usize).next_multiple_of(ALIGNMENT);
        match self.read(position, wanted) {
            Ok(read) => self.feed(read as u64, len),
            Err(error) => {
                tracing::debug!(path = %self.path.display(), position, %error, "read fails; block by block");
                self.step_by_blocks(len);
            }
        }
        len
    }

    fn read(&mut self, position: u64, wanted: usize) -> io::Result<usize> {
        #[cfg(feature = "mutants")]
        if crate::mutants::Guard::ScrubDeviceRead.is_off() {
            return self.log.read_at(position, &mut self.buffer[..wanted]);
        }
        self.log.read_device_at(position, &mut self.buffer[..wanted])
    }

    /// Hands on what was read; fewer bytes than wanted is the end of the file.
    fn feed(&mut self, read: u64, len: u64) {
        self.ended = read < len;
        let whole = if self.ended { read / BLOCK_BYTES * BLOCK_BYTES } else { len };
        self.check.push(&self.buffer[..whole as usize]);
    }

    fn step_by_blocks(&mut self, len: u64) {
        let end = self.check.fed() + len;
        while self.check.fed() < end && !self.ended {
            let position = self.check.fed();
            let block = (end - position).min(BLOCK_BYTES);
            let wanted = (block as usize).next_multiple_of(ALIGNMENT);
            match self.read(position, wanted) {
                Ok(read) => self.feed(read as u64, block),
                Err(_) => self.check.push_missing(block, Wrong { unreadable: true, ..Wrong::default() }),
            }
        }
    }

    /// What was found.
    pub fn finish(self) -> SegmentReport {
        self.check.finish()
    }
}

/// The checksums of a segment's blocks, as far as they are there.
fn read_sums(disk: &dyn Disk, root: &Path, target: &SegmentTarget) -> Result<(Vec<u32>, Option<&'static str>), Fault> {
    let stored = match target.last_block {
        Some(_) => target.bytes / BLOCK_BYTES,
        None => target.bytes.div_ceil(BLOCK_BYTES),
    };
    let mut sums = Vec::new();
    let mut wrong = None;
    if stored > 0 {
        let path = root.join(target.id.path(SegmentFile::Sums));
        match disk.open(&path, Open::Read) {
            Ok(file) => {
                // Bounded by the `.log` file's size: 1/16,384 of it.
                let len = usize::try_from(stored * 4).expect("a segment is shorter than 2^32 bytes");
                let mut bytes = AlignedBuffer::zeroed(len.next_multiple_of(ALIGNMENT));
                match file.read_device_at(0, &mut bytes) {
                    Ok(read) => {
                        let read = &bytes[..read.min(len)];
                        let whole = read.chunks_exact(4);
                        sums.extend(whole.map(|sum| u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]])));
                        if read.len() < len {
                            wrong = Some("it is too short");
                        }
                    }
                    Err(_) => wrong = Some("the device cannot read it"),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => wrong = Some("it is missing"),
            Err(error) => return Err(Fault::io("open", &path, error)),
        }
    }
    if let Some(last) = target.last_block.filter(|last| last.bytes > 0 && wrong.is_none()) {
        sums.push(last.checksum);
    }
    Ok((sums, wrong))
}
