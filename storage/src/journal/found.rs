//! What a file in the journal's directory is: in use, a spare, or damaged.
//!
//! Its name says nothing. Its header does, and where neither copy is intact its first commit: that carries everything
//! the header said, and proves itself, since the seed of its checksum is made of what it carries. A header that was
//! being written when the power went is of a file in which nothing was committed since: its first commit is missing, or
//! is that of a former life, which the checkpoint covers.

use std::path::Path;

use super::JournalPosition;
use super::commit::{self, BLOCK_BYTES};
use super::file::{ChainEnd, FILE_HEADER_BYTES, FileHeader, HeaderCopy, ended_early, header_copies};
use crate::Fault;
use crate::disk::DiskFile;
use crate::disk::aligned::AlignedBuffer;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundFile {
    /// It was put into use; its header.
    Used(FileHeader),
    /// Nothing was ever committed in it: a spare.
    Unused,
    /// Nobody can say.
    Damaged,
}

/// Judges a file by what the device holds, past the page cache.
pub(super) fn judge(file: &dyn DiskFile, path: &Path) -> Result<FoundFile, Fault> {
    let copies = header_copies(file, path)?;
    let intact = copies.iter().filter_map(|copy| match copy {
        HeaderCopy::Intact(header) => Some(*header),
        _ => None,
    });
    let len = file.len().map_err(|e| Fault::io("stat", path, e))?;
    if let Some(header) = intact.max_by_key(|header| header.generation) {
        // A device that never wrote the header of the present life left that of a former one, which is covered: taken for
        // a spare, the file would be written over. Its first commit knows better.
        return Ok(FoundFile::Used(match first_commit(file, path, len)? {
            Some(later) if later.generation > header.generation => {
                tracing::error!(path = %path.display(), "a journal file's header is that of a former life");
                later
            }
            _ => header,
        }));
    }
    let is_blank = copies == [HeaderCopy::Blank; 2];
    // Who cut a file short took commits with it, which the first one does not tell. A spare has its whole length before
    // it has its name, so an empty file was none.
    let is_cut = len < FILE_HEADER_BYTES + BLOCK_BYTES || !len.is_multiple_of(BLOCK_BYTES);
    if is_cut || copies.contains(&HeaderCopy::OfOtherLength) {
        return Ok(FoundFile::Damaged);
    }
    let block = read(file, path, BLOCK_BYTES)?;
    if let Some(header) = header_of_first_commit(file, path, &block, len)? {
        tracing::warn!(path = %path.display(), "a journal file's header is told from its first commit");
        return Ok(FoundFile::Used(header));
    }
    let is_unused = is_blank || block.iter().all(|byte| *byte == 0);
    Ok(if is_unused { FoundFile::Unused } else { FoundFile::Damaged })
}

/// Whether the file can lose its header and not be taken for damaged: where its first commit would be there is nothing, or
/// a whole one, which tells the header of a former life. What else there is, a commit that was torn or has decayed, says
/// nothing of the file, and is to go before a header is written that the power may tear.
pub(super) fn can_lose_its_header(file: &dyn DiskFile, path: &Path) -> Result<bool, Fault> {
    let len = file.len().map_err(|e| Fault::io("stat", path, e))?;
    let block = read(file, path, BLOCK_BYTES)?;
    Ok(block.iter().all(|byte| *byte == 0) || header_of_first_commit(file, path, &block, len)?.is_some())
}

/// As [`header_of_first_commit`], of a file that somebody may have cut short.
fn first_commit(file: &dyn DiskFile, path: &Path, len: u64) -> Result<Option<FileHeader>, Fault> {
    if len < FILE_HEADER_BYTES + BLOCK_BYTES || !len.is_multiple_of(BLOCK_BYTES) {
        return Ok(None);
    }
    header_of_first_commit(file, path, &read(file, path, BLOCK_BYTES)?, len)
}

/// The header that the first commit belongs to; `None` where none is intact.
fn header_of_first_commit(
    file: &dyn DiskFile,
    path: &Path,
    block: &[u8],
    len: u64,
) -> Result<Option<FileHeader>, Fault> {
    let Some(peeked) = commit::peek(block, len - FILE_HEADER_BYTES) else { return Ok(None) };
    let first = &peeked.header;
    let base = first.position.0.checked_sub(FILE_HEADER_BYTES).filter(|base| base.checked_add(len).is_some());
    let (Some(base), Some(sequence)) = (base, first.sequence.checked_sub(1)) else { return Ok(None) };
    let base = JournalPosition(base);
    let header = FileHeader {
        generation: first.generation,
        recovery_epoch: first.recovery_epoch,
        base,
        len,
        // Where the commit before it ends it does not say: not behind the file's begin.
        previous: ChainEnd { sequence, checksum: first.previous_checksum, end: base },
        durable_sequence: first.durable_sequence,
    };
    let whole = read(file, path, peeked.header_bytes as u64)?;
    Ok(commit::header_is_intact(&peeked, &whole, header.seed()).then_some(header))
}

/// The first bytes behind the header; the file is as long.
fn read(file: &dyn DiskFile, path: &Path, bytes: u64) -> Result<AlignedBuffer, Fault> {
    let mut buffer = AlignedBuffer::zeroed(bytes.next_multiple_of(BLOCK_BYTES) as usize);
    let read = file
        .read_device_at(FILE_HEADER_BYTES, &mut buffer)
        .map_err(|e| Fault::io_at("read", path, FILE_HEADER_BYTES, e))?;
    if (read as u64) < bytes {
        return Err(ended_early(path, FILE_HEADER_BYTES + read as u64));
    }
    Ok(buffer)
}
