//! Reads any one of our files so that it can be shown. Believes nothing: what is damaged is shown as far as it goes.

use std::fmt;
use std::path::Path;

use stonelog_protocol::Offset;
use stonelog_protocol::batch::header::{HeaderError, crc_matches};
use stonelog_protocol::batch::{BatchHeader, HEADER_BYTES};

use super::check::{decode_checkpoint, id_of, segment_name};
use super::state::{SCRUB_NAME, ScrubState};
use crate::Fault;
use crate::checkpoint::{CHECKPOINT_NAME, Checkpoint};
use crate::disk::{Disk, Open};
use crate::index::{IndexEntry, file as index_file};
use crate::log_dir::{CLEAN_STOP_NAME, META_PROPERTIES_NAME, MetaProperties, TENURE_NAME, Tenure};
use crate::segment::{BLOCK_BYTES, SegmentFile};
use crate::small_file::read_small_file;

/// Read at once from a `.log` file.
const WINDOW_BYTES: u64 = 1 << 20;
/// No batch is longer: an entry of the journal, whose files have at most this size.
const BATCH_BYTES_MAX: u64 = 1 << 30;

/// What a file holds. Files that may be long are walked instead.
#[derive(Clone, Debug)]
pub enum FileContents {
    /// A `.log`: [`walk_log`] shows it.
    Log,
    /// A file of a journal: [`crate::journal::inspect_file`] shows it.
    Journal,
    /// A `.sum`.
    Sums(Vec<Sum>),
    /// A `.index`.
    Index(IndexContents),
    /// A checkpoint and its version.
    Checkpoint(u64, Box<Checkpoint>),
    /// An identity and its version.
    MetaProperties(u64, MetaProperties),
    /// A tenure or clean-stop marker.
    Tenure(Tenure),
    /// The scrub's state.
    Scrub(Box<ScrubState>),
}

/// The checksum of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The block's number.
    pub block: u64,
    /// As the `.sum` file has it.
    pub stored: u32,
    /// As the bytes beside it have it; `None` when they are not there.
    pub computed: Option<u32>,
}

/// An index file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexContents {
    /// Base offset of its segment.
    pub base: Offset,
    /// Bytes of the `.log` that it was made for.
    pub log_bytes: u64,
    /// Its entries.
    pub entries: Vec<IndexEntry>,
}

/// One batch of a `.log` file.
#[derive(Clone, Copy, Debug)]
pub struct BatchLine<'a> {
    /// Where it begins.
    pub position: u64,
    /// Its header.
    pub header: BatchHeader,
    /// Whether its CRC matches.
    pub is_intact: bool,
    /// All of it.
    pub bytes: &'a [u8],
}

/// Why a file cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// It cannot be read.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Its name is none that we give.
    #[error("{0}: no file of ours has such a name")]
    NotOurs(std::path::PathBuf),
    /// Its contents make no sense.
    #[error("{path}: {what}")]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        what: String,
    },
    /// No whole batch begins where one should.
    #[error("{path}: no whole batch begins at byte {position}; {bytes} bytes follow")]
    NoBatch {
        /// The file.
        path: std::path::PathBuf,
        /// Where.
        position: u64,
        /// How many bytes follow.
        bytes: u64,
    },
}

/// What a file of ours holds, by its name.
pub fn read_file(disk: &dyn Disk, path: &Path) -> Result<FileContents, DumpError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let damaged = |what: &dyn fmt::Display| DumpError::Damaged { path: path.to_owned(), what: what.to_string() };
    if name.ends_with(".journal") || name.ends_with(".spare") {
        return Ok(FileContents::Journal);
    }
    match segment_name(name.strip_suffix(".deleted").unwrap_or(name)) {
        Some((_, SegmentFile::Log)) => return Ok(FileContents::Log),
        Some((_, SegmentFile::Sums)) => return sums(disk, path).map(FileContents::Sums),
        Some((_, SegmentFile::Index)) => {
            let contents = index_file::show(&read_whole(disk, path)?);
            return contents.map(FileContents::Index).ok_or_else(|| damaged(&"it fails its checksum"));
        }
        None => {}
    }
    match name.strip_suffix(".copy").unwrap_or(name) {
        CHECKPOINT_NAME => {
            let read = decode_checkpoint(&read_whole(disk, path)?).map_err(|error| damaged(&error))?;
            Ok(FileContents::Checkpoint(read.0, Box::new(read.1)))
        }
        META_PROPERTIES_NAME => {
            let read = MetaProperties::decode(&read_whole(disk, path)?).map_err(|error| damaged(&error))?;
            Ok(FileContents::MetaProperties(read.0, read.1))
        }
        TENURE_NAME | CLEAN_STOP_NAME => {
            Tenure::decode(&read_whole(disk, path)?).map(FileContents::Tenure).map_err(|error| damaged(&error))
        }
        SCRUB_NAME => {
            let state = ScrubState::decode_file(&read_whole(disk, path)?).map_err(|error| damaged(&error))?;
            Ok(FileContents::Scrub(Box::new(state)))
        }
        _ => Err(DumpError::NotOurs(path.to_owned())),
    }
}

fn read_whole(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, Fault> {
    let gone = || Fault::io("open", path, std::io::ErrorKind::NotFound.into());
    read_small_file(disk, path)?.ok_or_else(gone)
}

/// Each stored checksum beside that of the bytes it is for.
fn sums(disk: &dyn Disk, path: &Path) -> Result<Vec<Sum>, DumpError> {
    let stored = read_whole(disk, path)?;
    let log = match id_of(path) {
        Some((root, id, _)) => disk.open(&root.join(id.path(SegmentFile::Log)), Open::Read).ok(),
        None => disk.open(&path.with_extension("log"), Open::Read).ok(),
    };
    let mut block = vec![0; BLOCK_BYTES as usize];
    let mut sums = Vec::with_capacity(stored.len() / 4);
    for (number, sum) in (0_u64..).zip(stored.chunks_exact(4)) {
        let read = log.as_ref().and_then(|log| log.read_at(number * BLOCK_BYTES, &mut block).ok());
        sums.push(Sum {
            block: number,
            stored: u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]),
            computed: read.filter(|read| *read > 0).map(|read| crc32c::crc32c(&block[..read])),
        });
    }
    Ok(sums)
}

/// Shows every batch of a `.log` file in order, until `visit` returns `false`. An error names the first byte that begins
/// no whole batch; what a crash left behind the checkpointed end ends in one, too.
pub fn walk_log(disk: &dyn Disk, path: &Path, visit: &mut dyn FnMut(BatchLine<'_>) -> bool) -> Result<(), DumpError> {
    let file = disk.open(path, Open::Read).map_err(|e| Fault::io("open", path, e))?;
    let len = file.len().map_err(|e| Fault::io("stat", path, e))?;
    let no_batch = |position: u64| DumpError::NoBatch { path: path.to_owned(), position, bytes: len - position };
    let (mut position, mut want) = (0, WINDOW_BYTES);
    while position < len {
        let window = usize::try_from(want.min(len - position)).expect("bounded by a batch's length");
        let mut bytes = vec![0; window];
        let read = file.read_at(position, &mut bytes).map_err(|e| Fault::io_at("read", path, position, e))?;
        let mut at = 0;
        loop {
            match BatchHeader::read(&bytes[at..read]) {
                Ok(header) => {
                    let batch = &bytes[at..at + header.batch_bytes];
                    let line = BatchLine {
                        position: position + at as u64,
                        header,
                        is_intact: crc_matches(batch),
                        bytes: batch,
                    };
                    if !visit(line) {
                        return Ok(());
                    }
                    at += header.batch_bytes;
                }
                Err(HeaderError::Short) => break,
                Err(_) => return Err(no_batch(position + at as u64)),
            }
        }
        if at > 0 {
            position += at as u64;
            want = WINDOW_BYTES;
            continue;
        }
        // One batch is longer than the window, or the file ends within one.
        let announced = BatchHeader::read_without_records(&bytes[..read]).map(|header| header.batch_bytes as u64);
        match announced {
            Ok(batch) if read >= HEADER_BYTES && batch <= (len - position).min(BATCH_BYTES_MAX) => want = batch,
            _ => return Err(no_batch(position)),
        }
    }
    Ok(())
}
