//! A journal file: two copies of its header in the first two blocks, then commits.
//!
//! The header gives the file its place in the one order of the journal; names say nothing. Each copy lies within one
//! 512-byte sector, so a torn write leaves the old or the new one whole, and the newest intact copy wins.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::JournalPosition;
use super::commit::BLOCK_BYTES;
use crate::Fault;
use crate::disk::aligned::AlignedBuffer;
use crate::disk::{Disk, DiskFile};
use crate::fields::{FieldReader, Short};

/// Where the first commit of a file begins.
pub(super) const FILE_HEADER_BYTES: u64 = 2 * BLOCK_BYTES;

const MAGIC: [u8; 8] = *b"SLJRNL\0\x01";
const CHECKED_BYTES: usize = 72;
const SECTOR_BYTES: usize = 512;

/// The last commit before some point of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct ChainEnd {
    /// Its sequence; 0 before the first commit.
    pub(super) sequence: u64,
    /// Its checksum; 0 before the first commit.
    pub(super) checksum: u32,
    /// Where it ends.
    pub(super) end: JournalPosition,
}

/// A journal file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// Raised by one with each file put into use, recycled or new, from 1.
    pub(super) generation: u64,
    /// The start that put it into use.
    pub(super) recovery_epoch: u32,
    /// The journal position of the file's first byte.
    pub(super) base: JournalPosition,
    /// The file's length.
    pub(super) len: u64,
    /// The last commit before this file. Where the file begins a recovery epoch: the last one that recovery trusted.
    pub(super) previous: ChainEnd,
    /// Newest sequence known to be durable when the file was put into use.
    pub(super) durable_sequence: u64,
}

impl FileHeader {
    /// The journal position behind the file's last byte.
    pub(super) fn end(&self) -> JournalPosition {
        JournalPosition(self.base.0 + self.len)
    }

    /// Seeds the checksums of its commits: differs between generations and depends on earlier commits, so that nobody
    /// who only sends batches can know it.
    pub(super) fn seed(&self) -> u32 {
        let mixed = crc32c::crc32c_append(self.previous.checksum, &self.generation.to_le_bytes());
        crc32c::crc32c_append(mixed, &self.base.0.to_le_bytes())
    }

    fn encode(&self) -> Vec<u8> {
        let mut sector = Vec::with_capacity(SECTOR_BYTES);
        sector.extend_from_slice(&MAGIC);
        sector.extend_from_slice(&self.generation.to_le_bytes());
        sector.extend_from_slice(&self.base.0.to_le_bytes());
        sector.extend_from_slice(&self.len.to_le_bytes());
        sector.extend_from_slice(&self.recovery_epoch.to_le_bytes());
        sector.extend_from_slice(&self.previous.checksum.to_le_bytes());
        sector.extend_from_slice(&self.previous.sequence.to_le_bytes());
        sector.extend_from_slice(&self.previous.end.0.to_le_bytes());
        sector.extend_from_slice(&self.durable_sequence.to_le_bytes());
        sector.extend_from_slice(&[0; 8]);
        debug_assert_eq!(sector.len(), CHECKED_BYTES);
        sector.extend_from_slice(&crc32c::crc32c(&sector).to_le_bytes());
        sector.resize(BLOCK_BYTES as usize, 0);
        sector
    }

    fn decode(sector: &[u8]) -> Result<Option<FileHeader>, Short> {
        let checked = sector.get(..CHECKED_BYTES).ok_or(Short)?;
        let mut reader = FieldReader::new(sector);
        if reader.array::<8>()? != MAGIC {
            return Ok(None);
        }
        let generation = reader.u64()?;
        let base = JournalPosition(reader.u64()?);
        let len = reader.u64()?;
        let recovery_epoch = reader.u32()?;
        let checksum = reader.u32()?;
        let sequence = reader.u64()?;
        let end = JournalPosition(reader.u64()?);
        let durable_sequence = reader.u64()?;
        reader.u64()?;
        let previous = ChainEnd { sequence, checksum, end };
        let header = FileHeader { generation, recovery_epoch, base, len, previous, durable_sequence };
        let intact = reader.u32()? == crc32c::crc32c(checked) && base.0.checked_add(len).is_some();
        Ok(intact.then_some(header))
    }

    /// Writes both copies and makes them durable.
    pub(super) fn write(&self, file: &dyn DiskFile, path: &Path) -> Result<(), Fault> {
        let block = self.encode();
        // Each by a write of its own: a disk that loses or misplaces one of them leaves the other.
        for position in [0, FILE_HEADER_BYTES / 2] {
            let block = [IoSlice::new(&block)];
            file.write_at(position, &block).map_err(|e| Fault::io_at("write", path, position, e))?;
        }
        file.sync_data().map_err(|e| Fault::io("fdatasync", path, e))
    }
}

/// What the first blocks of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderState {
    /// At least one copy is intact.
    Intact(FileHeader),
    /// Both are zero: a prepared file that was never put into use.
    Blank,
    /// Neither is intact.
    Damaged,
}

/// Reads the header past the page cache.
pub(super) fn read_header(file: &dyn DiskFile, path: &Path) -> Result<HeaderState, Fault> {
    let copies = header_copies(file, path)?;
    let intact = copies.iter().filter_map(|copy| match copy {
        HeaderState::Intact(header) => Some(*header),
        _ => None,
    });
    Ok(match intact.max_by_key(|header| header.generation) {
        Some(header) => HeaderState::Intact(header),
        None if copies.iter().all(|copy| *copy == HeaderState::Blank) => HeaderState::Blank,
        None => HeaderState::Damaged,
    })
}

/// What each copy of the header says, read past the page cache.
pub(super) fn header_copies(file: &dyn DiskFile, path: &Path) -> Result<[HeaderState; 2], Fault> {
    let mut bytes = AlignedBuffer::zeroed(FILE_HEADER_BYTES as usize);
    let read = file.read_device_at(0, &mut bytes).map_err(|e| Fault::io_at("read", path, 0, e))?;
    let len = file.len().map_err(|e| Fault::io("stat", path, e))?;
    let copy = |at: usize| {
        let block = &bytes[read.min(at)..read.min(at + BLOCK_BYTES as usize)];
        let sector = &block[..SECTOR_BYTES.min(block.len())];
        match FileHeader::decode(sector).ok().flatten().filter(|header| header.len == len) {
            Some(header) => HeaderState::Intact(header),
            None if sector.iter().all(|byte| *byte == 0) => HeaderState::Blank,
            None => HeaderState::Damaged,
        }
    };
    Ok([copy(0), copy(BLOCK_BYTES as usize)])
}

/// A file in use.
pub(super) struct LiveFile {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) header: FileHeader,
}

/// The name of a file in use.
pub(super) fn live_name(generation: u64) -> String {
    format!("{generation:020}.journal")
}

/// The name of a prepared file.
pub(super) fn spare_name(number: u64) -> String {
    format!("{number:020}.spare")
}

/// Gives a prepared or recycled file its place: header durable, then its name.
pub(super) fn put_into_use(
    disk: &dyn Disk,
    directory: &Path,
    file: Arc<dyn DiskFile>,
    old_path: &Path,
    header: FileHeader,
) -> Result<LiveFile, Fault> {
    header.write(&*file, old_path)?;
    let path = directory.join(live_name(header.generation));
    disk.rename(old_path, &path).map_err(|e| Fault::io("rename", old_path, e))?;
    disk.sync_dir(directory).map_err(|e| Fault::io("fsync", directory, e))?;
    Ok(LiveFile { file, path, header })
}

/// An operation that failed because the bytes are not what they should be.
pub(super) fn ended_early(path: &Path, position: u64) -> Fault {
    Fault::io_at("read", path, position, io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(generation: u64) -> FileHeader {
        FileHeader {
            generation,
            recovery_epoch: 2,
            base: JournalPosition(1 << 20),
            len: 1 << 16,
            previous: ChainEnd { sequence: 41, checksum: 0xabcd, end: JournalPosition(90_112) },
            durable_sequence: 40,
        }
    }

    #[test]
    fn header_round_trips_and_notices_each_flipped_bit() {
        let block = header(7).encode();
        assert_eq!(FileHeader::decode(&block), Ok(Some(header(7))));
        for bit in 0..(CHECKED_BYTES + 4) * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHeader::decode(&flipped), Ok(None), "bit {bit}");
        }
    }

    #[test]
    fn generations_seed_differently() {
        assert_ne!(header(7).seed(), header(8).seed());
    }
}
