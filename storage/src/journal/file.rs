//! A journal file: two copies of its header in the first two blocks, then commits.
//!
//! The header gives the file its place in the one order of the journal; names say nothing. Each copy lies within one
//! 512-byte sector, so a torn write leaves the old or the new one whole, and the newest intact copy wins. What a file
//! is that has none: [`super::found`].

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::JournalPosition;
use super::commit::BLOCK_BYTES;
use super::found::can_lose_its_header;
use crate::Fault;
use crate::disk::DiskFile;
use crate::disk::aligned::AlignedBuffer;
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

/// What one copy of a header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderCopy {
    /// As it was written.
    Intact(FileHeader),
    /// As it was written, and the file had another length then.
    OfOtherLength,
    /// Zeroes: never written.
    Blank,
    /// Something else.
    Damaged,
}

/// What each copy of the header says, read past the page cache.
pub(super) fn header_copies(file: &dyn DiskFile, path: &Path) -> Result<[HeaderCopy; 2], Fault> {
    let mut bytes = AlignedBuffer::zeroed(FILE_HEADER_BYTES as usize);
    let read = file.read_device_at(0, &mut bytes).map_err(|e| Fault::io_at("read", path, 0, e))?;
    let len = file.len().map_err(|e| Fault::io("stat", path, e))?;
    let copy = |at: usize| {
        let block = &bytes[read.min(at)..read.min(at + BLOCK_BYTES as usize)];
        let sector = &block[..SECTOR_BYTES.min(block.len())];
        match FileHeader::decode(sector).ok().flatten() {
            Some(header) if header.len == len => HeaderCopy::Intact(header),
            Some(_) => HeaderCopy::OfOtherLength,
            None if sector.iter().all(|byte| *byte == 0) => HeaderCopy::Blank,
            None => HeaderCopy::Damaged,
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

/// Ends the name of a journal file, in use or spare.
pub(super) const FILE_SUFFIX: &str = ".journal";
/// Ended the name of a spare in earlier releases, which renamed a file when they put it into use.
const OLD_SPARE_SUFFIX: &str = ".spare";

/// The name of the file with a number. It keeps it for life: what becomes of the file, its header says, so that putting
/// it into use takes no change of names, for which a full disk may have no room.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:020}{FILE_SUFFIX}")
}

/// Whether a journal file is called so.
pub(super) fn is_file_name(name: &str) -> bool {
    name.ends_with(FILE_SUFFIX) || name.ends_with(OLD_SPARE_SUFFIX)
}

/// The number in the name of a journal file, also of one that is being prepared.
pub(super) fn number_in(name: &str) -> Option<u64> {
    name.split_once('.').and_then(|(number, _)| number.parse().ok())
}

/// Gives a prepared or recycled file its place. It is durable when this returns.
pub(super) fn put_into_use(file: Arc<dyn DiskFile>, path: PathBuf, header: FileHeader) -> Result<LiveFile, Fault> {
    if !can_lose_its_header(&*file, &path)? {
        let zeroes = [IoSlice::new(&[0; BLOCK_BYTES as usize])];
        file.write_at(FILE_HEADER_BYTES, &zeroes).map_err(|e| Fault::io_at("write", &path, FILE_HEADER_BYTES, e))?;
        file.sync_data().map_err(|e| Fault::io("fdatasync", &path, e))?;
    }
    header.write(&*file, &path)?;
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
