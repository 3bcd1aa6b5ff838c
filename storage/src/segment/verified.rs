//! One segment open for reading; nothing leaves it unchecked.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::Timestamp;

use super::read::buffer;
use super::walk::Batches;
use super::{BLOCK_BYTES, Segment, SegmentFile, SegmentId};
use crate::Fault;
use crate::disk::DiskFile;
use crate::holes::HoleBytes;
use crate::index::{SparseIndex, file as index_file};
use crate::job::FileAccess;

/// How much is read at once to build an index.
const SCAN_BYTES: u64 = 1 << 20;

/// One entry per this many bytes in an index that is built from the file.
const REBUILT_INTERVAL_BYTES: u32 = 4096;

/// What a [`Fault::Damage`] calls a segment that was deleted meanwhile.
const GONE: &str = "segment that is no more";

/// Whether a read failed only because its segment was deleted meanwhile: ask the log again.
pub(crate) fn is_gone(fault: &Fault) -> bool {
    matches!(fault, Fault::Damage { what: GONE, .. })
}

/// See the module's comment.
pub(crate) struct VerifiedSegment<'a> {
    access: &'a FileAccess,
    id: SegmentId,
    segment: Segment,
    closed: bool,
    /// Rising. What lies in them is not looked at.
    skip: &'a [HoleBytes],
    log: Arc<dyn DiskFile>,
    sums: Option<Arc<dyn DiskFile>>,
    patience: Patience<'a>,
}

/// Whether a read may wait for the device.
#[derive(Debug)]
pub(super) enum Patience<'a> {
    /// It is a job.
    Waits,
    /// It runs on a lane: what would wait fails with `WouldBlock`, and so does what goes beyond the bytes that the lane
    /// may read, which are taken off here whatever comes of the read.
    DoesNotWait(&'a Cell<u64>),
}

impl<'a> VerifiedSegment<'a> {
    /// Opens a segment as it was known when the read was planned; `None` when its file is gone.
    pub(crate) fn open(
        access: &'a FileAccess,
        id: SegmentId,
        segment: Segment,
        closed: bool,
        skip: &'a [HoleBytes],
    ) -> Result<Option<VerifiedSegment<'a>>, Fault> {
        let Some(log) = access.files().open_existing(access, id, SegmentFile::Log)? else { return Ok(None) };
        let sums = match closed || segment.bytes >= BLOCK_BYTES {
            true => access.files().open_existing(access, id, SegmentFile::Sums)?,
            false => None,
        };
        Ok(Some(VerifiedSegment { access, id, segment, closed, skip, log, sums, patience: Patience::Waits }))
    }

    /// A segment without holes whose files are open already, for reads that do not wait.
    pub(super) fn already_open(
        access: &'a FileAccess,
        id: SegmentId,
        segment: Segment,
        closed: bool,
        bytes_left: &'a Cell<u64>,
    ) -> Option<VerifiedSegment<'a>> {
        let log = access.files().opened(id, SegmentFile::Log)?;
        let sums = access.files().opened(id, SegmentFile::Sums);
        let patience = Patience::DoesNotWait(bytes_left);
        Some(VerifiedSegment { access, id, segment, closed, skip: &[], log, sums, patience })
    }

    /// Fills the buffer; fewer bytes only at the end of the file.
    fn read_file(&self, file: &dyn DiskFile, position: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.patience {
            Patience::Waits => file.read_at(position, buffer),
            Patience::DoesNotWait(_) => file.read_now_at(position, buffer).map(|()| buffer.len()),
        }
    }

    /// Takes bytes off what a lane may read.
    fn spend(&self, bytes: u64) -> std::io::Result<()> {
        let Patience::DoesNotWait(left) = self.patience else { return Ok(()) };
        let is_enough = left.get() >= bytes;
        left.set(left.get().saturating_sub(bytes));
        if is_enough { Ok(()) } else { Err(std::io::ErrorKind::WouldBlock.into()) }
    }

    /// Bytes that may be read.
    pub(crate) fn bytes(&self) -> u64 {
        self.segment.bytes
    }

    /// Where whole batches end that begin at `position`: at the next hole, or with the segment. A position in a hole is
    /// moved behind it first.
    pub(super) fn stretch(&self, position: u64) -> (u64, u64) {
        let mut position = position;
        for hole in self.skip {
            if position < u64::from(hole.from) {
                return (position, u64::from(hole.from).min(self.segment.bytes));
            }
            position = position.max(u64::from(hole.to));
        }
        (position.min(self.segment.bytes), self.segment.bytes)
    }

    /// Bytes from `position` on, checked block by block. `position + len` is within the segment.
    pub(crate) fn read(&self, position: u64, len: u64) -> Result<Bytes, Fault> {
        let first = position / BLOCK_BYTES;
        let start = first * BLOCK_BYTES;
        let end = (position + len).next_multiple_of(BLOCK_BYTES).min(self.segment.bytes);
        self.spend(end - start).map_err(|source| self.fault(SegmentFile::Log, "read", start, source))?;
        let mut bytes = buffer(end - start);
        let read = self
            .read_file(&*self.log, start, &mut bytes)
            .map_err(|source| self.fault(SegmentFile::Log, "read", start, source))?;
        if read < bytes.len() {
            return Err(self.damage("segment", start + read as u64, "the file ends before its checkpointed end"));
        }
        let sums = self.sums(first, (end - start).div_ceil(BLOCK_BYTES))?;
        for (at, (block, sum)) in bytes.chunks(BLOCK_BYTES as usize).zip(sums).enumerate() {
            let matches = crc32c::crc32c(block) == sum;
            #[cfg(feature = "mutants")]
            let matches = matches || crate::mutants::Guard::SegmentChecksum.is_off();
            if !matches {
                let block_start = start + at as u64 * BLOCK_BYTES;
                return Err(self.damage("segment block", block_start, "its checksum does not match"));
            }
        }
        let from = (position - start) as usize;
        Ok(bytes.freeze().slice(from..from + len as usize))
    }

    fn sums(&self, first: u64, count: u64) -> Result<Vec<u32>, Fault> {
        let full = self.segment.bytes / BLOCK_BYTES;
        let partial_is_known = !self.closed && first + count > full;
        let counted = if partial_is_known { full - first } else { count };
        // Asked for before the file is read: what leaves there is in the file first.
        let pending = self.access.pending_sums().get(self.id, first, counted);
        let stored = pending.as_ref().map_or(counted, |(from, _)| from - first);
        let mut sums = Vec::with_capacity(count as usize);
        if stored > 0 {
            let mut bytes = buffer(stored * 4);
            // It may have been made since the segment was opened: until then its checksums were in memory.
            let file = match (&self.sums, &self.patience) {
                (None, Patience::Waits) => {
                    self.access.files().open_existing(self.access, self.id, SegmentFile::Sums)?
                }
                (known, _) => known.clone(),
            };
            let Some(file) = file else { return Err(self.without_sums(0, "its checksum file is missing")?) };
            let read = self
                .read_file(&*file, first * 4, &mut bytes)
                .map_err(|source| self.fault(SegmentFile::Sums, "read", first * 4, source))?;
            if read < bytes.len() {
                return Err(self.without_sums(first * BLOCK_BYTES, "its checksum file is too short")?);
            }
            sums.extend(bytes.chunks_exact(4).map(|sum| u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]])));
        }
        sums.extend(pending.into_iter().flat_map(|(_, sums)| sums));
        if sums.len() as u64 != counted {
            return Err(self.without_sums(first * BLOCK_BYTES, "its checksum file is too short")?);
        }
        if partial_is_known {
            sums.push(self.segment.partial_crc);
        }
        Ok(sums)
    }

    /// Checksums are not where they should be. A segment that is deleted loses its name before them: then it has moved.
    fn without_sums(&self, position: u64, detail: &str) -> Result<Fault, Fault> {
        let path = self.id.path(SegmentFile::Log);
        let exists = self.access.disk().exists(&self.access.path(&path));
        Ok(match exists.map_err(|source| self.access.fault("stat", &path, None, source))? {
            true => self.damage("segment", position, detail),
            false => self.damage(GONE, position, "it was deleted while it was read"),
        })
    }

    /// The segment's index: from memory, from its file, or built from the batches.
    pub(crate) fn index(&self) -> Result<Arc<SparseIndex>, Fault> {
        let files = self.access.files();
        // An open segment grows; what its index does not know yet is walked.
        if let Some((index, known)) = files.index(self.id)
            && (known == self.segment.bytes || (!self.closed && known < self.segment.bytes))
        {
            return Ok(index);
        }
        if matches!(self.patience, Patience::DoesNotWait(_)) {
            return Err(self.fault(SegmentFile::Index, "read", 0, std::io::ErrorKind::WouldBlock.into()));
        }
        let stored = if self.closed { index_file::read(self.access, self.id, self.segment.bytes)? } else { None };
        let index = match stored {
            Some(index) => Arc::new(index),
            None => {
                let index = Arc::new(self.build_index()?);
                if self.closed {
                    match index_file::write(self.access, self.id, self.segment.bytes, &index) {
                        Ok(()) => {}
                        Err(fault) if fault.is_device_failure() => return Err(fault),
                        // A cache; the segment may be on its way out, too.
                        Err(fault) => tracing::debug!("an index was not kept: {fault}"),
                    }
                }
                index
            }
        };
        files.put_index(self.id, Arc::clone(&index), self.segment.bytes);
        Ok(index)
    }

    fn build_index(&self) -> Result<SparseIndex, Fault> {
        let mut index = SparseIndex::starting(self.id.base, 0, Timestamp::NONE);
        self.for_each_window(0, SCAN_BYTES, |position, window| {
            for (at, header) in Batches::of(&window) {
                if header.base_offset < self.id.base || header.next_offset() > self.segment.end {
                    return Err(self.damage("batch", position + at as u64, "its offset lies outside the segment"));
                }
                let place = position + at as u64;
                index.push(
                    header.base_offset,
                    place,
                    header.batch_bytes as u64,
                    header.max_timestamp,
                    REBUILT_INTERVAL_BYTES,
                );
            }
            Ok(true)
        })?;
        Ok(index)
    }

    pub(crate) fn damage(&self, what: &'static str, position: u64, detail: &str) -> Fault {
        Fault::Damage {
            what,
            path: self.access.path(&self.id.path(SegmentFile::Log)),
            position,
            detail: detail.to_owned(),
        }
    }

    fn fault(&self, file: SegmentFile, operation: &'static str, position: u64, source: std::io::Error) -> Fault {
        self.access.fault(operation, &self.id.path(file), Some(position), source)
    }
}
