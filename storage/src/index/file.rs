//! The `.index` file of a closed segment: a cache, believed only when its checksum and its segment's length match.
//!
//! ```text
//! "SLINDEX1" | base i64 | bytes of the .log u64 | entries count u32 | CRC-32C u32 of all else
//! then per entry: relative_offset u32 | position u32 | max_timestamp_before i64      (all little-endian)
//! ```

use std::io::{self, IoSlice};
use std::path::Path;

use stonelog_protocol::{Offset, Timestamp};

use super::{ENTRY_BYTES, IndexEntry, SparseIndex};
use crate::Fault;
use crate::disk::{Disk, Open};
use crate::job::FileAccess;
use crate::scrub::IndexContents;
use crate::segment::{SegmentFile, SegmentId};

const MAGIC: &[u8; 8] = b"SLINDEX1";
const HEADER_BYTES: usize = 32;

/// Writes the whole index of a segment whose `.log` holds `log_bytes`. Not synced: it can be built again.
pub(crate) fn write(access: &FileAccess, id: SegmentId, log_bytes: u64, index: &SparseIndex) -> Result<(), Fault> {
    assert_eq!(index.known_from(), 0, "only a whole index is written");
    let path = id.path(SegmentFile::Index);
    let bytes = encode(index, log_bytes);
    let (file, existed) = access.files().open_or_create(access, id, SegmentFile::Index)?;
    if existed {
        file.set_len(0).map_err(|source| access.fault("ftruncate", &path, Some(0), source))?;
    }
    file.allocate(0, bytes.len() as u64).map_err(|source| access.fault("allocate", &path, Some(0), source))?;
    file.write_at(0, &[IoSlice::new(&bytes)]).map_err(|source| access.fault("write", &path, Some(0), source))
}

/// Reads the index of a segment whose `.log` holds `log_bytes`; `None` when there is none that fits.
pub(crate) fn read(access: &FileAccess, id: SegmentId, log_bytes: u64) -> Result<Option<SparseIndex>, Fault> {
    let path = id.path(SegmentFile::Index);
    let Some(file) = access.files().open_existing(access, id, SegmentFile::Index)? else { return Ok(None) };
    let fault = |operation, source| access.fault(operation, &path, Some(0), source);
    let len = file.len().map_err(|source| fault("fstat", source))?;
    // An index has less than one entry per batch, and a batch is longer than an entry.
    if len > log_bytes + HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(len).expect("a segment's size")];
    let read = file.read_at(0, &mut bytes).map_err(|source| fault("read", source))?;
    Ok(decode(&bytes[..read], id.base, log_bytes))
}

/// Whether the index file at `path` fits a segment; `None` when there is none or it cannot be read.
pub(crate) fn fits(disk: &dyn Disk, path: &Path, base: Offset, log_bytes: u64) -> Option<bool> {
    let file = disk.open(path, Open::Read).ok()?;
    let len = file.len().ok()?;
    if len > log_bytes + HEADER_BYTES as u64 {
        return Some(false);
    }
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    let read = file.read_at(0, &mut bytes).ok()?;
    Some(decode(&bytes[..read], base, log_bytes).is_some())
}

/// What the bytes of an index file say, whatever segment they are of; `None` when they are damaged.
pub(crate) fn show(bytes: &[u8]) -> Option<IndexContents> {
    let base = Offset(i64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?));
    let log_bytes = u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?);
    let index = decode(bytes, base, log_bytes)?;
    Some(IndexContents { base, log_bytes, entries: index.entries })
}

/// Removes an index that is of another history of the segment.
pub(crate) fn remove(access: &FileAccess, id: SegmentId) -> Result<(), Fault> {
    access.files().forget_index(id);
    let path = id.path(SegmentFile::Index);
    match access.disk().remove_file(&access.path(&path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| access.fault("unlink", &path, None, source)),
    }
}

fn encode(index: &SparseIndex, log_bytes: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + index.entries().len() * ENTRY_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&index.base().0.to_le_bytes());
    bytes.extend_from_slice(&log_bytes.to_le_bytes());
    bytes.extend_from_slice(&(index.entries().len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for entry in index.entries() {
        bytes.extend_from_slice(&entry.relative_offset.to_le_bytes());
        bytes.extend_from_slice(&entry.position.to_le_bytes());
        bytes.extend_from_slice(&entry.max_timestamp_before.0.to_le_bytes());
    }
    let crc = checksum(&bytes);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], base: Offset, log_bytes: u64) -> Option<SparseIndex> {
    let header = bytes.get(..HEADER_BYTES)?;
    let expected = [&MAGIC[..], &base.0.to_le_bytes(), &log_bytes.to_le_bytes()].concat();
    let count = u32::from_le_bytes(header[24..28].try_into().ok()?) as usize;
    let entries = &bytes[HEADER_BYTES..];
    let fits = header[..24] == expected[..]
        && count.checked_mul(ENTRY_BYTES) == Some(entries.len())
        && header[28..32] == checksum(bytes).to_le_bytes();
    #[cfg(feature = "mutants")]
    let fits = fits || crate::mutants::Guard::IndexChecks.is_off();
    if !fits {
        return None;
    }
    let entries = entries.chunks_exact(ENTRY_BYTES).map(|entry| {
        let (numbers, time) = entry.split_at(8);
        let (offset, position) = numbers.split_at(4);
        Some(IndexEntry {
            relative_offset: u32::from_le_bytes(offset.try_into().ok()?),
            position: u32::from_le_bytes(position.try_into().ok()?),
            max_timestamp_before: Timestamp(i64::from_le_bytes(time.try_into().ok()?)),
        })
    });
    Some(SparseIndex {
        base,
        known_from: 0,
        entries: entries.collect::<Option<_>>()?,
        bytes_since_entry: u64::MAX,
        max_timestamp: Timestamp::NONE,
    })
}

/// Over everything but the checksum itself.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..28]), &bytes[HEADER_BYTES..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> SparseIndex {
        let mut index = SparseIndex::starting(Offset(7), 0, Timestamp::NONE);
        for n in 0..20_u32 {
            index.push(Offset(7 + i64::from(n)), u64::from(n) * 100, 100, Timestamp(i64::from(n)), 250);
        }
        index
    }

    #[test]
    fn an_index_reads_back_as_it_was_written() {
        let read = decode(&encode(&index(), 2_000), Offset(7), 2_000).expect("fits");
        assert_eq!(read.entries(), index().entries());
        assert_eq!(read.known_from(), 0);
    }

    #[test]
    fn an_index_that_is_damaged_or_of_other_bytes_is_not_believed() {
        let bytes = encode(&index(), 2_000);
        assert_eq!(decode(&bytes, Offset(7), 2_001), None, "another length");
        assert_eq!(decode(&bytes, Offset(8), 2_000), None, "another segment");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged, Offset(7), 2_000), None, "bit flipped in byte {at}");
            assert_eq!(decode(&bytes[..at], Offset(7), 2_000), None, "cut at {at}");
        }
    }
}
