//! A segment being written anew: aside under its own name, whole and durable before anybody names it.

use std::io::{self, IoSlice};
use std::sync::Arc;

use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::{Timestamp, TopicPartition};

use crate::Fault;
use crate::disk::{DiskFile, Open};
use crate::index::{SparseIndex, file as index_file};
use crate::job::FileAccess;
use crate::segment::{BLOCK_BYTES, Segment, SegmentFile, SegmentId, directory_of};

/// Bytes gathered before they are written; whole blocks.
const WRITE_BYTES: usize = 1 << 20;

/// Writeback is asked for each time so much was written, so that the sync at the end is short.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// See the module's comment.
pub(super) struct Output<'a> {
    access: &'a FileAccess,
    id: SegmentId,
    log: Arc<dyn DiskFile>,
    /// Not written yet.
    buffer: Vec<u8>,
    written: u64,
    sums: Vec<u8>,
    index: SparseIndex,
    interval_bytes: u32,
    segment: Segment,
}

impl<'a> Output<'a> {
    /// Begins a segment as `empty` says. A file of its name is left by a crash: nothing names it.
    pub(super) fn create(
        access: &'a FileAccess,
        partition: TopicPartition,
        empty: Segment,
        interval_bytes: u32,
    ) -> Result<Output<'a>, Fault> {
        let id = empty.id(partition);
        remove_files(access, id)?;
        let log = create(access, id, SegmentFile::Log)?;
        Ok(Output {
            access,
            id,
            log,
            buffer: Vec::with_capacity(WRITE_BYTES),
            written: 0,
            sums: Vec::new(),
            index: SparseIndex::starting(empty.base, 0, Timestamp::NONE),
            interval_bytes,
            segment: empty,
        })
    }

    /// Whether nothing was added yet.
    pub(super) fn is_empty(&self) -> bool {
        self.segment.bytes == 0
    }

    /// Adds a batch. Returns the bytes that went to the disk.
    pub(super) fn push(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<u64, Fault> {
        // A batch without records answers no question about time.
        let max_timestamp = if header.records_count > 0 { header.max_timestamp } else { Timestamp::NONE };
        let position = self.written + self.buffer.len() as u64;
        self.index.push(header.base_offset, position, batch.len() as u64, max_timestamp, self.interval_bytes);
        if self.segment.bytes == 0 {
            self.segment.first_timestamp = max_timestamp;
        }
        self.segment.max_timestamp = self.segment.max_timestamp.max(max_timestamp);
        self.segment.bytes += batch.len() as u64;
        self.buffer.extend_from_slice(batch);
        if self.buffer.len() < WRITE_BYTES {
            return Ok(0);
        }
        self.write(self.buffer.len() / BLOCK_BYTES as usize * BLOCK_BYTES as usize)
    }

    /// Writes the rest and makes all of it durable, its names too.
    pub(super) fn finish(mut self) -> Result<Segment, Fault> {
        self.write(self.buffer.len())?;
        let path = self.id.path(SegmentFile::Log);
        self.sync(&*self.log, SegmentFile::Log)?;
        let sums = create(self.access, self.id, SegmentFile::Sums)?;
        write_all(self.access, &*sums, self.id, SegmentFile::Sums, 0, &self.sums)?;
        self.sync(&*sums, SegmentFile::Sums)?;
        index_file::write(self.access, self.id, self.segment.bytes, &self.index)?;
        let directory = directory_of(self.id.partition);
        let synced = self.access.disk().sync_dir(&self.access.path(&directory));
        synced.map_err(|source| self.access.fault("fsync directory", &directory, None, source))?;
        // The checkpoint counts in 32 bits.
        assert!(self.segment.bytes <= u64::from(u32::MAX), "{}: a group is no larger than a segment", path.display());
        Ok(self.segment)
    }

    /// Removes what was written.
    pub(super) fn abandon(self) -> Result<(), Fault> {
        remove_files(self.access, self.id)
    }

    fn write(&mut self, len: usize) -> Result<u64, Fault> {
        let bytes = &self.buffer[..len];
        for block in bytes.chunks(BLOCK_BYTES as usize) {
            let sum = crc32c::crc32c(block);
            self.sums.extend_from_slice(&sum.to_le_bytes());
            self.segment.partial_crc = if block.len() as u64 == BLOCK_BYTES { 0 } else { sum };
        }
        write_all(self.access, &*self.log, self.id, SegmentFile::Log, self.written, bytes)?;
        let before = self.written / WRITEBACK_BYTES * WRITEBACK_BYTES;
        self.written += len as u64;
        let after = self.written / WRITEBACK_BYTES * WRITEBACK_BYTES;
        if before < after {
            self.log.start_writeback(before, after - before);
        }
        self.buffer.drain(..len);
        Ok(len as u64)
    }

    fn sync(&self, file: &dyn DiskFile, which: SegmentFile) -> Result<(), Fault> {
        #[cfg(feature = "mutants")]
        if crate::mutants::Guard::CompactionSync.is_off() {
            return Ok(());
        }
        file.sync_data().map_err(|source| self.access.fault("fdatasync", &self.id.path(which), None, source))
    }
}

fn create(access: &FileAccess, id: SegmentId, file: SegmentFile) -> Result<Arc<dyn DiskFile>, Fault> {
    let path = id.path(file);
    let created = access.disk().open(&access.path(&path), Open::CreateNew);
    created.map_err(|source| access.fault("create", &path, None, source))
}

fn write_all(
    access: &FileAccess,
    file: &dyn DiskFile,
    id: SegmentId,
    which: SegmentFile,
    position: u64,
    bytes: &[u8],
) -> Result<(), Fault> {
    if bytes.is_empty() {
        return Ok(());
    }
    let fault = |operation, source| access.fault(operation, &id.path(which), Some(position), source);
    file.allocate(position, bytes.len() as u64).map_err(|source| fault("allocate", source))?;
    file.write_at(position, &[IoSlice::new(bytes)]).map_err(|source| fault("write", source))
}

/// Removes a segment's files that nobody names.
pub(super) fn remove_files(access: &FileAccess, id: SegmentId) -> Result<(), Fault> {
    access.files().forget(id);
    for file in [SegmentFile::Log, SegmentFile::Sums, SegmentFile::Index] {
        let path = id.path(file);
        match access.disk().remove_file(&access.path(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(|source| access.fault("unlink", &path, None, source))?,
        }
    }
    Ok(())
}
