//! The job that writes durable batches into segments.
//!
//! It knows nothing but what the plan says: which bytes go where. It computes checksums on the way: one per full block,
//! left in [`super::pending_sums`], and of the rest for the checkpoint. It does not fsync; [`super::sync`] does, before a
//! checkpoint.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::batch::{BatchHeader, HEADER_BYTES};
use stonelog_protocol::{Offset, Timestamp};

use super::read::is_recycled;
use super::{BLOCK_BYTES, Segment, SegmentFile, SegmentId, SegmentName};
use crate::disk::DiskFile;
use crate::fault::is_no_space;
use crate::index::{SparseIndex, file as index_file};
use crate::job::FileAccess;
use crate::log::Place;
use crate::{Fault, ReplicaKey};

/// Writeback is asked for each time a segment has grown by this much, so that the sync before a checkpoint is short.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// Space is reserved ahead of what is written: as much again as the segment holds, but no more than this.
const RESERVE_AHEAD_BYTES_MAX: u64 = 1 << 20;

/// Whole durable commits of one log, to be written to its segments.
#[derive(Debug)]
pub struct FlushJob {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    pub(crate) through: u64,
    pub(crate) seal_first: Option<SealFirst>,
    pub(crate) parts: Vec<FlushPart>,
}

/// The active segment is full: close it before the first part makes a new one.
#[derive(Debug)]
pub(crate) struct SealFirst {
    pub(crate) segment: Segment,
    pub(crate) index: Option<Arc<SparseIndex>>,
}

/// What goes into one segment.
#[derive(Debug)]
pub(crate) struct FlushPart {
    pub(crate) before: Segment,
    /// As it will be; the job fills in the checksum.
    pub(crate) after: Segment,
    pub(crate) create: bool,
    pub(crate) cut: bool,
    /// Space that is reserved with its first bytes.
    pub(crate) reserve_bytes: u64,
    /// Up to where space is reserved for the segment; 0 when that is not known.
    pub(crate) reserved: u64,
    pub(crate) learn_first: bool,
    pub(crate) seal: bool,
    pub(crate) pieces: Vec<Place>,
    pub(crate) batches: Vec<BatchPlace>,
}

/// One batch, for the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchPlace {
    pub(crate) base_offset: Offset,
    pub(crate) position: u64,
    pub(crate) bytes: u64,
    pub(crate) max_timestamp: Timestamp,
}

/// A flush that was done, for [`crate::log::Log::on_flushed`].
#[derive(Debug)]
pub struct FlushDone {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    pub(crate) through: u64,
    pub(crate) sealed_first: Option<SegmentName>,
    pub(crate) parts: Vec<FlushedPart>,
    /// What it was to write has left the journal: the log was truncated since, and a checkpoint says so.
    pub(crate) abandoned: bool,
}

/// One segment after the flush.
#[derive(Debug)]
pub(crate) struct FlushedPart {
    pub(crate) segment: Segment,
    pub(crate) created: bool,
    pub(crate) reserved: u64,
    pub(crate) batches: Vec<BatchPlace>,
}

impl FlushJob {
    /// Bytes it writes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.after.bytes - part.before.bytes).sum()
    }

    /// Writes everything. After a [`Fault::is_out_of_space`] it may be planned again; any other fault is the end of the
    /// directory.
    pub fn run(self, access: &FileAccess) -> Result<FlushDone, Fault> {
        let partition = self.replica.partition;
        if let Some(seal) = &self.seal_first {
            let id = seal.segment.id(partition);
            close(access, id, &seal.segment)?;
            match &seal.index {
                Some(index) => {
                    index_file::write(access, id, seal.segment.bytes, index)?;
                    access.files().put_index(id, Arc::clone(index), seal.segment.bytes);
                }
                None => index_file::remove(access, id)?,
            }
        }
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            let id = part.before.id(partition);
            let (segment, reserved) = match part.run(access, id) {
                Err(fault) if is_recycled(&fault) => {
                    return Ok(FlushDone {
                        replica: self.replica,
                        through: 0,
                        sealed_first: None,
                        parts: Vec::new(),
                        abandoned: true,
                    });
                }
                result => result?,
            };
            if part.seal {
                close(access, id, &segment)?;
                index_file::remove(access, id)?;
            }
            parts.push(FlushedPart { segment, created: part.create, reserved, batches: part.batches });
        }
        Ok(FlushDone {
            replica: self.replica,
            through: self.through,
            sealed_first: self.seal_first.map(|seal| seal.segment.name()),
            parts,
            abandoned: false,
        })
    }
}

impl FlushPart {
    /// The segment as it is now, and up to where it has space.
    fn run(&self, access: &FileAccess, id: SegmentId) -> Result<(Segment, u64), Fault> {
        let path = id.path(SegmentFile::Log);
        let fault = |operation, position, source| access.fault(operation, &path, Some(position), source);
        let position = self.before.bytes;
        let (log, existed) = if self.create {
            access.files().open_or_create(access, id, SegmentFile::Log)?
        } else {
            let log = access.files().open_existing(access, id, SegmentFile::Log)?;
            let gone = || fault("open", position, std::io::ErrorKind::NotFound.into());
            (log.ok_or_else(gone)?, true)
        };
        let mut reserved = self.reserved;
        if self.create {
            reserved = 0;
            access.pending_sums().forget(id);
        }
        if self.create && existed {
            // Left by a crash or a stale job; nothing names it.
            log.set_len(0).map_err(|source| fault("ftruncate", 0, source))?;
            index_file::remove(access, id)?;
        } else if self.cut {
            log.set_len(position).map_err(|source| fault("ftruncate", position, source))?;
            reserved = 0;
        }
        let mut bytes: Vec<Bytes> = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            bytes.push(match piece {
                Place::Memory(bytes) => bytes.clone(),
                Place::Journal { position, len } => access.read_journal(*position, *len)?,
            });
        }
        let mut sums = Sums::after(&self.before);
        bytes.iter().for_each(|piece| sums.push(piece));
        if self.after.bytes > reserved {
            reserved =
                self.reserve(&*log, reserved.max(position)).map_err(|source| fault("allocate", position, source))?;
        }
        let slices: Vec<IoSlice<'_>> = bytes.iter().map(|piece| IoSlice::new(piece)).collect();
        log.write_at(position, &slices).map_err(|source| fault("write", position, source))?;
        let (from, to) =
            (position / WRITEBACK_BYTES * WRITEBACK_BYTES, self.after.bytes / WRITEBACK_BYTES * WRITEBACK_BYTES);
        if from < to {
            log.start_writeback(from, to - from);
        }
        if !sums.full.is_empty() {
            access.pending_sums().put(id, position / BLOCK_BYTES, &sums.full);
        }
        let mut segment = Segment { partial_crc: sums.partial, ..self.after };
        if self.learn_first && position > 0 {
            let mut header = [0; HEADER_BYTES];
            let read = log.read_at(0, &mut header).map_err(|source| fault("read", 0, source))?;
            // What does not look like a batch is found and named by the next read of it.
            if let Ok(first) = BatchHeader::read_without_records(&header[..read]) {
                segment.first_timestamp = first.max_timestamp;
            }
        }
        Ok((segment, reserved))
    }

    /// Reserves space from `from` on for what is to be written and some more; when there is not so much, for that alone.
    fn reserve(&self, log: &dyn DiskFile, from: u64) -> io::Result<u64> {
        let end = self.after.bytes;
        let ahead = (end + end.min(RESERVE_AHEAD_BYTES_MAX)).max(self.reserve_bytes);
        match log.reserve(from, ahead - from) {
            Ok(()) => Ok(ahead),
            // Any other failure is the device's, and the first one counts (rule 8).
            Err(error) if is_no_space(&error) => log.reserve(from, end - from).map(|()| end),
            Err(error) => Err(error),
        }
    }
}

/// CRC-32C block by block.
struct Sums {
    filled: u64,
    partial: u32,
    full: Vec<u32>,
}

impl Sums {
    fn after(segment: &Segment) -> Sums {
        Sums { filled: segment.bytes % BLOCK_BYTES, partial: segment.partial_crc, full: Vec::new() }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(BLOCK_BYTES - self.filled).expect("a block's size");
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.partial = crc32c::crc32c_append(self.partial, now);
            self.filled += now.len() as u64;
            if self.filled == BLOCK_BYTES {
                self.full.push(std::mem::take(&mut self.partial));
                self.filled = 0;
            }
            bytes = later;
        }
    }
}

/// A closed segment's `.sum` file has the checksum of its last, partial block too, and its `.log` file no space to spare.
fn close(access: &FileAccess, id: SegmentId, segment: &Segment) -> Result<(), Fault> {
    let full = segment.bytes / BLOCK_BYTES;
    if segment.bytes.is_multiple_of(BLOCK_BYTES) {
        access.pending_sums().cut(id, full);
    } else {
        access.pending_sums().put(id, full, &[segment.partial_crc]);
    }
    let Some(log) = access.files().open_existing(access, id, SegmentFile::Log)? else { return Ok(()) };
    let path = id.path(SegmentFile::Log);
    log.set_len(segment.bytes).map_err(|source| access.fault("ftruncate", &path, Some(segment.bytes), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_do_not_depend_on_how_the_bytes_came_in_pieces() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let mut whole = Sums::after(&Segment::empty(Offset(0), Timestamp(0)));
        whole.push(&bytes);
        let mut pieces = Sums::after(&Segment::empty(Offset(0), Timestamp(0)));
        bytes.chunks(777).for_each(|piece| pieces.push(piece));
        assert_eq!((&whole.full, whole.partial), (&pieces.full, pieces.partial));
        assert_eq!(whole.full.len(), 3);
        assert_eq!(whole.full[1], crc32c::crc32c(&bytes[65_536..131_072]));
        assert_eq!(whole.partial, crc32c::crc32c(&bytes[196_608..]));
    }
}
